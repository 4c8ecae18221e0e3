"""What would decide a check that is open: more items, while its tasks have them, or else something other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.judging.margins import MOST_ITEMS, more_items
from harness.judging.results import CheckResult
from reports.known_suites import known_suite
from reports.text import worded

OTHER_WAYS = "more repeats of each, a wider margin, or more tasks judged together would help"
NOT_ITEMS = "a wider margin, or more tasks judged together, would help"


def items_there(on: str, planned: Mapping[str, int], settings: Mapping[str, Mapping[str, Any]]) -> int | None:
    """How many items the tasks of a check have; None where that is not known, or where more can be made.

    Args:
        on: A suite, or "suite/task".
        planned: Pairs of each "suite/task" of the run.
        settings: Of each suite, by the policy.
    """
    together = 0
    for name in planned:
        if name == on or name.startswith(f"{on}/"):
            items = _items_of(name, planned[name], settings)
            if items is None:
                return None
            together += items
    return together or None


def _items_of(name: str, pairs: int, settings: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Of one task: those of its public data set, or all that were asked where the policy says no limit."""
    suite, _, task = name.partition("/")
    known, of_suite = known_suite(suite), settings.get(suite)
    source = known.source(of_suite, task)
    if source is not None:
        return source.items
    if not known.whole_without_limit or of_suite is None:
        return None
    tasks = of_suite.get("tasks")
    of_task = tasks.get(task) if isinstance(tasks, Mapping) else None
    said = {**of_suite, **(of_task if isinstance(of_task, Mapping) else {})}
    repeats = said.get("repeats") or 1
    if of_suite.get("limit") or said.get("limit") or not isinstance(repeats, int):
        return None
    return pairs // max(repeats, 1)


def reason_of(result: CheckResult, most: int | None = None) -> str:
    """The verdict's reason as reports word it; where it names more items than the `most` that there are, what would
    help instead."""
    reason, needed = result.reason, result.items_needed
    if needed is not None and most is not None and needed > most:
        there = f"all {most:,} items there are would not decide it (about {needed:,} would): {OTHER_WAYS}"
        reason = reason.replace(more_items(needed), there)
    too_many = more_items(MOST_ITEMS + 1)
    return worded(reason.replace(too_many, f"{too_many}; {NOT_ITEMS}"))
