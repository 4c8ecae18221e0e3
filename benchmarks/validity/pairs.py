"""Right or wrong: error rates of the fixed test, simulated and enumerated, and those of other methods beside it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.validity.cells import seeded
from benchmarks.validity.tables import ANY_DISCORDANCE, MOST_DISCORDANT

Z = float(stats.norm.ppf(0.95))
RIGHT_OF_CONCORDANT = 0.7
"""Share of concordant pairs that both roles get right: Newcombe's method is the only one that asks."""
METHODS = ("exact", "tango", "newcombe", "wald", "mcnemar")
FIGURE = (135, 0.02)
"""n and margin of the figure."""
Method = Literal["exact", "tango", "newcombe", "wald", "mcnemar"]


class Rates(NamedTuple):
    """Chances of one cell: the verdicts, and a bound on the wrong side of the true loss."""

    passed: float
    failed: float
    upper_missed: float
    lower_missed: float


def shares(discordance: float, loss: float) -> tuple[float, float]:
    """(p_b, p_c) of a true loss and a discordance, which is at least the loss."""
    assert discordance >= loss - 1e-12
    return (discordance + loss) / 2, max(0.0, (discordance - loss) / 2)


def simulate(
    n: int,
    discordance: float,
    loss: float,
    tables: dict[str, list[int]],
    trials: int,
    margins: tuple[float, ...],
) -> dict[str, Any]:
    """Rates over simulated runs. `tables` are named "side threshold"; the trials of a cell serve all its margins."""
    p_b, p_c = shares(discordance, loss)
    rng = seeded("pairs", n, discordance, loss)
    counts = rng.multinomial(n, [p_b, p_c, max(0.0, 1 - p_b - p_c)], size=trials)
    b, c = counts[:, 0], counts[:, 1]

    def share(side: str, threshold: float) -> float:
        return float(np.mean(b <= np.array(tables[f"{side} {threshold}"])[c]))

    return {
        "upper_missed": share("upper", loss),
        "lower_missed": 1 - share("lower", loss),
        "passed": {str(m): share("upper", m) for m in margins},
        "failed": {str(m): 1 - share("lower", m) for m in margins},
    }


def enumerate_cell(
    n: int, discordance: float, loss: float, tables: dict[str, list[int]], margins: tuple[float, ...]
) -> dict[str, Any]:
    """The same rates without simulation error: the sum over all (b, c)."""

    def share(side: str, threshold: float) -> float:
        return chance_below(tables[f"{side} {threshold}"], n, discordance, loss)

    return {
        "upper_missed": share("upper", loss),
        "lower_missed": 1 - share("lower", loss),
        "passed": {str(m): share("upper", m) for m in margins},
        "failed": {str(m): 1 - share("lower", m) for m in margins},
    }


def chance_below(table: list[int], n: int, discordance: float, loss: float) -> float:
    """Chance that b is at most the table's entry for c; the counts of c beyond the table are counted as above."""
    p_b, p_c = shares(discordance, loss)
    c = np.arange(min(len(table), n + 1))
    b = np.array(table)[: c.size]
    of_b = np.clip(p_b / max(1 - p_c, 1e-300), 0, 1)
    below = np.where(b < 0, 0.0, stats.binom.cdf(b, n - c, of_b))
    return float(min(1.0, (stats.binom.pmf(c, n, p_c) * below).sum()))


# -- other methods -----------------------------------------------------------------------------------------------


def passes(method: Method, b: NDArray[Any], c: NDArray[Any], n: int, margin: float) -> NDArray[np.bool_]:
    """Whether a method lets counts pass a margin; not for "exact", which has its tables."""
    b, c = np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    if method == "tango":
        return np.asarray(tango_z(b, c, n, margin) <= -Z)
    if method == "newcombe":
        return np.asarray(newcombe(b, c, n)[1] <= margin)
    if method == "wald":
        return np.asarray(wald(b, c, n)[1] <= margin)
    least = np.minimum(b, c)
    two_sided = np.minimum(1.0, 2 * stats.binom.cdf(least, b + c, 0.5))
    return np.asarray(two_sided > 0.05)


def tango_z(b: NDArray[Any], c: NDArray[Any], n: int, margin: float) -> NDArray[Any]:
    """Tango's statistic (Statistics in Medicine 17 (1998) 891-908) at a difference of `margin`."""
    first = -b - c + (2 * n - b + c) * margin
    q = (np.sqrt(np.maximum(first**2 + 8 * n * c * margin * (1 - margin), 0)) - first) / (4 * n)
    return np.asarray((b - c - n * margin) / np.sqrt(np.maximum(n * (2 * q + margin * (1 - margin)), 1e-300)))


