"""Figures as inline SVG: each drawn for wide and for narrow pages, and painted by the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reports.kl import Divergence
from reports.rows import CheckRow
from reports.scores import TaskScores
from reports.svg import INKS, plain_text, to_svg
from reports.text import one_line, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 920, 380
MAX_ROWS = 40
MOST_NATS = 1e6
"""A KL above is a broken file's; it stands in the table and would flatten the figure."""
_MARKS = {"PASS": ("o", "pass"), "FAIL": ("s", "fail"), "INCONCLUSIVE": ("D", "open")}


def forest(rows: Sequence[CheckRow]) -> str | None:
    """Every difference with its bounds and its own margin, in points; None when no check is a difference."""
    losses = [row for row in rows if row.result.unit == "points" and row.result.estimate is not None][:MAX_ROWS]
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
        axes.set_xlabel("points lost by the candidate", fontsize=12 if wide else 11, color=INKS["muted"])

    many = plural(len(losses), "difference")
    label = f"Forest plot of {many} with bounds and margins; the table of checks has the numbers."
    return _rows(draw, [row.label for row in losses], "forest", label)


def task_scores(tasks: Sequence[TaskScores], name: str) -> str | None:
    """Score of both roles, one row a task; None when no task has a score."""
    shown = [t for t in tasks if t.reference.score is not None and t.candidate.score is not None][:MAX_ROWS]
    if not shown:
        return None

    def draw(axes: Axes, wide: bool) -> None:
        for y, task in enumerate(shown):
            reference, candidate = 100 * (task.reference.score or 0), 100 * (task.candidate.score or 0)
            axes.plot(
                [reference, candidate],
                [y, y],
                color=INKS["candidate"],
                linewidth=2,
                solid_capstyle="butt",
                zorder=1,
            )
            axes.plot(
                [reference],
                [y],
                "o",
                color=INKS["paper"],
                markeredgecolor=INKS["reference"],
                markeredgewidth=2,
                markersize=10,
                clip_on=False,
                zorder=2,
            )
            axes.plot([candidate], [y], "o", color=INKS["candidate"], markersize=5.5, clip_on=False, zorder=3)
        axes.set_xlim(0, 100)
        axes.set_xlabel("score, %", fontsize=12 if wide else 11, color=INKS["muted"])

    label = f"Score of reference and candidate on {plural(len(shown), 'task')}; the table has the numbers."
    return _rows(draw, [task.task for task in shown], name, label)


def kl_by_document(divergence: Divergence, name: str) -> str | None:
    """KL of each document, from the lower to the upper figure, largest first; None without documents."""
    documents = [d for d in divergence.documents if all(abs(v or 0.0) < MOST_NATS for v in (d.lower, d.upper))]
    if not documents:
        return None
    lower = [d.lower if d.lower is not None else d.upper or 0.0 for d in documents]
    upper = [d.upper if d.upper is not None else d.lower or 0.0 for d in documents]
    mean = divergence.upper if divergence.upper is not None else divergence.lower
    mean = mean if mean is not None and abs(mean) < MOST_NATS else None

    def draw(axes: Axes, wide: bool) -> None:
        size = 12 if wide else 11
        places = range(1, len(documents) + 1)
        width = min(6.0, max(1.0, (WIDE if wide else NARROW) * 0.5 / len(documents)))
        axes.vlines(places, 0, upper, color=INKS["rule"], linewidth=1)
        axes.vlines(places, lower, upper, color=INKS["candidate"], linewidth=width)
        axes.plot(places, upper, "o", color=INKS["candidate"], markersize=min(width + 1, 6), linestyle="none")
        top = max([*upper, divergence.margin or 0.0]) * 1.15 or 1.0
        for value, text, ink in ((mean, "mean", "muted"), (divergence.margin, "margin of the mean", "ink")):
            if value is None:
                continue
            axes.axhline(
                value,
                color=INKS[ink],
                linewidth=2 if ink == "ink" else 1.2,
                linestyle="-" if ink == "ink" else (0, (4, 3)),
                zorder=0,
            )
            below = value < max(mean or 0.0, divergence.margin or 0.0)
            axes.annotate(
                f"{text} {value:.4f}",
                (1, value),
                (-4, -4 if below else 4),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="top" if below else "bottom",
                fontsize=size,
                color=INKS[ink],
            )
        axes.set_ylim(0, top)
        axes.set_xlim(0.2, len(documents) + 0.8)
        axes.set_xticks([1, len(documents)] if len(documents) > 1 else [1])
        axes.set_xlabel("document, by KL", fontsize=size, color=INKS["muted"])
        axes.set_ylabel("nats a position", fontsize=size, color=INKS["muted"])

    share = "" if mean is None else f"; mean {mean:.4f} nats"
    label = f"KL divergence of {plural(len(documents), 'document')}{share}."
    return _both(draw, 250, 230, name, label, left=(74, 66))


def _rows(draw: Callable[[Axes, bool], None], labels: Sequence[str], name: str, label: str) -> str:
    """A figure of labelled rows: the label to the left on wide pages, above its row on narrow ones."""

    def with_labels(axes: Axes, wide: bool) -> None:
        draw(axes, wide)
        axes.set_ylim(len(labels) - 0.4, -0.6 if wide else -0.75)
        axes.set_yticks([])
        for y, text in enumerate(labels):
            axes.annotate(
                one_line(text, 40 if wide else 48),
                (0, y),
                (-270, 0) if wide else (0, 9),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=12 if wide else 11,
                va="center" if wide else "bottom",
                color=INKS["ink"],
            )

    return _both(with_labels, 58 + 30 * len(labels), 58 + 44 * len(labels), name, label, left=(270, 12))


def _both(
    draw: Callable[[Axes, bool], None],
    tall: int,
    tall_narrow: int,
    name: str,
    label: str,
    left: tuple[int, int],
) -> str:
    with plain_text():
        wide = _draw(lambda axes: draw(axes, True), WIDE, tall, left[0], 12)
        narrow = _draw(lambda axes: draw(axes, False), NARROW, tall_narrow, left[1], 11)
        return to_svg(wide, f"{name}-w", label, "wide") + to_svg(narrow, f"{name}-n", label, "narrow")


def _draw(draw: Callable[[Axes], None], width: int, height: int, left: int, size: int) -> Figure:
    from matplotlib.figure import Figure  # heavy, and only needed when there is something to draw

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    bottom, top, right = 46, 8, 22
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    axes = figure.add_axes(box)
    draw(axes)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INKS["rule"])
    axes.tick_params(labelsize=size, labelcolor=INKS["ink"], color=INKS["rule"])
    return figure


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max((high - low) * 0.06, 0.5)
    return low - room, high + room
