"""The power of a sequential test, which no formula gives: by simulation with the spread that was seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from harness.sequential import BETS, _log_growth

STREAMS = 400
"""Simulated runs: the standard error of the power is 2.5 points at most."""


def sequential_power(losses: Sequence[float], margin: float, n: int, confidence: float = 0.95) -> float:
    """Chance that `SequentialTest` says PASS within n items, for a candidate as good as its reference.

    Each stream draws n of the losses seen, in [-1, 1], and turns the sign of each at random: their mean is then zero
    and their spread is kept. Deterministic.

    Raises:
        ValueError: no losses.
    """
    if not losses:
        raise ValueError("no losses to draw from")
    rng, goal = np.random.default_rng(0), -math.log(1 - confidence) + math.log(BETS.size)
    passed = 0
    for _ in range(STREAMS):
        drawn = rng.choice(np.asarray(losses), n) * rng.choice([-1.0, 1.0], n)
        with np.errstate(divide="ignore"):  # the boldest bet may lose everything
            below = np.cumsum(_log_growth(drawn, margin), axis=0)
            above = np.cumsum(_log_growth(-drawn, -margin), axis=0)
        passed += _first(below, goal) < _first(above, goal)
    return passed / STREAMS


def _first(log_wealth: NDArray[np.float64], goal: float) -> int:
    """The first item after which the fortune, summed over the bets, reaches the goal; past the last: none does."""
    reached = logsumexp(log_wealth, axis=1) >= goal
    return int(reached.argmax()) if reached.any() else len(reached)
