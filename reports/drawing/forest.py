"""The figure of the checks: every difference with its bounds and its own margin. Those of suites: suite_figures/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.check_rows import CheckRow
from reports.drawing.canvas import MAX_ROWS
from reports.drawing.charts import labelled_rows, named
from reports.drawing.svg import INKS
from reports.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = {"PASS": ("o", "pass"), "FAIL": ("s", "fail"), "INCONCLUSIVE": ("D", "open")}


def forest_rows(rows: Sequence[CheckRow]) -> list[CheckRow]:
    """The checks that can be drawn on one scale, in the order of the table: those closest to failing first."""
    return [row for row in rows if row.result.unit == "points" and row.result.estimate is not None]


def drawn(rows: Sequence[CheckRow]) -> str:
    """Which of the differences are drawn, where not all of them are; else empty."""
    count = len(forest_rows(rows))
    return f"the {MAX_ROWS} closest to failing of {count} differences" if count > MAX_ROWS else ""


def forest(rows: Sequence[CheckRow]) -> str | None:
    """Every difference with its bounds and its own margin, in points; None when no check is a difference."""
    losses = forest_rows(rows)[:MAX_ROWS]
    if not losses:
        return None
    values = [100 * row.result.margin for row in losses]
    values += [
        100 * v for row in losses for v in (row.result.estimate, row.result.lower, row.result.upper) if v is not None
    ]
    low, high = _limits([*values, 0.0])

    def draw(axes: Axes, wide: bool) -> None:
        axes.axvline(0, color=INKS["rule"], linewidth=1, zorder=0)
        for y, row in enumerate(losses):
            result = row.result
            mark, ink = _MARKS[result.verdict]
            start = low if result.lower is None else 100 * result.lower
            end = high if result.upper is None else 100 * result.upper
            margin = 100 * result.margin
            axes.plot([start, end], [y, y], color=INKS[ink], linewidth=2, solid_capstyle="butt")
            axes.plot([100 * (result.estimate or 0)], [y], mark, color=INKS[ink], markersize=7)
            axes.plot(
                [margin, margin],
                [y - (0.34 if wide else 0.16), y + 0.34],
                color=INKS["ink"],
                linewidth=2,
                solid_capstyle="butt",
            )
        axes.set_xlim(low, high)
        named(axes, "points lost by the candidate", size=12 if wide else 11)

    said = drawn(rows) or plural(len(losses), "difference")
    label = f"Forest plot of {said} with bounds and margins; the table of checks has the numbers."
    return labelled_rows(draw, [row.label for row in losses])("forest", label)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max((high - low) * 0.06, 0.5)
    return low - room, high + room
