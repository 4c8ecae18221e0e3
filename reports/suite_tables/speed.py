"""Speed: output tokens a second and time to the first token, by concurrency."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.contract.pairs import Pair
from reports.scores import by_task
from reports.suite_tables.table import SuiteRun, Table, average, both, not_measured, quotient, values
from reports.text import ABSENT, number

TITLE = "Speed by concurrency"
FIGURES = {
    "tokens_per_second": ("Output tokens a second", 1),
    "ttft_p50_ms": ("Time to first token, median, ms", 0),
    "ttft_p99_ms": ("Time to first token, 99 %, ms", 0),
}
"""Metrics (suites/speed.py), their words and digits after the point."""

_TASK = re.compile(r"c([0-9]{1,9})")


def tables(run: SuiteRun) -> list[Table]:
    """One row for each number of concurrent requests: means over the rounds, and the ratio with its range."""
    groups = {task: pairs for task, pairs in by_task(run.pairs, run.tasks).items() if pairs}
    if not any(values(pair, name) for pairs in groups.values() for pair in pairs for name in FIGURES):
        return [not_measured(TITLE, "no sample has a speed.")]
    columns = (
        "Requests at once",
        "Rounds",
        *(column for words, _ in FIGURES.values() for column in both(words, "ratio", "range of the rounds")),
    )
    rows = []
    for task in sorted(groups, key=_concurrency):
        cells = [cell for name, (_, digits) in FIGURES.items() for cell in _cells(groups[task], name, digits)]
        match = _TASK.fullmatch(task)
        rows.append((match[1] if match else task, number(len(groups[task])), *cells))
    note = "Means over the rounds. Ratio: candidate ÷ reference; of tokens more is better, of times less."
    return [Table(TITLE, columns, rows, note)]


def _concurrency(task: str) -> tuple[int, str]:
    match = _TASK.fullmatch(task)
    return (int(match[1]) if match else 10**9, task)


def _cells(pairs: Sequence[Pair], name: str, digits: int) -> tuple[str, str, str, str]:
    there = [(p.reference.metrics[name], p.candidate.metrics[name]) for p in pairs if all(name in s.metrics for s in p)]
    reference, candidate = average([r for r, _ in there]), average([c for _, c in there])
    ratios = [ratio for r, c in there if (ratio := quotient(c, r)) is not None]
    spread = f"{number(min(ratios), 2)} to {number(max(ratios), 2)}" if ratios else ABSENT
    return number(reference, digits), number(candidate, digits), number(quotient(candidate, reference), 2), spread
