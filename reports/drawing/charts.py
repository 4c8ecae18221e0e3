"""The charts that figures of several suites share: rows of both roles, curves, bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from reports.drawing.canvas import Svg, small, twice
from reports.drawing.svg import INKS
from reports.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def labelled_rows(draw: Callable[[Axes, bool], None], labels: Sequence[str]) -> Svg:
    """A wide figure of rows: the label to the left on wide pages, above its row on narrow ones."""
    left = min(left_of(max(map(len, labels))), 340)

    def with_labels(axes: Axes, wide: bool) -> None:
        draw(axes, wide)
        axes.set_ylim(len(labels) - 0.4, -0.6 if wide else -0.75)
        axes.set_yticks([])
        for y, text in enumerate(labels):
            axes.annotate(
                one_line(text, 46 if wide else 48),
                (0, y),
                (-left, 0) if wide else (0, 9),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=12 if wide else 11,
                va="center" if wide else "bottom",
                color=INKS["ink"],
            )

    return twice(with_labels, 58 + 30 * len(labels), 58 + 44 * len(labels), left=(left, 12))


# -- rows of both roles ---------------------------------------------------------------------------------------------


class ChartRow(NamedTuple):
    """One row of a small figure; those of one group stand together under its name."""

    group: str
    label: str
    reference: float
    candidate: float


def grouped_rows(found: Sequence[ChartRow], axis: str, left: int = 92) -> Svg:
    """A small figure of shares of both roles (0 to 1), row by row."""
    places, headings, height = places_of([row.group for row in found])

    def draw(axes: Axes) -> None:
        axes.hlines(places, 0, 100, color=INKS["rule"], linewidth=0.8, zorder=0)
        for y, row in zip(places, found, strict=True):
            both_roles(axes, y, 100 * row.reference, 100 * row.candidate)
            beside(axes, y, row.label, left)
        for y, name in headings:
            beside(axes, y, name, left, weight="bold")
        axes.set_xlim(0, 100)
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_yticks([])
        named(axes, x=axis)

    return small(draw, 58 + round(24 * height), left)


def left_of(letters: int) -> int:
    """Pixels that a label of so many letters needs beside its row."""
    return 26 + round(6.8 * max(letters, 6))


def most_changed(found: Sequence[ChartRow]) -> ChartRow | None:
    """The row in which the roles differ most; None where no difference is left after rounding to 0.1 %."""
    most = max(found, key=lambda row: round(abs(row.candidate - row.reference), 9))
    return most if abs(most.candidate - most.reference) >= 0.0005 else None


def places_of(groups: Sequence[str]) -> tuple[list[float], list[tuple[float, str]], float]:
    """Where rows and the names of their groups stand, and how many rows high it all is; a group "" has no name."""
    places: list[float] = []
    headings: list[tuple[float, str]] = []
    y, last = 0.0, ""
    for group in groups:
        if group != last:
            y += 0.35 if places else 0.0
            headings.append((y, group))
            y, last = y + 1, group
        places.append(y)
        y += 1
    return places, headings, y


def both_roles(axes: Axes, y: float, reference: float, candidate: float) -> None:
    """The two roles on one row: a ring, a dot, and what lies between them."""
    axes.plot([reference, candidate], [y, y], color=INKS["candidate"], linewidth=2, solid_capstyle="butt", zorder=1)
    axes.plot([reference], [y], linestyle="none", **ring(10), zorder=2)
    axes.plot([candidate], [y], "o", color=INKS["candidate"], markersize=5.5, clip_on=False, zorder=3)


def ring(width: float) -> dict[str, Any]:
    """How the reference is marked: a ring that a dot fits into."""
    edge = {"markeredgecolor": INKS["reference"], "markeredgewidth": 2, "markersize": width}
    return {"marker": "o", "markerfacecolor": INKS["paper"], "clip_on": False, **edge}


def beside(axes: Axes, y: float, text: str, left: int, weight: str = "normal") -> None:
    """Words to the left of a row."""
    axes.annotate(
        one_line(text, 30),
        (0, y),
        (2 - left, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=12,
        va="center",
        color=INKS["ink"],
        weight=weight,
    )


def named(axes: Axes, x: str = "", y: str = "", size: int = 12) -> None:
    """What the axes measure."""
    axes.set_xlabel(x, fontsize=size, color=INKS["muted"])
    axes.set_ylabel(y, fontsize=size, color=INKS["muted"])


# -- curves ---------------------------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """Values of both roles at the same places; a second statistic of the same kind is dashed."""

    reference: Sequence[float]
    candidate: Sequence[float]
    dashed: bool = False


def curves(places: Sequence[str], found: Sequence[Curve], x: str, y: str, low: float | None = None) -> Svg:
    """A small figure of values at evenly spaced places; `low` is where the scale begins, None: where the values do."""
    values = [value for curve in found for value in (*curve.reference, *curve.candidate)]
    bottom, top = scale(values, low)

    def draw(axes: Axes) -> None:
        at = range(len(places))
        for curve in found:
            dashes = (0, (3, 3)) if curve.dashed else "-"
            axes.plot(at, curve.reference, color=INKS["reference"], linewidth=1.6, linestyle=dashes, **ring(8))
            axes.plot(
                at,
                curve.candidate,
                "o",
                color=INKS["candidate"],
                linewidth=1.6,
                linestyle=dashes,
                markersize=5,
                clip_on=False,
            )
        axes.set_xlim(-0.25, len(places) - 0.75)
        axes.set_xticks(list(at), [one_line(place, 12) for place in places])
        axes.set_ylim(bottom, top)
        axes.grid(axis="y", color=INKS["rule"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axes.tick_params(axis="y", length=0)
        named(axes, x, y)

    return small(draw, 250, 62)


def scale(values: Sequence[float], low: float | None = None) -> tuple[float, float]:
    """Where an axis begins and ends, so that the values have some room."""
    start, end = min(values) if low is None else low, max(values)
    room = (end - start) * 0.12 or abs(end) * 0.1 or 1.0
    return (start - room if low is None else low), end + room


def finite(*values: float | None, most: float = 1e15) -> bool:
    """Whether all of these are numbers that a figure can show; others stand in the table alone."""
    return all(value is not None and math.isfinite(value) and abs(value) <= most for value in values)
