"""Graded scores, and ratios over documents: Gaffke's bound and the Bayesian bootstrap, by random weights."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.judging.statistics import Interval

MIN_DOCUMENTS = 8
"""Documents below which a bootstrap is no evidence."""


DRAWS = 20_000
"""Random weights of a Bayesian bootstrap: the bounds then move by about 1 % of their width with the seed."""


def mean_interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Bounds for the mean of independent values [n] in [-1, 1]: graded scores, or means over an item's repeats.

    A Bayesian bootstrap with one value more, the worst that is possible: for values of only two kinds that is
    exactly Clopper and Pearson's bound, and it cannot collapse where all values are alike, as a t interval does.

    Source: Gaffke, Mathematical Methods of Statistics 14 (2005) 451-467; Learned-Miller and Thomas,
    arXiv:1905.06208 (2019). That the level holds for all distributions is conjectured and was found in every
    simulation, theirs and ours.

    Raises:
        ValueError: no values, or values outside [-1, 1].
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not np.all(np.abs(x) <= 1):
        raise ValueError("values must be one or more numbers in [-1, 1]")
    lower = -_weighted_quantile(-x, np.ones_like(x), 1.0, confidence, seed)
    # fsum: the order of the values must not reach the last digit.
    return Interval(math.fsum(x) / x.size, lower, _weighted_quantile(x, np.ones_like(x), 1.0, confidence, seed))


def mean_p_value(values: ArrayLike, margin: float, seed: int = 0) -> float:
    """p value of "the mean of values [n] in [-1, 1] is at most `margin`", by the bound of `mean_interval`."""
    x = np.asarray(values, dtype=np.float64)
    draws = _weighted_draws(-x, np.ones_like(x), 1.0, seed)
    return float((1 + np.count_nonzero(draws >= -margin)) / (1 + draws.size))


def ratio_interval(
    sums: ArrayLike,
    weights: ArrayLike,
    confidence: float = 0.95,
    *,
    signed: bool = False,
    high: float = math.inf,
    seed: int = 0,
) -> Interval:
    """Bounds of sum(sums) / sum(weights) by a Bayesian bootstrap over documents (the document is the cluster).

    `sums` [n] and `weights` [n] are one number a document, e.g. its summed KL in nats and its number of positions.
    One document more, of mean weight and twice as bad as the worst seen (at most `high`), stands for those that
    were not seen: means of skewed values are otherwise bounded too low in far more than 5 % of the cases, by BCa too
    (docs/validity.md). The lower bound adds one without any loss, or when values are `signed` one twice as far below
    zero as the farthest. With fewer than MIN_DOCUMENTS the bounds are infinite.

    Source: Rubin, Annals of Statistics 9 (1981) 130-134; the added document after Gaffke (see `mean_interval`).

    Raises:
        ValueError: no documents, a weight that is not positive, or a sum that is not a number.
    """
    s, w = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if s.size == 0 or s.shape != w.shape or not np.all(w > 0) or not np.all(np.isfinite(s)):
        raise ValueError("need one finite sum and one positive weight for each document")
    estimate = math.fsum(s) / math.fsum(w)
    if s.size < MIN_DOCUMENTS:
        return Interval(estimate, -math.inf, math.inf)
    worst = _unseen(s, w, high)
    upper = _weighted_quantile(s, w, worst, confidence, seed)
    lower = -_weighted_quantile(-s, w, worst if signed else 0.0, confidence, seed)
    return Interval(estimate, lower, upper)


def ratio_p_value(
    sums: ArrayLike,
    weights: ArrayLike,
    margin: float,
    *,
    least: bool = False,
    signed: bool = False,
    high: float = math.inf,
    seed: int = 0,
) -> float:
    """p value of "the ratio is at most `margin`" (with `least`, at least), by the bound of `ratio_interval`."""
    s, w = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if s.size < MIN_DOCUMENTS:
        return 1.0
    worst = _unseen(s, w, high)
    if least:
        beyond = _weighted_draws(s, w, worst, seed) >= margin
    else:
        beyond = _weighted_draws(-s, w, worst if signed else 0.0, seed) >= -margin
    return float((1 + np.count_nonzero(beyond)) / (1 + beyond.size))


def _unseen(sums: NDArray[np.float64], weights: NDArray[np.float64], high: float) -> float:
    """The ratio of the document that stands for those that were not seen."""
    farthest = float(np.abs(sums / weights).max())
    # Counts that are all zero leave room for one: "nothing in n positions" is no proof of nothing.
    return min(high, max(2 * farthest, weights.size / math.fsum(weights)))


def _weighted_quantile(
    sums: NDArray[np.float64], weights: NDArray[np.float64], extra: float, confidence: float, seed: int
) -> float:
    """The `confidence` quantile of the ratio under Dirichlet weights, one entry of ratio `extra` added."""
    return float(np.quantile(_weighted_draws(sums, weights, extra, seed), confidence))


def _weighted_draws(
    sums: NDArray[np.float64], weights: NDArray[np.float64], extra: float, seed: int
) -> NDArray[np.float64]:
    """The ratio under random Dirichlet weights [DRAWS], one entry of ratio `extra` added."""
    mean_weight = math.fsum(weights) / weights.size
    total, weight = weighted_sums(np.column_stack([sums, weights]), (extra * mean_weight, mean_weight), seed)
    ratios: NDArray[np.float64] = total / weight
    return ratios


def weighted_sums(rows: NDArray[np.float64], extra: tuple[float, float], seed: int = 0) -> NDArray[np.float64]:
    """Sums of both columns of rows [n, 2] under random weights, `extra` being one row more: [2, DRAWS], read-only.

    Equal rows share one gamma variate, so that neither their order nor their number costs anything. The last ones are
    kept: bounds and p values of the same rows ask for the same.
    """
    found, counts = np.unique(np.asarray(rows, dtype=np.float64), axis=0, return_counts=True)
    return _kept_sums(found.tobytes(), counts.astype(np.float64).tobytes(), extra, seed)


@lru_cache(maxsize=4)
def _kept_sums(rows: bytes, counts: bytes, extra: tuple[float, float], seed: int) -> NDArray[np.float64]:
    values = np.vstack([np.frombuffer(rows).reshape(-1, 2), extra])
    shape = np.append(np.frombuffer(counts), 1.0)
    rng, step = np.random.default_rng(seed), max(1, 4_000_000 // shape.size)  # bounds the memory
    drawn = [
        rng.standard_gamma(shape, size=(min(step, DRAWS - start), shape.size)) @ values
        for start in range(0, DRAWS, step)
    ]
    sums: NDArray[np.float64] = np.concatenate(drawn).T
    sums.setflags(write=False)
    return sums
