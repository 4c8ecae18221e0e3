"""Bounded divergences: how often the bounds of a mean over documents miss it, and what they decide.

A document is one value in [0, 1], as `tv_mean` has them. Beside the product's bound: Gaffke's, which is conjectured,
and the bootstrap that judges plain KL, which does not know that there is a largest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import logsumexp

from benchmarks.validity.cells import Call, Cells, seeded
from benchmarks.validity.scores import fast_ratio_bounds
from harness.judging.betting import STAKES, bets_for, log_factors
from harness.judging.bounded_means import bounded_mean_interval, bounded_mean_p_value
from harness.judging.resampling import DRAWS, mean_interval

Floats = NDArray[np.float64]
GOAL = -math.log(0.05)
POSITIONS = 200.0
"""Of a document, for the bootstrap."""


@dataclass(frozen=True)
class Plan:
    """How much is computed."""

    trials: int = 20_000
    other_trials: int = 1_000
    """Of Gaffke's bound and the bootstrap, which take 20,000 draws of weights each."""
    documents: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    means: tuple[float, ...] = (0.01, 0.04, 0.1)
    other_documents: tuple[int, ...] = (8, 32, 128, 512)
    other_means: tuple[float, ...] = (0.04,)
    power_documents: tuple[int, ...] = (96, 128, 160, 192, 256, 512)
    power_trials: int = 2_000


FULL = Plan()
QUICK = Plan(500, 50, (8, 32), (0.04,), (8, 32), (0.04,), (128,), 50)


# -- documents ------------------------------------------------------------------------------------------------------


