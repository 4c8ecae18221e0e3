"""Bounds for paired comparisons. One-sided levels everywhere: a bound at 0.95 is exceeded with 5 % chance.

What each bound costs and keeps is measured in docs/validity.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

MIN_DOCUMENTS = 8
"""Documents below which a bootstrap is no evidence."""

NUISANCE_LEVEL = 1e-4
"""Chance, given away in exact tests, that the nuisance parameter lies outside the range that is searched."""

LEFT_OUT = 1e-9
"""Chance of the counts that exact tests leave out at either end."""

DRAWS = 20_000
"""Random weights of a Bayesian bootstrap: the bounds then move by about 1 % of their width with the seed."""


class Interval(NamedTuple):
    """An estimate with its two one-sided bounds."""

    estimate: float
    lower: float
    upper: float


# -- right or wrong: paired proportions --------------------------------------------------------------------------


@lru_cache(4096)
def paired_interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact unconditional interval for the paired difference of proportions (b - c) / n.

    b counts pairs that only the first role gets right, c pairs that only the second does. Both bounds are one-sided
    at `confidence` and keep that level at every n and every discordance: approximate ones (Tango's too) do not
    where a few zero counts decide.

    Source: Lloyd and Moldovan, Statistics in Medicine 26 (2007) 3369-3384: outcomes are ordered once, here by Tango's
    bound, and the bound is the largest difference under which an outcome this low or lower still has a chance of
    1 - confidence, maximized over the nuisance parameter. That search is limited to a confidence interval of the
    parameter after Berger and Boos, JASA 89 (1994) 1012-1016.

    Raises:
        ValueError: n < 1, or counts that do not fit into n.
    """
    _check_counts(b, c, n)
    return Interval((b - c) / n, -_exact_upper(c, b, n, confidence), _exact_upper(b, c, n, confidence))


def paired_p_value(b: int, c: int, n: int, margin: float, confidence: float = 0.95) -> float:
    """p value of the hypothesis "the difference is at most margin", by the test that `paired_interval` inverts.

    `confidence` chooses the order of the outcomes: the bound at that confidence lies above the margin exactly when
    this is below 1 - confidence.

    Raises:
        ValueError: n < 1, or counts that do not fit into n.
    """
    _check_counts(b, c, n)
    if (b - c) / n <= margin:  # the range of the nuisance parameter may leave out every one that fits the margin
        return 1.0
    return min(1.0, _AsLow.as_outcome(c, b, n, confidence).chance(-margin))


def _exact_upper(b: int, c: int, n: int, confidence: float) -> float:
    """Largest difference under which outcomes as low as this one have a chance of more than 1 - confidence."""
    seen, top, estimate, alpha = _AsLow.as_outcome(b, c, n, confidence), 1.0 - 1e-9, (b - c) / n, 1 - confidence
    if seen.chance(top) > alpha:
        return 1.0
    if seen.chance(estimate) <= alpha:  # no outcome is that rare at its own estimate; kept as a safe way out
        return top
    return float(optimize.brentq(lambda delta: seen.chance(delta) - alpha, estimate, top, xtol=1e-7))


