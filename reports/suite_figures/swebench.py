"""SWE-bench: how trajectories ended."""

from __future__ import annotations

from collections import Counter

from reports.drawing.canvas import SuiteFigure
from reports.drawing.charts import ChartRow, grouped_rows, left_of, most_changed
from reports.suite_tables.swebench import exit_status
from reports.suite_tables.table import SuiteRun
from reports.text import ABSENT, one_line, percent

MAX_STATUSES = 12


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Exit statuses of both roles, of the graded pairs, where there are several."""
    scored = [pair for pair in run.pairs if all(sample.score is not None for sample in pair)]
    counts = [Counter(exit_status(sample) for sample in role) for role in zip(*scored, strict=True)]
    order = sorted(set().union(*counts), key=lambda name: (-sum(count[name] for count in counts), name))
    if len(order) < 2:
        return []
    rows = [
        ChartRow(
            "", "not known" if name == ABSENT else one_line(name, 30), *(count[name] / len(scored) for count in counts)
        )
        for name in order[:MAX_STATUSES]
    ]
    most, said = most_changed(rows), "Both roles' trajectories ended alike."
    if most:
        said = f"Most changed: {most.label}, {percent(most.reference)} of trajectories with the reference and "
        said += f"{percent(most.candidate)} with the candidate."
    left = left_of(max(len(row.label) for row in rows))
    return [SuiteFigure("How trajectories ended", said, grouped_rows(rows, "share of the trajectories, %", left))]