def _beta(times: float) -> Callable[[np.random.Generator, float, tuple[int, int]], Floats]:
    def drawn(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Floats:
        a = mean * ((1 - mean) / (mean * times**2) - 1)
        return rng.beta(a, a * (1 - mean) / mean, shape)

    return drawn


def _lognormal(sigma: float) -> Callable[[np.random.Generator, float, tuple[int, int]], Floats]:
    def drawn(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Floats:
        grid = np.linspace(-9, 9, 20_001)
        weights = np.exp(-(grid**2) / 2)
        weights /= weights.sum()

        def off(middle: float) -> float:
            return float(weights @ np.minimum(np.exp(middle + sigma * grid), 1.0)) - mean

        middle = optimize.brentq(off, -30, 0, xtol=1e-12)
        return np.asarray(np.minimum(np.exp(middle + sigma * rng.standard_normal(shape)), 1.0))

    return drawn


def _ruin(share: float) -> Callable[[np.random.Generator, float, tuple[int, int]], Floats]:
    def drawn(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Floats:
        chance = share * mean
        return np.where(rng.random(shape) < chance, 1.0, (mean - chance) / (1 - chance))

    return drawn


def _kinds(rng: np.random.Generator, mean: float, shape: tuple[int, int]) -> Floats:
    half = shape[1] // 2
    return np.hstack([_beta(1.0)(rng, 0.2 * mean, (shape[0], half)), _ruin(0.5)(rng, 1.8 * mean, (shape[0], half))])


SHAPES: dict[str, tuple[str, Callable[[np.random.Generator, float, tuple[int, int]], Floats]]] = {
    "light": ("beta, its sd half its mean", _beta(0.5)),
    "even": ("beta, sd = mean", _beta(1.0)),
    "skewed": ("beta, sd = 2 × mean", _beta(2.0)),
    "lognormal": ("lognormal, σ = 1.5, cut at 1", _lognormal(1.5)),
    "heavy": ("lognormal, σ = 2.5, cut at 1", _lognormal(2.5)),
    "rare ruin": ("a quarter of the mean comes from documents of 1, all others are alike", _ruin(0.25)),
    "ruin": ("three quarters of it", _ruin(0.75)),
    "all or nothing": ("documents of 1 and of 0", _ruin(1.0)),
    "two kinds": ("half of the documents are *even* with 0.2 × the mean, half come to ruin with 1.8 ×", _kinds),
}
"""What the documents of a cell are like; all have the mean of the cell."""


# -- cells ----------------------------------------------------------------------------------------------------------


def log_fortunes(x: Floats, mean: float) -> Floats:
    """[trials] logarithm of the fortune (`betting.log_fortune`) of values [trials, n]."""
    found = np.empty(len(x))
    for start in range(0, len(x), 500):
        part = x[start : start + 500]
        gains = (mean - part.ravel()) / (1 - mean)
        growth = log_factors(gains, bets_for(x.shape[1], mean)).reshape(*part.shape, -1).sum(axis=1)
        found[start : start + 500] = logsumexp(growth, b=STAKES, axis=1)
    return found


def misses(shape: str, mean: float, n: int, trials: int) -> dict[str, float]:
    """How often the product's bounds miss the true mean; ten trials are held against the product itself."""
    x = SHAPES[shape][1](seeded("divergences", shape, mean, n), mean, (trials, n))
    upper, lower = log_fortunes(x, mean), log_fortunes(1 - x, 1 - mean)
    for row in range(min(10, trials)):
        found = bounded_mean_interval(x[row], 0, 1)
        assert (found.upper < mean) == (upper[row] > GOAL) and (found.lower > mean) == (lower[row] > GOAL)
    return {"upper": float(np.mean(upper > GOAL)), "lower": float(np.mean(lower > GOAL))}


def others(shape: str, mean: float, n: int, trials: int) -> dict[str, Any]:
    """The same of Gaffke's bound and of the bootstrap, and the median upper bound of all three."""
    x = SHAPES[shape][1](seeded("divergences", shape, mean, n), mean, (trials, n))
    gaffke = gaffke_bounds(x)
    for row in range(min(5, trials)):
        product = (mean_interval(2 * x[row] - 1).upper + 1) / 2
        assert math.isclose(product, gaffke[1][row], rel_tol=0.05, abs_tol=0.003)  # other draws where values are equal
    bootstrap = fast_ratio_bounds(POSITIONS * x, np.full_like(x, POSITIONS))
    ours = [bounded_mean_interval(row, 0, 1).upper for row in x[:200]]
    found: dict[str, Any] = {"trials": trials, "ours": {"median_upper": float(np.median(ours))}}
    for name, (lower, upper) in (("gaffke", gaffke), ("bootstrap", bootstrap)):
        rates = {"upper": float(np.mean(upper < mean - 1e-12)), "lower": float(np.mean(lower > mean + 1e-12))}
        found[name] = rates | {"median_upper": float(np.median(upper))}
    return found


def gaffke_bounds(x: Floats) -> tuple[Floats, Floats]:
    """(lower, upper) of `mean_interval` for values in [0, 1]: [trials] each, the same weights in each trial."""
    trials, n = x.shape
    gamma = np.random.default_rng(0).standard_gamma(np.ones(n + 1), size=(DRAWS, n + 1))
    weights = gamma / gamma.sum(axis=1, keepdims=True)
    bounds = np.empty((2, trials))
    for start in range(0, trials, 100):
        part = np.sort(x[start : start + 100], axis=1)
        bounds[1, start : start + 100] = np.quantile(weights[:, :n] @ part.T + weights[:, n:], 0.95, axis=0)
        down = weights[:, :n] @ (1 - part[:, ::-1]).T + weights[:, n:]
        bounds[0, start : start + 100] = 1 - np.quantile(down, 0.95, axis=0)
    return bounds[0], bounds[1]


POWER = (
    (0.02, 0.02, 0.04),
    (0.03, 0.03, 0.05),
    (0.05, 0.03, 0.1),
    (0.0, 0.0, 0.04),
    (0.08, 0.06, 0.04),
    (0.2, 0.1, 0.1),
)
"""(mean, sd, margin): what a check is to decide, the last two twice the margin."""


def power(mean: float, sd: float, margin: float, n: int, trials: int) -> dict[str, float]:
    """Chances of PASS and FAIL; documents are beta."""
    rng = seeded("power", mean, sd, margin, n)
    x = np.zeros((trials, n)) if mean == 0 else _beta(sd / mean)(rng, mean, (trials, n))
    passed, failed = log_fortunes(x, margin) >= GOAL, log_fortunes(1 - x, 1 - margin) > GOAL
    for row in range(min(10, trials)):
        assert (bounded_mean_p_value(x[row], 0, 1, margin, least=True) <= 0.05) == passed[row]
    return {"passed": float(passed.mean()), "failed": float(failed.mean())}


def evidence(plan: Plan, cells: Cells, workers: int) -> dict[str, Any]:
    """All tables of the section."""
    keys = [(shape, mean, n) for mean in plan.means for shape in SHAPES for n in plan.documents]
    beside = [(shape, mean, n) for mean in plan.other_means for shape in SHAPES for n in plan.other_documents]
    deciding = [(*case, n) for case in POWER for n in plan.power_documents]
    ours = cells.run([Call(misses, (*key, plan.trials)) for key in keys], workers)
    rest = cells.run([Call(others, (*key, plan.other_trials)) for key in beside], workers)
    chances = cells.run([Call(power, (*key, plan.power_trials)) for key in deciding], workers)
    names, of = ("shape", "mean", "n"), ("mean", "sd", "margin", "n")
    return {
        "misses": [dict(zip(names, key, strict=True)) | row for key, row in zip(keys, ours, strict=True)],
        "others": [dict(zip(names, key, strict=True)) | row for key, row in zip(beside, rest, strict=True)],
        "power": [dict(zip(of, key, strict=True)) | row for key, row in zip(deciding, chances, strict=True)],
    }
