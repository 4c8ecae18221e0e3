"""Scores of both roles, one row a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.drawing.canvas import MAX_ROWS, SuiteFigure
from reports.drawing.charts import ChartRow, both_roles, grouped_rows, labelled_rows, left_of, named
from reports.scores import TaskScores, all_scores, by_task
from reports.suite_tables.table import SuiteRun
from reports.text import one_line, percent, plural, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONG_NAME = 24
"""Letters of a task's name that stand beside its row in a small figure."""


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Scores by task, where there are several tasks."""
    found = [task for task in all_scores(by_task(run.pairs, run.tasks)) if task.difference is not None]
    if len(found) < 2:
        return []
    rows = [
        ChartRow("", one_line(task.task, 60), task.reference.score or 0.0, task.candidate.score or 0.0)
        for task in found[:MAX_ROWS]
    ]
    longest = max(len(row.label) for row in rows)
    if longest <= LONG_NAME:
        return [SuiteFigure("Score by task", _finding(found), grouped_rows(rows, "score, %", left_of(longest)))]

    def draw(axes: Axes, wide: bool) -> None:
        for y, row in enumerate(rows):
            both_roles(axes, y, 100 * row.reference, 100 * row.candidate)
        axes.set_xlim(0, 100)
        named(axes, "score, %", size=12 if wide else 11)

    svg = labelled_rows(draw, [row.label for row in rows])
    return [SuiteFigure("Score by task", _finding(found), svg, wide=True)]


def _finding(found: list[TaskScores]) -> str:
    shown = f"The first {MAX_ROWS} of {plural(len(found), 'task')}. " if len(found) > MAX_ROWS else ""
    worst = min(found, key=lambda task: task.difference or 0.0)
    if (worst.difference or 0.0) >= 0:
        return f"{shown}The candidate is lower on no task."
    lower = sum((task.difference or 0.0) < 0 for task in found)
    scores = f"{percent(worst.reference.score)} to {percent(worst.candidate.score)}"
    name, lost = one_line(worst.task, 60), points(worst.difference)
    return f"{shown}The candidate is lower on {lower} of {len(found)} tasks, most on {name}: {scores} ({lost} points)."
