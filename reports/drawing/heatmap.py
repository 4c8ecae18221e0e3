"""Heat maps: the difference of both roles' scores as a colour in a grid, with the scores printed in each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.drawing.canvas import MAX_ROWS, NARROW, WIDE, Svg, axes_at, canvas, for_both
from reports.drawing.svg import INKS
from reports.suite_tables.table import difference
from reports.text import ABSENT, number, one_line, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLUMNS = 10
TONES = 6
"""Steps of colour. The values are printed, so that nobody need tell neighbours apart."""
LEAST_FOR_BOTH, MOST_ACROSS = 72, 150
"""Pixels of a cell that holds both scores, and of the widest one."""
FULL_DROP = 0.40
"""A difference that has the strongest colour, as larger ones do."""

ScorePair = tuple[float | None, float | None]
"""Of the reference and of the candidate, 0 to 1."""


@dataclass(frozen=True)
class Grid:
    """What a heat map shows: rows by columns, of whatever cells there are."""

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[str, str], ScorePair]
    across: str
    """What the columns are."""
    total: bool = False
    """Whether the last row is all others together."""

    @property
    def single(self) -> list[tuple[str, str, float, float]]:
        """(row, column, score of the reference, score of the candidate) of cells that have both; the last row's only
        where it is not all others together."""
        return [
            (row, column, reference, candidate)
            for row in (self.rows[:-1] if self.total else self.rows)
            for column in self.columns
            for reference, candidate in [self.cells.get((row, column), (None, None))]
            if reference is not None and candidate is not None
        ]

    @property
    def largest_drop(self) -> tuple[str, str, float, float] | None:
        """The one of these cells where most is lost; None where nothing is."""
        drops = [(c - r, row, column, r, c) for row, column, r, c in self.single if c < r]
        return min(drops)[1:] if drops else None


def worth_drawing(grid: Grid) -> bool:
    """Whether there is a grid to see: one row or one column is a table."""
    return len(grid.rows) > 1 and len(grid.columns) > 1 and any(None not in scores for scores in grid.cells.values())


def change_tone(change: float) -> str:
    """The ink of a difference; a change that prints as 0.0 has none."""
    if abs(round(100 * change, 1)) == 0:
        return "heat-0"
    return f"{'drop' if change < 0 else 'gain'}-{min(TONES, 1 + int(abs(change) / FULL_DROP * (TONES - 1)))}"


def heat_map(grid: Grid) -> Svg:
    """One panel: a cell's colour is the difference, its words are both scores; only the difference where the page is
    narrow and there are many columns."""
    shown = Grid(grid.rows[-MAX_ROWS:], grid.columns[-MAX_COLUMNS:], grid.cells, grid.across, grid.total)
    return for_both(lambda: _figure(shown, WIDE, 168, 26, 12), lambda: _figure(shown, NARROW, 118, 18, 11))


def _figure(grid: Grid, width: int, labels: int, letters: int, size: int) -> Figure:
    head, row = 44, 26
    across = min(width - labels - 2, MOST_ACROSS * len(grid.columns))
    figure = canvas(width, head + row * len(grid.rows) + 6)
    axes = axes_at(figure, labels, head, across, row * len(grid.rows))
    both = across / len(grid.columns) >= LEAST_FOR_BOTH
    _panel(axes, grid, size, both=both)
    _labels(axes, grid, labels, size, letters)
    return figure


def _percents(score: float) -> str:
    """Without the sign of percent and without .0, so that it fits into a cell."""
    return number(100 * score, 1).removesuffix(".0")


def _said(scores: ScorePair, *, both: bool) -> tuple[str, str] | None:
    """What a cell prints and its ink; None where there is nothing."""
    reference, candidate = scores
    change = difference(reference, candidate)
    if change is None or reference is None or candidate is None:
        return None
    words = f"{_percents(reference)} → {_percents(candidate)}" if both else signed(100 * change, 1).removesuffix(".0")
    return words, change_tone(change)


def _panel(axes: Axes, grid: Grid, size: int, *, both: bool) -> None:
    from matplotlib.patches import Rectangle

    small = size - (1 if len(grid.columns) > 6 else 0)
    axes.set_xlim(0, len(grid.columns))
    axes.set_ylim(len(grid.rows), 0)
    axes.spines["bottom"].set_visible(False)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.set_xticks([x + 0.5 for x in range(len(grid.columns))], [one_line(c, 8) for c in grid.columns])
    axes.tick_params(axis="x", length=0, labelsize=small, labelcolor=INKS["muted"], pad=2)
    axes.annotate(
        "reference → candidate, %" if both else "difference, points",
        (0, 1),
        (0, 24),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=size,
        weight="bold",
        color=INKS["ink"],
    )
    for y, row in enumerate(grid.rows):
        last = grid.total and y == len(grid.rows) - 1
        for x, column in enumerate(grid.columns):
            found = _said(grid.cells.get((row, column), (None, None)), both=both)
            text, ink = found or (ABSENT, "")
            if ink:
                cell = Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor=INKS[ink], edgecolor="none", clip_on=False)
                axes.add_patch(cell)
            weight = "bold" if last else "normal"
            colour = INKS["ink" if found else "muted"]
            axes.text(x + 0.5, y + 0.52, text, ha="center", va="center", fontsize=small, color=colour, weight=weight)
    if grid.total:
        axes.axhline(len(grid.rows) - 1, color=INKS["muted"], linewidth=1)


def _labels(axes: Axes, grid: Grid, room: int, size: int, most: int) -> None:
    for y, row in enumerate(grid.rows):
        axes.annotate(
            one_line(row, most),
            (0, y + 0.5),
            (2 - room, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=size,
            va="center",
            weight="bold" if grid.total and y == len(grid.rows) - 1 else "normal",
            color=INKS["ink"],
        )
    axes.annotate(
        grid.across,
        (0, 1),
        (2 - room, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=size,
        color=INKS["muted"],
    )
