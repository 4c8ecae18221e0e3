"""Does what lm-eval published (results_<time>.json) fit the records beside it? Where not, one of them was changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.offline.lm_eval_files import Folder
from harness.offline.lm_eval_records import Record

TOLERANCE = 1e-6
"""Of a mean: what is left of sums in another order is less."""


def disagreements(folder: Folder, task: str, row_filter: str, metric: str, rows: Sequence[Record]) -> list[str]:
    """One line for a mean, and one for a number of documents, that results and records of a task do not share."""
    if not rows:
        return []
    results, found = folder.results(task), []
    published, mean = _means(results, task, row_filter, metric, rows)
    name = path.name if (path := folder.results_path(task)) else ""
    there = f"{folder.samples[task].path}"
    if published is not None and mean is not None and abs(published - mean) > TOLERANCE:
        found.append(
            f"{task} ({metric}): {name} says {published:.6g}, the {len(rows):,} records of {there} give {mean:.6g}"
        )
    count = _number(results, "n-samples", task, "effective")
    if count is not None and not metric.isdigit() and count != len(rows):
        found.append(f"{task}: {name} says {count:,.0f} documents, {there} holds {len(rows):,}")
    return found


def documents_asked(folder: Folder, task: str, row_filter: str, metric: str, rows: Sequence[Record]) -> int:
    """How many documents a side was asked: those that are there, or more where the results count more.

    A call with --samples counts all documents of the task though it asked only some: its mean is that of its records.
    """
    if not rows:
        return 0
    results = folder.results(task)
    count = _number(results, "n-samples", task, "effective")
    published, mean = _means(results, task, row_filter, metric, rows)
    whole = published is not None and mean is not None and abs(published - mean) <= TOLERANCE
    return len(rows) if count is None or metric.isdigit() or whole else max(len(rows), int(count))


def _means(
    results: Mapping[str, Any], task: str, row_filter: str, metric: str, rows: Sequence[Record]
) -> tuple[float | None, float | None]:
    """A metric's mean as it was published and as the records give it; None where there is none."""
    values = [float(v) for row in rows if isinstance(v := row.values.get(metric), int | float) and math.isfinite(v)]
    mean = math.fsum(values) / len(values) if values else None
    return _number(results, "results", task, f"{metric},{row_filter}"), mean


def _number(results: Mapping[str, Any], *keys: str) -> float | None:
    value: Any = results
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None
