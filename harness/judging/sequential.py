"""Stopping early: a test that may be looked at after every item and keeps its level however often it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import logsumexp

from harness.judging.statistics import Interval

BETS = np.geomspace(0.015, 1.0, 8)
"""Bets, as shares of the largest one allowed. Their mixture needs no tuning to the discordance; more of them cost items
(the fortune is divided by their number), fewer miss the best bet."""


class SequentialTest:
    """Is the mean of losses in [-1, 1] at most `margin`? Fed item by item, in an order fixed beforehand.

    Two gamblers start with 1 unit, spread evenly over BETS. One bets that the mean is below the margin: were it not,
    his fortune would be a supermartingale and would ever reach 1 / alpha with chance alpha at most (Ville). When it
    does: PASS. The other bets that it is above: FAIL.

    Source: Waudby-Smith and Ramdas, JRSS-B 86 (2024) 1-27, section 4 (betting capital); the even mixture over bets
    after Orabona and Jun, IEEE Trans. Inf. Theory 70 (2024) 436-455 (universal portfolio).
    """

    def __init__(self, margin: float, confidence: float = 0.95, fail_level: float | None = None) -> None:
        """`fail_level` is the chance of a wrong FAIL, when another than that of a wrong PASS, 1 - confidence."""
        if not -1 < margin < 1:
            raise ValueError(f"a margin of {margin} cannot be tested: it must lie between -1 and 1")
        self.margin = margin
        self.goal = -math.log(1 - confidence)
        self.fail_goal = self.goal if fail_level is None else -math.log(fail_level)
        self.outcome: Literal["PASS", "FAIL"] | None = None
        self.losses: list[float] = []
        self._below = np.zeros(BETS.size)
        self._above = np.zeros(BETS.size)

    def update(self, loss: float, least: float | None = None) -> Literal["PASS", "FAIL"] | None:
        """Take one more item; what comes after the decision is ignored.

        Of an item that lacks an answer, `loss` is the most that it may have lost, which PASS must bear, and `least` the
        least, which FAIL must bear.

        Raises:
            ValueError: a loss outside [-1, 1].
        """
        least = loss if least is None else least
        if not -1 <= least <= loss <= 1:
            raise ValueError(f"a loss of {least} to {loss} does not lie in [-1, 1]")
        if self.outcome:
            return self.outcome
        self.losses.append(loss)
        with np.errstate(divide="ignore"):  # the boldest bet may lose everything
            self._below += log_growth(np.array([loss]), self.margin)[0]
            self._above += log_growth(np.array([-least]), -self.margin)[0]
        if _log_mean(self._below) >= self.goal:
            self.outcome = "PASS"
        elif _log_mean(self._above) >= self.fail_goal:
            self.outcome = "FAIL"
        return self.outcome

    def interval(self, confidence: float | None = None) -> Interval:
        """The mean so far and the bounds of the confidence sequence: valid at every number of items.

        Raises:
            ValueError: nothing was seen yet.
        """
        if not self.losses:
            raise ValueError("no losses yet")
        x = np.array(self.losses)
        goal = self.goal if confidence is None else -math.log(1 - confidence)
        return Interval(float(x.mean()), -_upper(-x, goal), _upper(x, goal))


def sequence_p_value(losses: Iterable[float], margin: float) -> float:
    """p value of "the mean of losses in [-1, 1] is at most `margin`", valid at every number of them.

    One over the largest fortune so far of the gambler who bets against it (Ville's inequality).
    """
    x = np.fromiter(losses, dtype=np.float64)
    with np.errstate(divide="ignore"):
        wealth = np.cumsum(log_growth(-x, -margin), axis=0)
    most = float(np.max(logsumexp(wealth, axis=1), initial=math.log(BETS.size))) - math.log(BETS.size)
    return min(1.0, math.exp(-most))


def sequence_keeps(losses: Iterable[float], margin: float, confidence: float) -> bool:
    """Whether some number of the losses so far has said that their mean is at most `margin`."""
    return sequence_p_value((-loss for loss in losses), -margin) <= 1 - confidence + 1e-12  # 1 - 0.95 < 0.05


def run_test(
    losses: Iterable[float], margin: float, confidence: float = 0.95, fail_level: float | None = None
) -> SequentialTest:
    """Feed losses until the test has decided."""
    test = SequentialTest(margin, confidence, fail_level)
    for loss in losses:
        if test.update(loss):
            break
    return test


def items_without_loss(margin: float, confidence: float) -> int:
    """Items after which a margin above zero passes when none of them has a loss."""
    growth, goal = log_growth(np.zeros(1), margin)[0], -math.log(1 - confidence)
    low, high = 0, 1
    while _log_mean(high * growth) < goal:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _log_mean(middle * growth) >= goal else (middle, high)
    return high


def log_growth(losses: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """[n, bets] log factors of a gambler who bets that the mean of losses <= 1 is below `mean`, which they grow with.

    BETS are shares of the largest one allowed, 1 / (1 - mean).
    """
    return np.log1p(BETS * ((mean - losses) / (1 - mean))[:, None])


def _log_mean(log_wealth: NDArray[np.float64]) -> float:
    return float(logsumexp(log_wealth) - math.log(BETS.size))


def _upper(losses: NDArray[np.float64], goal: float) -> float:
    """Smallest mean that some moment so far has ruled out."""

    def richest(mean: float) -> float:
        with np.errstate(divide="ignore"):
            wealth = np.cumsum(log_growth(losses, mean), axis=0)
        return float(np.max(logsumexp(wealth, axis=1))) - math.log(BETS.size) - goal

    top = 1 - 1e-9
    if richest(top) < 0:
        return 1.0
    return float(optimize.brentq(richest, -1.0, top, xtol=1e-9))
