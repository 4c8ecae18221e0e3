"""Ratios of sums over independent documents whose parts have a known range: bounds that need no distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from harness.judging.betting import bets_for, chance_to_win, fortune_p_value, log_fortune
from harness.judging.statistics import Interval

NEAR = 1e-9
"""How near to the ends of its range a ratio is tried."""


class Range(NamedTuple):
    """What one document can have: a weight from 0 to `most`, and a count from `low` to `high` times its weight; where
    `high` is infinite, a count of at most `most`."""

    most: float
    low: float = 0.0
    high: float = math.inf


def bounded_ratio(
    low: Sequence[float], high: Sequence[float], weights: Sequence[float], of: Range, confidence: float = 0.95
) -> Interval:
    """sum(high) / sum(weights) and its bounds; counts [n] that are known by bounds alone give each its own side.

    A ratio r is tested by the mean of (count - r * weight) / most, which is zero where r is true and lies in a known
    range: by betting, as `harness/judging/betting.py` says, and why documents need not be alike. The bets do not depend
    on r, so that a fortune only grows with it, or only falls.

    Raises:
        ValueError: no documents, or one outside its range.
    """
    c, d, w = (np.asarray(values, np.float64) for values in (low, high, weights))
    largest = np.minimum(of.high * w, of.most) if math.isfinite(of.high) else of.most
    inside = (w > 0) & (w <= of.most) & (c >= of.low * w - NEAR) & (d <= largest + NEAR)
    if w.size == 0 or not inside.all():
        raise ValueError("need one or more documents, each inside its range")
    estimate, goal = math.fsum(d) / math.fsum(w), -math.log(1 - confidence)
    return Interval(estimate, _lower(c, w, of, goal), _upper(d, w, of, goal))


def bounded_ratio_p_value(
    counts: Sequence[float], weights: Sequence[float], of: Range, margin: float, *, least: bool = False
) -> float:
    """p value of "the ratio is at most `margin`", with `least` of "at least", by the bounds of `bounded_ratio`."""
    c, w = np.asarray(counts, np.float64), np.asarray(weights, np.float64)
    return fortune_p_value((_gains_below if least else _gains_above)(c, w, of, margin))


def chance_to_keep_ratio(
    counts: Sequence[float],
    weights: Sequence[float],
    of: Range,
    margin: float,
    n: int,
    confidence: float = 0.95,
    *,
    least: bool = False,
) -> float:
    """Chance that n documents like these keep `margin`, the largest ratio that is allowed (`least`: the smallest)."""
    c, w = np.asarray(counts, np.float64), np.asarray(weights, np.float64)
    return chance_to_win((_gains_above if least else _gains_below)(c, w, of, margin), n, confidence)


def _gains_below(
    counts: NDArray[np.float64], weights: NDArray[np.float64], of: Range, ratio: float
) -> NDArray[np.float64] | None:
    """What each document adds to a stake on "below `ratio`", -1 at worst; None where nothing can be won."""
    worst = 1.0 if math.isinf(of.high) else of.high - ratio
    return (ratio * weights - counts) / (of.most * worst) if worst > 0 else None


def _gains_above(
    counts: NDArray[np.float64], weights: NDArray[np.float64], of: Range, ratio: float
) -> NDArray[np.float64] | None:
    worst = ratio - of.low
    return (counts - ratio * weights) / (of.most * worst) if worst > 0 else None


def _upper(counts: NDArray[np.float64], weights: NDArray[np.float64], of: Range, goal: float) -> float:
    def room(ratio: float) -> float:
        gains = _gains_below(counts, weights, of, ratio)
        return math.inf if gains is None else log_fortune(gains, bets_for(gains.size)) - goal

    start = math.fsum(counts) / math.fsum(weights)
    top = of.high - NEAR if math.isfinite(of.high) else max(2 * start, of.most / float(weights.min()) + 1)
    if start >= top or room(top) < 0:
        return of.high
    return float(optimize.brentq(room, start, top, xtol=1e-10))


def _lower(counts: NDArray[np.float64], weights: NDArray[np.float64], of: Range, goal: float) -> float:
    def room(ratio: float) -> float:
        gains = _gains_above(counts, weights, of, ratio)
        return math.inf if gains is None else log_fortune(gains, bets_for(gains.size)) - goal

    start, bottom = math.fsum(counts) / math.fsum(weights), of.low + NEAR
    if start <= bottom or room(bottom) < 0:
        return of.low
    return float(optimize.brentq(room, bottom, start, xtol=1e-10))
