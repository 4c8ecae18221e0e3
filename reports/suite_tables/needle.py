"""Needle: scores by depth × length."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.contract.pairs import Pair
from reports.scores import TaskScores, by_task, task_scores
from reports.suite_tables.scores import endings_tables, score_table, substring_tables
from reports.suite_tables.table import SuiteRun, Table, both
from reports.text import number, percent

_TOKENS = re.compile(r"[0-9]{1,9}")
_DEPTH = re.compile(r"d([0-9]{4})-.*", re.DOTALL)


def tables(run: SuiteRun) -> list[Table]:
    """Scores by length, then the grid of depth × length."""
    groups = {_length(task): pairs for task, pairs in by_task(run.pairs, run.tasks).items()}
    scores = score_table(groups, "Length, tokens", "Scores by length", "all lengths")
    cells = grid(run.pairs)
    return [scores, *([_grid(cells)] if cells else []), *substring_tables(groups), *endings_tables(groups)]


def _length(task: str) -> str:
    return number(int(task)) if _TOKENS.fullmatch(task) else task


def grid(pairs: Sequence[Pair]) -> dict[tuple[float, int], TaskScores]:
    """Scores by (depth from 0 to 1, length in tokens), of the pairs whose names say both."""
    cells: dict[tuple[float, int], list[Pair]] = {}
    for pair in pairs:
        depth = _DEPTH.fullmatch(pair.reference.item)
        if depth and _TOKENS.fullmatch(pair.reference.task):
            cells.setdefault((int(depth[1]) / 1000, int(pair.reference.task)), []).append(pair)
    scores = {cell: task_scores("", of_cell) for cell, of_cell in cells.items()}
    return {cell: found for cell, found in sorted(scores.items()) if found.n}


def _grid(cells: dict[tuple[float, int], TaskScores]) -> Table:
    depths, lengths = sorted({depth for depth, _ in cells}), sorted({length for _, length in cells})
    columns = ("Depth", *(column for length in lengths for column in both(f"{number(length)} tokens")))
    rows = [
        (f"{100 * depth:g} %", *(cell for length in lengths for cell in _cell(cells.get((depth, length)))))
        for depth in depths
    ]
    counts = sorted({found.n for found in cells.values()})
    n = number(counts[0]) if len(counts) == 1 else f"{number(counts[0])} to {number(counts[-1])}"
    note = f"Score in % of {n} answers a cell. Depth: where the needle lies, 0 % is the beginning of the text."
    return Table("Scores by depth × length", columns, rows, note)


def _cell(found: TaskScores | None) -> tuple[str, str]:
    return (
        (percent(None), percent(None))
        if found is None
        else (percent(found.reference.score), percent(found.candidate.score))
    )