class _AsLow(NamedTuple):
    """All outcomes whose upper bound by Tango is at most that of the one seen: for each c, the largest such b."""

    n: int
    p_c: tuple[float, float]
    """Range of the nuisance parameter, the probability of c, that is searched."""
    c: NDArray[np.int_]
    largest_b: NDArray[np.float64]

    @classmethod
    def as_outcome(cls, b: int, c: int, n: int, confidence: float) -> _AsLow:
        low = 0.0 if c == 0 else float(stats.beta.ppf(NUISANCE_LEVEL / 2, c, n - c + 1))
        high = 1.0 if c == n else float(stats.beta.ppf(1 - NUISANCE_LEVEL / 2, c + 1, n - c))
        counts = np.arange(int(stats.binom.ppf(LEFT_OUT, n, low)), int(stats.binom.isf(LEFT_OUT, n, high)) + 1)
        bound = tango_interval(b, c, n, confidence).upper
        largest = (n - counts).astype(np.float64)
        if bound < 1:
            largest = _largest_b(counts, n, bound, float(_tango_z(b, c, n, bound)))
        return cls(n, (low, high), counts, largest)

    def chance(self, delta: float) -> float:
        """Chance of such an outcome at difference delta, at most; it falls as delta grows.

        For a given p_c it falls as p_b grows, so that p_b = p_c + delta is the worst of all differences >= delta.
        """
        low, high = max(self.p_c[0], -delta), min(self.p_c[1], (1 - delta) / 2)
        if high < low:
            return NUISANCE_LEVEL
        coarse = np.linspace(low, high, 48)
        best = coarse[np.argmax(self._chances(coarse, delta))]
        step = (high - low) / 47
        fine = np.linspace(max(low, best - step), min(high, best + step), 33)
        return float(self._chances(fine, delta).max()) + NUISANCE_LEVEL + 2 * LEFT_OUT

    def _chances(self, p_c: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
        """The chance for each p_c [k]."""
        column = p_c[:, None]
        b_given_c = np.clip((column + delta) / np.maximum(1 - column, 1e-300), 0, 1)
        below = np.where(self.largest_b < 0, 0.0, stats.binom.cdf(self.largest_b, self.n - self.c, b_given_c))
        chances: NDArray[np.float64] = (stats.binom.pmf(self.c, self.n, column) * below).sum(axis=1)
        return chances


def _largest_b(c: NDArray[np.int_], n: int, delta: float, z: float) -> NDArray[np.float64]:
    """For each c the largest b whose statistic is at most z (it grows with b); -1 where none is."""
    low, high = np.full(c.shape, -1.0), (n - c + 1).astype(np.float64)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        fits = _tango_z(middle, c, n, delta) <= z + 1e-9
        open_ = high - low > 1
        low, high = np.where(open_ & fits, middle, low), np.where(open_ & ~fits, middle, high)
    return low


def _tango_z(b: Any, c: Any, n: float, delta: float) -> Any:
    """Tango's z statistic of the hypothesis difference = delta; it falls as delta grows. Counts may be arrays."""
    # Nuisance parameter: the probability of c under the constraint, by maximum likelihood.
    first = -b - c + (2 * n - b + c) * delta
    q21 = (np.sqrt(np.maximum(first * first + 8 * n * c * delta * (1 - delta), 0.0)) - first) / (4 * n)
    variance = n * (2 * q21 + delta * (1 - delta))
    return (b - c - n * delta) / np.sqrt(np.maximum(variance, 1e-300))


def tango_interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval for (b - c) / n: what `paired_interval` is compared with in docs/validity.md.

    Source: Tango, Statistics in Medicine 17 (1998) 891-908, eq. (10)-(13).

    Raises:
        ValueError: n < 1, or counts that do not fit into n.
    """
    _check_counts(b, c, n)
    z, estimate = float(stats.norm.ppf(confidence)), (b - c) / n
    lower = -1.0 if b - c == -n else optimize.brentq(lambda d: _tango_z(b, c, n, d) - z, -1 + 1e-12, estimate)
    upper = 1.0 if b - c == n else optimize.brentq(lambda d: _tango_z(b, c, n, d) + z, estimate, 1 - 1e-12)
    return Interval(estimate, float(lower), float(upper))


def _check_counts(b: int, c: int, n: int) -> None:
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"counts do not fit: b={b}, c={c}, n={n}")


def proportion_p_value(hits: int, n: int, ceiling: float) -> float:
    """p value of the hypothesis "the proportion is at most `ceiling`" (exact binomial test, through scipy)."""
    return float(stats.binomtest(hits, n, ceiling, alternative="greater").pvalue)


def proportion_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact one-sided bounds of a single proportion hits / n.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404-413, through scipy.
    """
    two_sided = stats.binomtest(hits, n).proportion_ci(2 * confidence - 1, method="exact")
    return Interval(hits / n, float(two_sided.low), float(two_sided.high))


# -- graded scores, and ratios over documents --------------------------------------------------------------------


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


# -- what a result is worth --------------------------------------------------------------------------------------


def standard_error(interval: Interval, confidence: float) -> float:
    """The normal standard error that would give the wider half of an interval."""
    half = max(interval.upper - interval.estimate, interval.estimate - interval.lower)
    return half / float(stats.norm.ppf(confidence))


def power_at_equality(error: float, margin: float, confidence: float = 0.95) -> float:
    """Chance of a PASS for a candidate as good as its reference, given the standard error of the estimate.

    Source: normal approximation; Chow, Shao and Wang, Sample Size Calculations in Clinical Research, section 4.2.
    """
    if error <= 0:
        return 1.0 if margin > 0 else 0.0
    return float(stats.norm.cdf(margin / error - stats.norm.ppf(confidence)))


def items_to_decide(n: int, error: float, distance: float, confidence: float = 0.95, power: float = 0.8) -> int | None:
    """Items after which the verdict would be clear with chance `power`, if estimate and spread stay as they are.

    `distance` is that of the estimate to the margin; None when it is zero and no number of items helps.
    Source: as `power_at_equality`; the standard error shrinks as 1 / sqrt(n).
    """
    if distance <= 0 or not math.isfinite(error):
        return None
    z = float(stats.norm.ppf(confidence) + stats.norm.ppf(power))
    return math.ceil(n * (z * error / distance) ** 2)


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected when all are tested together at `alpha`.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
