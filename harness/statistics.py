"""Bounds for paired comparisons. One-sided levels everywhere: a bound at 0.95 is exceeded with 5 % chance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

MIN_DOCUMENTS = 8
"""Documents below which a bootstrap is no evidence."""


class Interval(NamedTuple):
    """An estimate with its two one-sided bounds."""

    estimate: float
    lower: float
    upper: float


def tango_interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval for the paired difference of proportions (b - c) / n.

    b counts pairs that only the first role gets right, c pairs that only the second does. Both bounds are one-sided
    at `confidence`. At b = c = 0 the interval is still open (a Wald interval would be [0, 0]).

    Source: Tango, Statistics in Medicine 17 (1998) 891-908, eq. (10)-(13).

    Raises:
        ValueError: n < 1, or counts that do not fit into n.
    """
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"counts do not fit: b={b}, c={c}, n={n}")
    z = float(stats.norm.ppf(confidence))
    estimate = (b - c) / n

    def score(delta: float) -> float:
        """Tango's z statistic of the hypothesis difference = delta; it falls as delta grows."""
        # Nuisance parameter: the probability of c under the constraint, by maximum likelihood.
        first = -b - c + (2 * n - b + c) * delta
        q21 = (math.sqrt(max(first * first + 8 * n * c * delta * (1 - delta), 0.0)) - first) / (4 * n)
        variance = n * (2 * q21 + delta * (1 - delta))
        return (b - c - n * delta) / math.sqrt(max(variance, 1e-300))

    lower = -1.0 if b - c == -n else optimize.brentq(lambda d: score(d) - z, -1 + 1e-12, estimate, xtol=1e-12)
    upper = 1.0 if b - c == n else optimize.brentq(lambda d: score(d) + z, estimate, 1 - 1e-12, xtol=1e-12)
    return Interval(estimate, float(lower), float(upper))


def betting_interval(differences: ArrayLike, confidence: float = 0.95) -> Interval:
    """Bounds for the mean of independent differences in [-1, 1], valid at every sample size, by betting.

    Used for graded scores: unlike a t interval it does not collapse to a point when all differences are zero.
    `differences` [n] must come in an order fixed before the scores were known (the items' order).

    Source: Waudby-Smith and Ramdas, JRSS-B 86 (2024) 1-27, section 4.4: capital process with the predictable
    plug-in bets of eq. (26) (truncated at 1/2 / m), one-sided by Ville's inequality.

    Raises:
        ValueError: no values, or values outside [-1, 1].
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size == 0 or not np.all(np.abs(d) <= 1):
        raise ValueError("differences must be one or more numbers in [-1, 1]")
    x = (1 + d) / 2
    lower = _betting_lower(x, 1 - confidence)
    upper = 1 - _betting_lower(1 - x, 1 - confidence)
    return Interval(float(d.mean()), 2 * lower - 1, 2 * upper - 1)


def _betting_lower(x: NDArray[np.float64], alpha: float) -> float:
    """Lower bound for the mean of x [n] in [0, 1]: the largest m whose bettor has not become 1/alpha rich."""
    n = x.size
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.sqrt(2 * math.log(1 / alpha) / (n * before))

    def log_capital(m: float) -> float:
        # Every factor falls as m grows, so the capital does too and a root can be bracketed.
        stake = np.minimum(bets, 0.5 / max(m, 1e-12))
        return float(np.max(np.cumsum(np.log1p(stake * (x - m)))))

    goal = math.log(1 / alpha)
    if log_capital(0.0) <= goal:
        return 0.0
    return float(optimize.brentq(lambda m: log_capital(m) - goal, 0.0, 1.0, xtol=1e-9))


def proportion_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) one-sided bounds of a single proportion hits / n."""
    alpha = 1 - confidence
    lower = 0.0 if hits == 0 else float(stats.beta.ppf(alpha, hits, n - hits + 1))
    upper = 1.0 if hits == n else float(stats.beta.ppf(1 - alpha, hits + 1, n - hits))
    return Interval(hits / n, lower, upper)


def ratio_interval(
    sums: ArrayLike, weights: ArrayLike, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Interval:
    """Bootstrap bounds of sum(sums) / sum(weights) over documents (the document is the cluster).

    `sums` [n] and `weights` [n] are one number a document, e.g. its summed KL in nats and its number of positions.
    With fewer than MIN_DOCUMENTS the resamples are too few and too alike: the bounds are infinite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 14.3 (BCa), through scipy.

    Raises:
        ValueError: no documents, or a weight that is not positive.
    """
    s, w = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if s.size == 0 or s.shape != w.shape or not np.all(w > 0) or not np.all(np.isfinite(s)):
        raise ValueError("need one finite sum and one positive weight for each document")
    estimate = float(s.sum() / w.sum())
    if s.size < MIN_DOCUMENTS:
        return Interval(estimate, -math.inf, math.inf)
    if np.ptp(s / w) == 0:  # BCa is undefined for identical documents
        return Interval(estimate, estimate, estimate)
    result = stats.bootstrap(
        (s, w),
        lambda a, b, axis=-1: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=2 * confidence - 1,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return Interval(estimate, float(result.confidence_interval.low), float(result.confidence_interval.high))
