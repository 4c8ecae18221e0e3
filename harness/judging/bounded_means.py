"""The mean of independent values in a known range: bounds that hold for every distribution and every number of values.

A gambler bets that the mean of the values, scaled to at most 1, is below m: each value x multiplies his fortune by 1 +
bet * (m - x) / (1 - m). Were the mean m or more, the expected fortune would be 1 at most (values are independent, and
the geometric mean of their expected factors is not above the arithmetic one), so it reaches 1 / alpha with chance alpha
at most (Markov). Values need not be equally distributed: documents of many kinds are not. The fortune is a product, so
that the order of the values says nothing.

Several bets are mixed, all fixed by the number of values and m alone. The range of bets that can ever pay is known: the
best one is sqrt(2 ln(1 / alpha) / n) / sd, and no values in [0, 1] have an sd above 1 / 2. Half of the stake is on the
boldest bet, the best for a mean that is small beside the range, as divergences have.

Source: Waudby-Smith and Ramdas, JRSS-B 86 (2024) 1-27, section 4 (betting on a bounded mean; here with bets fixed
beforehand, the e-value of their equation (23) at the last value). What the bounds keep is measured in docs/validity.md.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from scipy.special import logsumexp

from harness.judging.sequential import _log_growth
from harness.judging.statistics import Interval

STAKES = np.array([0.1] * 5 + [0.5])
"""Share of the gambler's first unit on each bet, from the most careful to the boldest."""
TOP = 1 - 1e-9
"""Largest mean that is tried, of values scaled to at most 1."""
POWER = 0.8
MOST = 10_000_000
"""Number of values beyond which none is said to be needed."""


def bounded_mean_interval(values: ArrayLike, low: float, high: float, confidence: float = 0.95) -> Interval:
    """One-sided bounds, each at `confidence`, of the mean of independent values [n] in [low, high].

    Raises:
        ValueError: no values, or values outside the range.
    """
    x = _scaled(values, low, high)
    goal, span = -math.log(1 - confidence), high - low
    upper, lower = low + span * _upper(x, goal), high - span * _upper(1 - x, goal)
    return Interval(math.fsum(np.asarray(values, np.float64)) / x.size, lower, upper)


def bounded_mean_p_value(values: ArrayLike, low: float, high: float, margin: float, *, least: bool = False) -> float:
    """p value of the hypothesis "the mean is at most `margin`", with `least` of "it is `margin` or more".

    The bound at a confidence lies beyond the margin exactly when this is below 1 - confidence: one over the fortune.

    Raises:
        ValueError: as `bounded_mean_interval`.
    """
    x, m = _scaled(values, low, high), (margin - low) / (high - low)
    if not least:
        x, m = 1 - x, 1 - m
    if m <= 0:  # no mean lies below
        return 1.0
    return min(1.0, math.exp(-max(0.0, _log_fortune(x, min(m, TOP)))))


def chance_to_keep(
    values: ArrayLike, low: float, high: float, margin: float, n: int, confidence: float = 0.95
) -> float:
    """Chance that the upper bound of n values like these, in [low, high], is at most `margin`.

    The logarithm of a fortune is a sum of n terms: taken as normal, for the bet that does best.

    Raises:
        ValueError: as `bounded_mean_interval`.
    """
    return _chance(_scaled(values, low, high), (margin - low) / (high - low), n, confidence)


def documents_to_decide(
    values: ArrayLike, low: float, high: float, margin: float, confidence: float = 0.95
) -> int | None:
    """How many values like these, in [low, high], have a bound on the mean's side of the margin with 80 % chance.

    None where no number of them has. Raises ValueError as `bounded_mean_interval`.
    """
    x, m = _scaled(values, low, high), (margin - low) / (high - low)
    if x.mean() > m:
        x, m = 1 - x, 1 - m
    first, last = 0, 1
    while _chance(x, m, last, confidence) < POWER:
        first, last = last, 2 * last
        if last > MOST:
            return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if _chance(x, m, middle, confidence) >= POWER else (middle, last)
    return last


def _chance(x: NDArray[np.float64], mean: float, n: int, confidence: float) -> float:
    if not 0 < mean < 1:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # the boldest bet may lose everything
        growth = _log_growth(x, mean, _bets(n, mean))
        drift = n * growth.mean(axis=0) + np.log(STAKES) + math.log(1 - confidence)
        z = drift / np.maximum(math.sqrt(n) * growth.std(axis=0), 1e-12)
    return float(stats.norm.cdf(np.nan_to_num(z, nan=-np.inf)).max())


def _scaled(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    x = (np.asarray(values, np.float64) - low) / (high - low)
    if x.size == 0 or not ((x >= -1e-8) & (x <= 1 + 1e-8)).all():
        raise ValueError(f"values must be one or more numbers in [{low:g}, {high:g}]")
    return np.clip(np.sort(x), 0.0, 1.0)  # sorted: the order must not reach the last digit


def _bets(n: int, mean: float) -> NDArray[np.float64]:
    """Shares of the largest bet 1 / (1 - mean): from the least that can pay to all of it."""
    least = 2 * math.sqrt(2 * math.log(20) / n) * (1 - mean)
    return np.geomspace(min(1.0, least), 1.0, STAKES.size)


def _log_fortune(x: NDArray[np.float64], mean: float) -> float:
    """Grows with `mean`: each bet is (1 - mean) to a power from -1 to 0 times a constant."""
    with np.errstate(divide="ignore"):  # the boldest bet may lose everything
        return float(logsumexp(_log_growth(x, mean, _bets(x.size, mean)).sum(axis=0), b=STAKES))


def _upper(x: NDArray[np.float64], goal: float) -> float:
    """Smallest mean that the fortune rules out; at the mean of the values itself the fortune is 1 at most."""
    if _log_fortune(x, TOP) < goal:
        return 1.0
    start = min(float(x.mean()), TOP)
    return float(optimize.brentq(lambda mean: _log_fortune(x, mean) - goal, start, TOP, xtol=1e-10))
