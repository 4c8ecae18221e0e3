"""What would decide a check that is open: more items, while its tasks have them, or else something other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.judging.margins import MOST_ITEMS, more_items
from harness.judging.results import CheckResult
from reports.known_suites import known_suite
from reports.text import worded

OTHER_WAYS = "more repeats of each, a wider margin, or more tasks judged together would help"
NOT_ITEMS = "a wider margin, or more tasks judged together, would help"


def items_there(on: str, tasks: Iterable[str], settings: Mapping[str, Mapping[str, Any]]) -> int | None:
    """How many items the tasks of a check have; None where that is not known, or where more can be made.

    Args:
        on: A suite, or "suite/task".
        tasks: All tasks of the run, as "suite/task".
        settings: Of each suite, by the policy.
    """
    together = 0
    for suite, _, task in (name.partition("/") for name in tasks if name == on or name.startswith(f"{on}/")):
        source = known_suite(suite).source(settings.get(suite), task)
        if source is None or source.items is None:
            return None
        together += source.items
    return together or None


def reason_of(result: CheckResult, most: int | None = None) -> str:
    """The verdict's reason as reports word it; where it names more items than the `most` that there are, what would
    help instead."""
    reason, needed = result.reason, result.items_needed
    if needed is not None and most is not None and needed > most:
        there = f"all {most:,} items there are would not decide it (about {needed:,} would): {OTHER_WAYS}"
        reason = reason.replace(more_items(needed), there)
    too_many = more_items(MOST_ITEMS + 1)
    return worded(reason.replace(too_many, f"{too_many}; {NOT_ITEMS}"))
