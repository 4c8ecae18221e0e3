"""What figures are drawn on: a canvas measured in pixels, drawn once or twice, and painted by the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.drawing.svg import INKS, plain_text, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW, SMALL = 920, 380, 380
"""Widths in pixels. A wide figure is drawn for wide and for narrow pages, a small one once, for both."""
MAX_ROWS = 40

Svg = Callable[[str, str], str]
"""Draws a figure: its markup, given a name that is unique on the page and what a screen reader says."""

ROLE_LEGEND = (("reference", "reference"), ("candidate", "candidate"))
"""The legend of a figure of both roles: (mark, word)."""


@dataclass(frozen=True)
class SuiteFigure:
    """A figure that is not drawn yet, and what stands beside it."""

    title: str
    finding: str
    """What it shows, in a sentence: the caption, and what a screen reader says."""
    svg: Svg
    legend: Sequence[tuple[str, str]] = ROLE_LEGEND
    wide: bool = False

    def draw(self, name: str) -> str:
        """The markup. Takes some tenths of a second."""
        return self.svg(name, f"{self.title}. {self.finding}")


def canvas(width: float, height: float) -> Figure:
    """An empty figure; one point of it is one pixel at full size."""
    from matplotlib.figure import Figure  # heavy, and only needed when there is something to draw

    return Figure(figsize=(width / 72, height / 72), dpi=72)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float, size: int = 12) -> Axes:
    """Calm axes at a place in pixels from the upper left corner: no frame but the line below."""
    across, down = (72 * float(side) for side in figure.get_size_inches())
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INKS["rule"])
    axes.tick_params(labelsize=size, labelcolor=INKS["ink"], color=INKS["rule"])
    return axes


def twice(draw: Callable[[Axes, bool], None], tall: int, tall_narrow: int, left: tuple[int, int]) -> Svg:
    """A wide figure of one chart: `draw(axes, whether for wide pages)`, heights, and room to its left."""

    def one(width: int, height: int, start: int, size: int, wide: bool) -> Figure:
        figure = canvas(width, height)
        draw(axes_at(figure, start, 8, width - start - 22, height - 54, size), wide)
        return figure

    return for_both(lambda: one(WIDE, tall, left[0], 12, True), lambda: one(NARROW, tall_narrow, left[1], 11, False))


def for_both(wide: Callable[[], Figure], narrow: Callable[[], Figure]) -> Svg:
    """A wide figure, made for wide and for narrow pages; the style sheet shows one of them."""

    def svg(name: str, label: str) -> str:
        with plain_text():
            return to_svg(wide(), f"{name}-w", label, "wide") + to_svg(narrow(), f"{name}-n", label, "narrow")

    return svg


def small(draw: Callable[[Axes], None], height: int, left: int, bottom: int = 46, right: int = 18) -> Svg:
    """A small figure of one chart, with room around it in pixels."""

    def svg(name: str, label: str) -> str:
        with plain_text():
            figure = canvas(SMALL, height)
            draw(axes_at(figure, left, 10, SMALL - left - right, height - 10 - bottom))
            return to_svg(figure, name, label, "small")

    return svg
