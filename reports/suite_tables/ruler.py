"""RULER: scores by length and by task × length, and the effective length."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.contract.pairs import Pair
from harness.contract.samples import Sample
from reports.scores import by_task, task_scores
from reports.suite_tables.effective_length import THRESHOLD, effective_length
from reports.suite_tables.scores import endings_tables, score_table, substring_tables
from reports.suite_tables.table import Groups, SuiteRun, Table, both, difference, of_roles, with_total
from reports.text import number, percent, points

LARGE_DROP = 0.10
"""Difference of a cell that is marked. A cell of 50 items moves by some points by chance alone."""

_NAME = re.compile(r"(.+)@([0-9]{1,9})")


def tables(run: SuiteRun) -> list[Table]:
    """Scores by length with the effective length, the grid of task × length, and every task@length whole."""
    groups = by_task(run.pairs, run.tasks)
    found = {key: pairs for name, pairs in groups.items() if pairs and (key := split(name))}
    if not any(task_scores("", pairs).n for pairs in found.values()):
        return [score_table(groups), *substring_tables(groups), *endings_tables(groups)]
    lengths = sorted({length for _, length in found})
    by_length = {number(n): [p for (_, m), pairs in found.items() if m == n for p in pairs] for n in lengths}
    pooled = score_table(by_length, "Length, tokens", "Scores by length, all tasks together", "all lengths")
    note = f"{_effective(lengths, by_length)} {pooled.note}"
    return [
        Table(pooled.title, pooled.columns, pooled.rows, note, pooled.total),
        _grid(found, lengths),
        score_table(groups, title="Scores by task and length"),
        *substring_tables(groups),
        *endings_tables(groups),
    ]


def split(name: str) -> tuple[str, int] | None:
    """("vt", 4096) of vt@4096; None for another name."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def _effective(lengths: Sequence[int], by_length: Groups) -> str:
    said = []
    scores = [task_scores("", by_length[number(length)]) for length in lengths]
    for role in ("reference", "candidate"):
        of_role = [getattr(row, role).score for row in scores]
        known = {length: score for length, score in zip(lengths, of_role, strict=True) if score is not None}
        found = effective_length(known)
        said.append(f"{role} {'none of these' if found is None else number(found)}")
    return f"Effective length, the largest whose score is above {percent(THRESHOLD)}: {', '.join(said)}."


def _grid(found: dict[tuple[str, int], list[Pair]], lengths: Sequence[int]) -> Table:
    tasks = {task: [p for (name, _), pairs in found.items() if name == task for p in pairs] for task, _ in found}
    columns = (
        "Task",
        *(column for length in lengths for column in both(f"{number(length)} tokens", "difference")),
        *both("Empty answers"),
    )
    rows = []
    for task, pairs in with_total(tasks, "all tasks").items():
        cells = [cell for length in lengths for cell in _cells([p for p in pairs if _length(p) == length])]
        rows.append((task, *cells, *of_roles(pairs, _empty)))
    note = (
        f"Score in %, difference in points. ▼ at least {points(LARGE_DROP).lstrip('+')} points lower: a cell has few "
        "items, so such a drop is a place to look at; checks decide over all of them. Empty answers are counted."
    )
    return Table("Scores by task × length", columns, rows, note, total=len(rows) > 1)


def _length(pair: Pair) -> int:
    return (split(pair.reference.task) or ("", 0))[1]


def _cells(pairs: Sequence[Pair]) -> tuple[str, str, str]:
    found = task_scores("", pairs)
    reference, candidate = found.reference.score, found.candidate.score
    lost = difference(reference, candidate)
    mark = "▼ " if lost is not None and round(lost, 9) <= -LARGE_DROP else ""
    return percent(reference), percent(candidate), f"{mark}{points(lost)}"


def _empty(samples: Sequence[Sample]) -> str:
    return number(sum(not sample.text for sample in samples))
