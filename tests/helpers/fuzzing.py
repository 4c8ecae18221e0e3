"""Fuzz targets: how many inputs each gets, which are counted, and an end to those that hang.

QUANTGATE_FUZZ=100000 shares so many inputs among all targets by their weights; without it each gets a few.
"""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hangs import no_hang
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

TOTAL = int(os.environ.get("QUANTGATE_FUZZ") or 0)
"""Inputs of all targets together; 0 for the few that each test run takes."""
WEIGHTS = 100
"""Sum of the weights of all targets."""
FEW = 12
"""Inputs a weight, where nothing is asked for."""

INPUTS: Counter[str] = Counter()
SECONDS: Counter[str] = Counter()


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
            try:
                with no_hang():
                    test(*args, **inputs)
            finally:
                INPUTS[test.__name__] += 1
                SECONDS[test.__name__] += time.process_time() - began  # type: ignore[assignment]

        return counted

    return decorate
