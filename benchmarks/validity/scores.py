"""Graded scores and ratios over documents: how often a bound lies on the wrong side of the true value."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.validity.cells import seeded
from harness.judging.resampling import DRAWS, mean_interval, ratio_interval

MEAN = 0.03
"""True mean loss of every shape of graded scores: a margin of 3 points."""
SHAPES: dict[str, tuple[str, dict[float, float]]] = {
    "total losses": ("3 % of the items are lost entirely, the others are equal", {1.0: 0.03, 0.0: 0.97}),
    "collapse": (
        "2 % are lost entirely, the others move by 1/16 up or down, a little more often down",
        {1.0: 0.02, 1 / 16: 0.18, -1 / 16: 0.02, 0.0: 0.78},
    ),
    "ties": ("80 % equal, 16 % lose a quarter, 4 % win one", {0.25: 0.16, -0.25: 0.04, 0.0: 0.8}),
    "rare wins": ("80 % lose 1/16, 2 % are won entirely", {1 / 16: 0.8, -1.0: 0.02, 0.0: 0.18}),
}
"""Values and their chances. One more shape, "fractions", is drawn as RULER scores: see `draw_losses`."""
FRACTIONS = "4 repeats of 4 needles each: the reference finds one with chance 0.97, the candidate with 0.94"


def draw_losses(shape: str, n: int, trials: int) -> NDArray[np.float64]:
    """Losses of items, means over their repeats: [trials, n]."""
    rng = seeded("scores", shape, n)
    if shape == "fractions":
        return np.asarray((rng.binomial(16, 0.97, (trials, n)) - rng.binomial(16, 0.94, (trials, n))) / 16)
    values, chances = zip(*SHAPES[shape][1].items(), strict=True)
    return np.asarray(rng.choice(np.array(values), size=(trials, n), p=np.array(chances)))


def graded(shape: str, n: int, trials: int, most_multisets: int) -> dict[str, Any]:
    """Misses of `mean_interval` and of a t interval at a true mean of MEAN.

    Equal multisets of losses have equal bounds and are computed once. Where there are more than `most_multisets`
    different ones, only so many trials are used.
    """
    rows = np.sort(draw_losses(shape, n, trials), axis=1)
    different = len({row.tobytes() for row in rows})
    if different > most_multisets:
        rows = rows[:most_multisets]

    @cache
    def bounds(row: bytes) -> tuple[float, float]:
        found = mean_interval(np.frombuffer(row))
        return found.lower, found.upper

    ours = np.array([bounds(row.tobytes()) for row in rows])
    half = stats.t.ppf(0.95, n - 1) * rows.std(axis=1, ddof=1) / math.sqrt(n)
    t_bounds = np.column_stack([rows.mean(axis=1) - half, rows.mean(axis=1) + half])
    result: dict[str, Any] = {"trials": len(rows), "different": different}
    for name, found in (("ours", ours), ("t", t_bounds)):
        result[name] = _misses(found[:, 0], found[:, 1], MEAN) | {"median_upper": float(np.median(found[:, 1]))}
    return result


def _misses(lower: NDArray[Any], upper: NDArray[Any], truth: float) -> dict[str, float]:
    slack = 1e-12  # a bound that is the true value but for rounding holds
    return {"upper": float(np.mean(upper < truth - slack)), "lower": float(np.mean(lower > truth + slack))}


def ratio(sigma: float, n: int, trials: int, resamples: int) -> dict[str, Any]:
    """Misses of `ratio_interval`, BCa and t for the mean KL of documents whose own KL is lognormal."""
    rng = seeded("ratio", sigma, n)
    weights = rng.uniform(50, 400, (trials, n))
    sums = weights * np.exp(sigma * rng.standard_normal((trials, n)))
    truth = math.exp(sigma**2 / 2)
    found = {
        "ours": fast_ratio_bounds(sums, weights),
        "bca": bca_bounds(sums, weights, resamples, rng),
        "t": t_ratio_bounds(sums, weights),
    }
    checked = min(10, trials)
    for row in range(checked):
        product = ratio_interval(sums[row], weights[row])
        assert np.allclose((product.lower, product.upper), [bound[row] for bound in found["ours"]], rtol=1e-9)
    result: dict[str, Any] = {name: _misses(lower, upper, truth) for name, (lower, upper) in found.items()}
    for name, (_, upper) in found.items():
        result[name]["upper_to_true"] = float(np.median(upper) / truth)
    return {"checked": checked} | result


def fast_ratio_bounds(sums: NDArray[Any], weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """`ratio_interval` of many sets of documents [trials, n], all ratios different and positive, at seed 0.

    The product draws the same weights for every such set of n documents, so that they can be drawn once.
    """
    trials, n = sums.shape
    gamma = np.random.default_rng(0).standard_gamma(np.ones(n + 1), size=(DRAWS, n + 1))
    worst = np.maximum(2 * (sums / weights).max(axis=1), 1 / weights.mean(axis=1))
    lower, upper = np.empty(trials), np.empty(trials)
    for start in range(0, trials, 100):
        part = slice(start, start + 100)
        s, w = sums[part], weights[part]
        order = np.argsort(s, axis=1)
        s, w = np.take_along_axis(s, order, 1), np.take_along_axis(w, order, 1)
        mean = w.mean(axis=1)
        up = (gamma[:, :n] @ s.T + gamma[:, n:] * (worst[part] * mean)) / (gamma[:, :n] @ w.T + gamma[:, n:] * mean)
        down = (gamma[:, :n] @ -s[:, ::-1].T) / (gamma[:, :n] @ w[:, ::-1].T + gamma[:, n:] * mean)
        upper[part] = np.quantile(up, 0.95, axis=0)
        lower[part] = -np.quantile(down, 0.95, axis=0)
    return lower, upper


def bca_bounds(
    sums: NDArray[Any], weights: NDArray[Any], resamples: int, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bias-corrected and accelerated bootstrap (Efron, JASA 82 (1987) 171-185), one-sided 95 % bounds."""
    trials, n = sums.shape
    bounds = np.empty((2, trials))
    for start in range(0, trials, 50):
        s, w = sums[start : start + 50], weights[start : start + 50]
        counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
        ratios = (counts @ s.T) / (counts @ w.T)
        estimate = s.sum(axis=1) / w.sum(axis=1)
        bias = stats.norm.ppf(np.clip((ratios < estimate).mean(axis=0), 0.5 / resamples, 1 - 0.5 / resamples))
        left_out = (s.sum(axis=1, keepdims=True) - s) / (w.sum(axis=1, keepdims=True) - w)
        from_mean = left_out.mean(axis=1, keepdims=True) - left_out
        acceleration = (from_mean**3).sum(axis=1) / (6 * (from_mean**2).sum(axis=1) ** 1.5)
        ratios.sort(axis=0)
        for side, z in enumerate(stats.norm.ppf([0.05, 0.95])):
            level = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
            at = np.clip(level * (resamples - 1), 0, resamples - 1).round().astype(int)
            bounds[side, start : start + 50] = ratios[at, np.arange(s.shape[0])]
    return bounds[0], bounds[1]


def t_ratio_bounds(sums: NDArray[Any], weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Linearized standard error of a ratio over documents, t quantile."""
    n = sums.shape[1]
    estimate = sums.sum(axis=1) / weights.sum(axis=1)
    rest = sums - estimate[:, None] * weights
    half = stats.t.ppf(0.95, n - 1) * np.sqrt(n / (n - 1) * (rest**2).sum(axis=1)) / weights.sum(axis=1)
    return estimate - half, estimate + half