def wald(b: NDArray[Any], c: NDArray[Any], n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """One-sided 95 % bounds from the estimated normal error: what most leaderboards print."""
    estimate = (b - c) / n
    half = Z * np.sqrt(np.maximum(b + c - (b - c) ** 2 / n, 0)) / n
    return estimate - half, estimate + half


def newcombe(b: NDArray[Any], c: NDArray[Any], n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635-2650, one-sided 95 %."""
    right = np.round(RIGHT_OF_CONCORDANT * (n - b - c))
    return newcombe_of_table(right, b, c, n - b - c - right)


def newcombe_of_table(a: Any, b: Any, c: Any, d: Any, z: float = Z) -> tuple[NDArray[Any], NDArray[Any]]:
    """Newcombe's bounds of a table: both right, only the first, only the second, none."""
    a, b, c, d = (np.asarray(x, dtype=np.float64) for x in (a, b, c, d))
    n = a + b + c + d
    product = a * d - b * c
    corrected = np.where(product > 0, np.maximum(product - n / 2, 0), product)
    root = np.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    phi = np.where(root > 0, corrected / np.maximum(root, 1e-300), 0.0)
    first, second = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = _wilson(first, n, z), _wilson(second, n, z)

    def half(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.sqrt(np.maximum(x**2 - 2 * phi * x * y + y**2, 0)))

    difference = first - second
    return difference - half(first - low1, high2 - second), difference + half(high1 - first, second - low2)


def _wilson(p: NDArray[Any], n: Any, z: float) -> tuple[NDArray[Any], NDArray[Any]]:
    middle, half = 2 * n * p + z * z, z * np.sqrt(z * z + 4 * n * p * (1 - p))
    return (middle - half) / (2 * (n + z * z)), (middle + half) / (2 * (n + z * z))


class Region:
    """All counts that matter, with which of them a method passes: for exact rates at any discordance."""

    def __init__(self, n: int, margin: float, table: list[int]) -> None:
        most_b = n if n <= ANY_DISCORDANCE else int(stats.binom.isf(1e-12, n, (MOST_DISCORDANT + margin) / 2))
        self.n, self.margin = n, margin
        self.c = np.arange(len(table))[None, :]
        self.b = np.arange(most_b + 1)[:, None]
        inside = self.b + self.c <= n
        self.passed: dict[str, NDArray[np.bool_]] = {"exact": inside & (self.b <= np.array(table)[None, :])}
        for method in METHODS[1:]:
            counts = np.where(inside, self.b, 0), np.where(inside, self.c, 0)
            with np.errstate(invalid="ignore"):
                self.passed[method] = inside & passes(method, *counts, n, margin)  # type: ignore[arg-type]

    def chance(self, discordance: float, loss: float) -> dict[str, float]:
        """Chance of a PASS by method."""
        p_b, p_c = shares(discordance, loss)
        of_b = np.clip(p_b / max(1 - p_c, 1e-300), 0, 1)
        weights = stats.binom.pmf(self.c, self.n, p_c) * stats.binom.pmf(self.b, self.n - self.c, of_b)
        return {method: float(weights[there].sum()) for method, there in self.passed.items()}


def compare_methods(
    n: int, margin: float, table: list[int], discordances: tuple[float, ...], grid_points: int
) -> dict[str, Any]:
    """Exact chance of a PASS at a true loss of exactly the margin, by method: at some discordances and the worst."""
    drawn = (n, margin) == FIGURE
    region = Region(n, margin, table)
    most = 1.0 if n <= ANY_DISCORDANCE else MOST_DISCORDANT
    grid = margin + (most - margin) * np.linspace(0, 1, grid_points) ** 2  # dense where few pairs are discordant
    rates = [region.chance(float(d), margin) for d in grid]
    beyond = [region.chance(float(d), 1.0001 * margin)["exact"] for d in np.maximum(grid, 1.0001 * margin)]
    worst = {}
    for method in METHODS:
        at = int(np.argmax([rate[method] for rate in rates]))
        worst[method] = {"rate": rates[at][method], "discordance": float(grid[at])}
    return {
        "n": n,
        "margin": margin,
        "most_discordant": most,
        "grid_points": grid_points,
        "at": {str(d): region.chance(max(d, margin), margin) for d in discordances},
        "worst": worst,
        "worst_just_beyond": max(beyond),
        "curve": {"discordance": grid.tolist()} | {m: [rate[m] for rate in rates] for m in METHODS} if drawn else None,
    }


def worst_anywhere(n: int, bounds: dict[str, list[list[float]]], points: int) -> dict[str, Any]:
    """Largest exact rates of all margins from 0 to 50 points, tried where a decision changes (between: less)."""
    found: dict[str, Any] = {"n": n, "points": points}
    for side, outcome in (("upper", "passed"), ("lower", "failed")):
        square = np.full((n + 1, n + 1), np.inf)
        for b, row in enumerate(bounds[side]):
            square[b, : len(row)] = row
        thresholds = np.unique(square[(square >= 0) & (square <= 0.5)])
        found[outcome] = {"rate": 0.0, "thresholds": len(thresholds)}
        for threshold in thresholds:
            # A PASS needs upper <= margin, a FAIL lower > margin: the margin lies at the bound, or just below it.
            table = ((square <= threshold) if side == "upper" else (square < threshold)).sum(axis=0) - 1
            loss = float(threshold)
            for discordance in loss + (1 - loss) * np.linspace(0, 1, points) ** 2:
                below = chance_below(table.tolist(), n, float(discordance), loss)
                rate = below if side == "upper" else 1 - below
                if rate > found[outcome]["rate"]:
                    found[outcome] |= {"rate": rate, "margin": loss, "discordance": float(discordance)}
    return found
