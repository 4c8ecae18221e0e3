"""The sequential test over many streams at once: the product's bets and growth, another loop.

tests/benchmarks/test_validity.py proves that it stops where `harness.judging.sequential.run_test` stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.validity.cells import seeded
from benchmarks.validity.pairs import shares
from harness.judging.sequential import BETS, log_growth
from harness.judging.statistics import items_to_decide

CHUNK = 64
GOAL = -math.log(1 - 0.95) + math.log(BETS.size)

Draw = Callable[[NDArray[np.int_], int, int], NDArray[np.int8]]
"""(indices of the streams that still run, first item, items) -> losses of -1, 0 or 1 [streams, items]."""


def stops(draw: Draw, streams: int, horizon: int, margin: float) -> tuple[NDArray[np.int_], NDArray[np.int8]]:
    """After how many items each stream is decided, and how: 1 PASS, -1 FAIL, 0 not within the horizon."""
    used = np.full(streams, horizon)
    outcome = np.zeros(streams, dtype=np.int8)
    running = np.arange(streams)
    # Log fortunes depend on how many losses and wins there were, and in which item we are, alone.
    with np.errstate(divide="ignore"):
        below = np.maximum(log_growth(np.array([1.0, -1.0, 0.0]), margin), -1e30)
        above = np.maximum(log_growth(np.array([-1.0, 1.0, 0.0]), -margin), -1e30)
    lost, won = np.zeros(streams), np.zeros(streams)
    for start in range(0, horizon, CHUNK):
        size = min(CHUNK, horizon - start)
        losses = draw(running, start, size)
        b = lost[running, None] + np.cumsum(losses == 1, axis=1)
        c = won[running, None] + np.cumsum(losses == -1, axis=1)
        items = start + np.arange(1, size + 1)[None, :]
        passes, fails = (_fortune(growth, b, c, items) >= math.exp(GOAL) for growth in (below, above))
        decided = passes | fails
        first = np.where(decided.any(axis=1), decided.argmax(axis=1), size)
        over = first < size
        rows = np.flatnonzero(over)
        used[running[rows]] = start + first[rows] + 1
        outcome[running[rows]] = np.where(passes[rows, first[rows]], 1, -1)
        lost[running], won[running] = b[:, -1], c[:, -1]
        running = running[~over]
        if running.size == 0:
            break
    return used, outcome


def _fortune(growth: NDArray[np.float64], b: Any, c: Any, items: Any) -> NDArray[np.float64]:
    """Sum of the fortunes of all bets [streams, items]; `growth` [loss, win, tie; bets]."""
    total = np.zeros(b.shape)
    with np.errstate(over="ignore"):  # a fortune beyond 1e308 has won
        for lose, win, tie in growth.T:
            total += np.exp(b * (lose - tie) + c * (win - tie) + items * tie)
    return total


def drawn(rng: np.random.Generator, discordance: float, loss: float) -> Draw:
    """Independent items."""
    p_b, p_c = shares(discordance, loss)

    def draw(running: NDArray[np.int_], start: int, items: int) -> NDArray[np.int8]:
        u = rng.random((running.size, items), dtype=np.float32)
        return (u < p_b).astype(np.int8) - (u >= 1 - p_c).astype(np.int8)

    return draw


def error_rates(discordance: float, loss: float, margin: float, looks: tuple[int, ...], trials: int) -> dict[str, Any]:
    """Share of streams that are decided within n items, for each n of `looks`, looking after every item."""
    draw = drawn(seeded("sequential", discordance, loss, margin), discordance, loss)
    used, outcome = stops(draw, trials, max(looks), margin)
    return {
        "passed": {str(n): float(np.mean((outcome == 1) & (used <= n))) for n in looks},
        "failed": {str(n): float(np.mean((outcome == -1) & (used <= n))) for n in looks},
    }


def fixed_items(discordance: float, loss: float, margin: float) -> int:
    """Items of the fixed test for 80 % power, by the product's normal approximation.

    Never fewer than lead to a PASS when nothing at all is discordant.
    """
    needed = items_to_decide(1, math.sqrt(max(discordance - loss**2, 0.0)), abs(margin - loss)) or 1
    return max(needed, math.ceil(math.log(0.05) / math.log1p(-margin))) if loss < margin else max(needed, 5)


def items_used(discordance: float, loss: float, margin: float, times: int, trials: int) -> dict[str, Any]:
    """Items until the decision on streams `times` as long as the fixed test needs."""
    fixed = fixed_items(discordance, loss, margin)
    draw = drawn(seeded("items", discordance, loss, margin), discordance, loss)
    used, outcome = stops(draw, trials, times * fixed, margin)
    return {
        "fixed": fixed,
        "passed": float(np.mean(outcome == 1)),
        "failed": float(np.mean(outcome == -1)),
        "mean": float(used.mean()),
        "mean_error": float(used.std() / math.sqrt(trials)),
        "median": float(np.median(used)),
        "within_fixed": float(np.mean((outcome != 0) & (used <= fixed))),
    }
