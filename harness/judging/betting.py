"""A bound for the mean of independent values that need not be alike, looked at once, after the last of them.

A gambler's fortune as in `sequential`. The values here may have means of their own (tasks that are weighted alike, a
loss and what it may be at most): with one bet for all of them the expected fortune is the product of one factor for
each, and that is at most what it would be if each had the mean of all (the inequality of the arithmetic and the
geometric mean). So the fortune at the end bounds the mean of the means; what it was on the way bounds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from harness.judging.sequential import _log_growth, _log_mean
from harness.judging.statistics import Interval


def mean_at_the_end(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of values [n] in [-1, 1] and its bounds.

    Raises:
        ValueError: no values, or values outside [-1, 1].
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or not np.all(np.abs(x) <= 1):
        raise ValueError("values must be one or more numbers in [-1, 1]")
    goal = -math.log(1 - confidence)
    return Interval(math.fsum(x) / x.size, -_upper(-x, goal), _upper(x, goal))


def p_value_at_the_end(values: Sequence[float], margin: float) -> float:
    """p value of "the mean of values [n] in [-1, 1] is at most `margin`", by the bound of `mean_at_the_end`."""
    if not -1 < margin < 1:
        return 1.0 if margin >= 1 else 0.0
    return min(1.0, math.exp(-_log_fortune(-np.asarray(values, dtype=np.float64), -margin)))


def _log_fortune(x: NDArray[np.float64], mean: float) -> float:
    """Log fortune at the end of who bets that the mean is below `mean`; it grows with it."""
    with np.errstate(divide="ignore"):  # the boldest bet may lose everything
        return _log_mean(_log_growth(x, mean).sum(axis=0))


def _upper(x: NDArray[np.float64], goal: float) -> float:
    top = 1 - 1e-9
    if _log_fortune(x, top) < goal:
        return 1.0
    return float(optimize.brentq(lambda mean: _log_fortune(x, mean) - goal, -1.0, top, xtol=1e-9))
