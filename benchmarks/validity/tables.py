"""Decision tables: for every count c the largest b at which the product's bound still keeps a threshold.

Both bounds grow with b and fall with c: that is what makes a table so small. A bound keeps a threshold when the p value
of the product's exact test at the threshold says so: one evaluation in place of the dozens that find the bound. Both
facts are checked against `paired_interval` (harness/judging/paired_rates.py): up to n = 100 on all (b, c), for larger n
along the edges of the tables and on random counts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy import stats

from benchmarks.validity.cells import seeded
from harness.judging.paired_rates import paired_interval, paired_p_value
from harness.judging.statistics import Interval

Side = Literal["upper", "lower"]
ALPHA = 1 - 0.95
EXHAUSTIVE = 100
"""Up to this n the bounds of all (b, c) are computed, beyond it only those at the edge."""
ANY_DISCORDANCE = 135
"""Up to this n a table holds every c, beyond it those that a discordance of MOST_DISCORDANT can bring."""
MOST_DISCORDANT = 0.2


def most_c(n: int) -> int:
    """Largest c that a table holds: all of them, or all but 1e-12 of what a true loss >= 0 can bring."""
    return n if n <= ANY_DISCORDANCE else int(stats.binom.isf(1e-12, n, MOST_DISCORDANT / 2))


def grid(n: int) -> dict[str, list[list[float]]]:
    """Both bounds of all (b, c) with b + c <= n: [b][c]. Computed for c <= b; the rest is the product's mirror."""
    found = {(b, c): paired_interval(b, c, n) for b in range(n + 1) for c in range(min(b, n - b) + 1)}
    mirror = {(c, b): Interval(-i.estimate, -i.upper, -i.lower) for (b, c), i in found.items()}
    both = mirror | found
    return {
        "upper": [[both[b, c].upper for c in range(n - b + 1)] for b in range(n + 1)],
        "lower": [[both[b, c].lower for c in range(n - b + 1)] for b in range(n + 1)],
    }


def table_of_grid(bounds: list[list[float]], threshold: float) -> list[int]:
    """For each c the largest b whose bound is at most `threshold`, -1 where none is.

    Raises:
        AssertionError: the bound is not monotone, so that no table can stand for it.
    """
    n, table = len(bounds) - 1, []
    for c in range(n + 1):
        keeps = [bounds[b][c] <= threshold for b in range(n - c + 1)]
        assert keeps == sorted(keeps, reverse=True), f"bound not monotone in b: n={n}, c={c}, threshold={threshold}"
        table.append(sum(keeps) - 1)
    assert all(x <= y or x == n - c for c, (x, y) in enumerate(pairwise(table))), "bound not monotone in c"
    return table


def keeps(b: int, c: int, n: int, threshold: float, side: Side) -> bool:
    """Whether a bound is at most `threshold`. The p value speaks of thresholds on the bound's side of the estimate."""
    on_this_side = n * threshold >= b - c
    if side == "upper":
        return on_this_side and paired_p_value(c, b, n, -threshold) <= ALPHA
    return on_this_side or paired_p_value(b, c, n, threshold) > ALPHA


def staircase(n: int, threshold: float, side: Side) -> list[int]:
    """As `table_of_grid`, found by walking along the edge: a table never falls with c."""
    table: list[int] = []

    def edge(c: int, known: int) -> int:
        return _climb(lambda b: keeps(b, c, n, threshold, side), min(known, n - c), n - c)

    for c in range(most_c(n) + 1):
        table.append(edge(c, table[-1] if table else -1))
    return table


def edges(n: int, threshold: float, side: Side, every: int) -> dict[str, int]:
    """Along the edge of a table: at how many counts the product's interval says something else than the table."""
    table, looked, wrong = staircase(n, threshold, side), 0, 0
    for c in range(0, len(table), every):
        for b in (table[c], table[c] + 1):
            if 0 <= b <= n - c:
                looked += 1
                wrong += (getattr(paired_interval(b, c, n), side) <= threshold) != (b == table[c])
    return {"looked": looked, "wrong": wrong}


def _climb(holds: Callable[[int], bool], known: int, top: int) -> int:
    """Largest b in [known, top] for which `holds`; it does for `known`."""
    step, low, high = 1, known, top + 1
    while low + step < high:  # doubling steps, since the next edge is mostly one or two further
        if not holds(low + step):
            high = low + step
            break
        low, step = low + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def inversion(n: int, bounds: dict[str, list[list[float]]]) -> dict[str, float]:
    """How far monotony and order of the bounds are kept on the grid of all (b, c): all numbers must be <= 0."""
    upper, lower = (_square(bounds[side], n) for side in ("upper", "lower"))
    estimate = (np.arange(n + 1)[:, None] - np.arange(n + 1)[None, :]) / n
    worst = {
        "upper falls with b": upper[:-1] - upper[1:],
        "upper grows with c": upper[:, 1:] - upper[:, :-1],
        "lower falls with b": lower[:-1] - lower[1:],
        "lower grows with c": lower[:, 1:] - lower[:, :-1],
        "upper below estimate": estimate - upper,
        "lower above estimate": lower - estimate,
    }
    return {name: float(np.nanmax(values)) for name, values in worst.items()}


def _square(rows: list[list[float]], n: int) -> np.ndarray:
    square = np.full((n + 1, n + 1), np.nan)
    for b, row in enumerate(rows):
        square[b, : len(row)] = row
    return square


def spots(n: int, draws: int) -> list[tuple[int, int, float, float]]:
    """(b, c, lower, upper) of random counts, through the product: what the tables of a large n are checked with."""
    rng, found = seeded("spots", n), []
    for _ in range(draws):
        discordance = rng.uniform(0, MOST_DISCORDANT)
        loss = rng.uniform(0, min(discordance, 0.1))
        b, c, _ = rng.multinomial(n, [(discordance + loss) / 2, (discordance - loss) / 2, 1 - discordance]).tolist()
        both = paired_interval(b, c, n)
        found.append((b, c, both.lower, both.upper))
    return found


def spot_check(spots_of_n: list[tuple[int, int, float, float]], threshold: float, side: Side, table: list[int]) -> int:
    """At how many of the random counts a table decides otherwise than the product."""
    bound = 2 if side == "lower" else 3
    return sum((spot[bound] <= threshold) != (spot[0] <= table[spot[1]]) for spot in spots_of_n)
