"""Right or wrong, item by item: exact bounds and tests for a difference of paired proportions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from harness.judging.statistics import Interval

NUISANCE_LEVEL = 1e-4
"""Chance, given away in exact bounds, that the nuisance parameter lies outside the range that is searched."""

P_NUISANCE_LEVEL = 1e-5
"""The same of p values, which are held against smaller levels: 0.05 / 57 where a run has 57 checks."""


LEFT_OUT = 1e-9
"""Chance of the counts that exact tests leave out at either end."""


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
    """p value of the hypothesis "the difference is at most margin"; valid at every level.

    It is at most 1 - confidence exactly when the lower bound of `paired_interval` at that confidence lies above the
    margin. How much smaller it is, and Holm's correction asks that, comes from another order of the outcomes: by the
    score statistic at the margin. The order of the bounds is made for their own level; far below it, it counts outcomes
    as extreme that are not, and 57 checks with a loss of twice their margin are hardly ever seen (docs/validity.md).

    Both are exact unconditional tests, and "reject at 1 - confidence by the first, at smaller levels by both" keeps
    every level. Source: as of `paired_interval`; the score test made exact: Sidik, Biometrics 59 (2003) 1033-1039.

    Raises:
        ValueError: n < 1, or counts that do not fit into n.
    """
    _check_counts(b, c, n)
    if (b - c) / n <= margin:  # the range of the nuisance parameter may leave out every one that fits the margin
        return 1.0
    by_bound = _AsLow.by_bound(c, b, n, confidence).chance(-margin)
    if by_bound > 1 - confidence:
        return min(1.0, by_bound)
    below = (1 - confidence) * (1 - 1e-9)  # 1 - 0.95 is more than 0.05
    return min(below, _AsLow.by_score(c, b, n, -margin).chance(-margin))


def _exact_upper(b: int, c: int, n: int, confidence: float) -> float:
    """Largest difference under which outcomes as low as this one have a chance of more than 1 - confidence."""
    seen, top, estimate, alpha = _AsLow.by_bound(b, c, n, confidence), 1.0 - 1e-9, (b - c) / n, 1 - confidence
    if seen.chance(top) > alpha:
        return 1.0
    if seen.chance(estimate) <= alpha:  # no outcome is that rare at its own estimate; kept as a safe way out
        return top
    return float(optimize.brentq(lambda delta: seen.chance(delta) - alpha, estimate, top, xtol=1e-7))


class _AsLow(NamedTuple):
    """All outcomes that come before the one seen, or with it, in an order: for each c, the largest such b."""

    n: int
    p_c: tuple[float, float]
    """Range of the nuisance parameter, the probability of c, that is searched."""
    spent: float
    """Chance that it lies outside."""
    c: NDArray[np.int_]
    largest_b: NDArray[np.float64]

    @classmethod
    def by_bound(cls, b: int, c: int, n: int, confidence: float) -> _AsLow:
        """Ordered by Tango's upper bound."""
        bound = tango_interval(b, c, n, confidence).upper
        return cls._by_statistic(b, c, n, bound, NUISANCE_LEVEL)

    @classmethod
    def by_score(cls, b: int, c: int, n: int, delta: float) -> _AsLow:
        """Ordered by the score statistic of the hypothesis "the difference is delta"."""
        return cls._by_statistic(b, c, n, delta, P_NUISANCE_LEVEL)

    @classmethod
    def _by_statistic(cls, b: int, c: int, n: int, delta: float, spent: float) -> _AsLow:
        low = 0.0 if c == 0 else float(stats.beta.ppf(spent / 2, c, n - c + 1))
        high = 1.0 if c == n else float(stats.beta.ppf(1 - spent / 2, c + 1, n - c))
        counts = np.arange(int(stats.binom.ppf(LEFT_OUT, n, low)), int(stats.binom.isf(LEFT_OUT, n, high)) + 1)
        largest = (n - counts).astype(np.float64)
        if delta < 1:
            largest = _largest_b(counts, n, delta, float(tango_z(b, c, n, delta)))
        return cls(n, (low, high), spent, counts, largest)

    def chance(self, delta: float) -> float:
        """Chance of such an outcome at difference delta, at most; it falls as delta grows.

        For a given p_c it falls as p_b grows, so that p_b = p_c + delta is the worst of all differences >= delta.
        """
        low, high = max(self.p_c[0], -delta), min(self.p_c[1], (1 - delta) / 2)
        if high < low:
            return self.spent
        coarse = np.linspace(low, high, 48)
        best = coarse[np.argmax(self._chances(coarse, delta))]
        step = (high - low) / 47
        fine = np.linspace(max(low, best - step), min(high, best + step), 33)
        return float(self._chances(fine, delta).max()) + self.spent + 2 * LEFT_OUT

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
        fits = tango_z(middle, c, n, delta) <= z + 1e-9
        open_ = high - low > 1
        low, high = np.where(open_ & fits, middle, low), np.where(open_ & ~fits, middle, high)
    return low


def tango_z(b: Any, c: Any, n: float, delta: float) -> Any:
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
    lower = -1.0 if b - c == -n else optimize.brentq(lambda d: tango_z(b, c, n, d) - z, -1 + 1e-12, estimate)
    upper = 1.0 if b - c == n else optimize.brentq(lambda d: tango_z(b, c, n, d) + z, estimate, 1 - 1e-12)
    return Interval(estimate, float(lower), float(upper))


def _check_counts(b: int, c: int, n: int) -> None:
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"counts do not fit: b={b}, c={c}, n={n}")
