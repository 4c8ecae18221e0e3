"""The mean of independent values in a known range: bounds that hold for every distribution and every number of values.

A gambler bets that the mean of the values, scaled to [0, 1], is below m: a value x is a gain of (m - x) / (1 - m). Were
the mean m or more, nothing would be gained on average; why that bounds the mean: `harness/judging/betting.py`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from harness.judging.betting import bets_for, chance_to_win, fortune_p_value, log_fortune
from harness.judging.statistics import Interval

TOP = 1 - 1e-9
"""Largest mean that is tried, of values scaled to at most 1."""


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
    x, m = _bet_below(values, low, high, margin, above=not least)
    return fortune_p_value(_gains(x, m), m)


def chance_to_keep_mean(
    values: ArrayLike, low: float, high: float, margin: float, n: int, confidence: float = 0.95, *, least: bool = False
) -> float:
    """Chance that the upper bound of n values like these, in [low, high], is at most `margin`; with `least`, that their
    lower bound is at least that.

    Raises:
        ValueError: as `bounded_mean_interval`.
    """
    x, m = _bet_below(values, low, high, margin, above=least)
    return chance_to_win(_gains(x, m), n, confidence, m)


def _bet_below(
    values: ArrayLike, low: float, high: float, margin: float, *, above: bool
) -> tuple[NDArray[np.float64], float]:
    """Values and margin scaled to [0, 1], mirrored where the bet is that the mean lies above."""
    x, m = _scaled(values, low, high), (margin - low) / (high - low)
    x, m = (1 - x, 1 - m) if above else (x, m)
    return x, min(m, TOP)


def _gains(x: NDArray[np.float64], mean: float) -> NDArray[np.float64] | None:
    """What each value adds to a stake on "below `mean`", -1 at worst; None where no mean lies below."""
    return (mean - x) / (1 - mean) if mean > 0 else None


def _scaled(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    x = (np.asarray(values, np.float64) - low) / (high - low)
    if x.size == 0 or not ((x >= -1e-8) & (x <= 1 + 1e-8)).all():
        raise ValueError(f"values must be one or more numbers in [{low:g}, {high:g}]")
    return np.clip(x, 0.0, 1.0)


def _upper(x: NDArray[np.float64], goal: float) -> float:
    """Smallest mean that the fortune rules out; at the mean of the values itself the fortune is 1 at most.

    The fortune grows with the mean: each bet is (1 - mean) to a power from -1 to 0 times a constant.
    """

    def room(mean: float) -> float:
        return log_fortune((mean - x) / (1 - mean), bets_for(x.size, mean)) - goal

    if room(TOP) < 0:
        return 1.0
    start = min(math.fsum(x) / x.size, TOP)
    return float(optimize.brentq(room, start, TOP, xtol=1e-10))
