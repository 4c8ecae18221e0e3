"""Needle: scores by depth × length as a heat map."""

from __future__ import annotations

from reports.drawing.canvas import SuiteFigure
from reports.drawing.heatmap import Grid, heat_map, worth_drawing
from reports.suite_figures.ruler import finding, heads_of
from reports.suite_tables.needle import grid
from reports.suite_tables.table import SuiteRun


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """The heat map, where there are several depths and lengths."""
    found = grid(run.pairs)
    depths, lengths = sorted({depth for depth, _ in found}), sorted({length for _, length in found})
    heads = heads_of(lengths)
    cells = {(_depth(d), heads[length]): (of.reference.score, of.candidate.score) for (d, length), of in found.items()}
    made = Grid([_depth(depth) for depth in depths], [*heads.values()], cells, "depth, tokens")
    if not worth_drawing(made):
        return []
    title = "Score by depth and length"
    return [SuiteFigure(title, finding(made, "depth "), heat_map(made), legend=(), wide=True)]


def _depth(share: float) -> str:
    return f"{100 * share:g} %"
