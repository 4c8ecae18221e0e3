"""Fuzz targets: how many inputs each gets, which are counted, and an end to those that hang.

QUANTGATE_FUZZ=100000 shares so many inputs among all targets by their weights; without it each gets a few.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

TOTAL = int(os.environ.get("QUANTGATE_FUZZ") or 0)
"""Inputs of all targets together; 0 for the few that each test run takes."""
WEIGHTS = 100
"""Sum of the weights of all targets."""
FEW = 12
"""Inputs a weight, where nothing is asked for."""
HANG_SECONDS = 20
"""Processor time of one input, which no slow machine changes: beyond it the input is taken to hang."""

INPUTS: Counter[str] = Counter()
SECONDS: Counter[str] = Counter()


class Hang(Exception):
    """An input took too long."""


def fuzz(weight: float, **strategies: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on inputs of these strategies, as many as its weight says."""
    count = max(5, round((TOTAL or FEW * WEIGHTS) * weight / WEIGHTS))

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @settings(
            max_examples=count,
            deadline=None,
            derandomize=not TOTAL,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(**strategies)
        @functools.wraps(test)
        def counted(*args: Any, **inputs: Any) -> None:
            began = time.process_time()
            before = signal.signal(signal.SIGVTALRM, _hang)
            signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
            try:
                test(*args, **inputs)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                signal.signal(signal.SIGVTALRM, before)
                INPUTS[test.__name__] += 1
                SECONDS[test.__name__] += time.process_time() - began  # type: ignore[assignment]

        return counted

    return decorate


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {HANG_SECONDS} s of processor time")
