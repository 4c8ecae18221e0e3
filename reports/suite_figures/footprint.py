"""Footprint: what the candidate takes, as a share of what the reference takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from reports.drawing.canvas import SuiteFigure, Svg, small
from reports.drawing.charts import finite, named
from reports.drawing.svg import INKS
from reports.suite_tables.footprint import FACTS
from reports.suite_tables.table import SuiteRun, average, quotient, values
from reports.text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("bytes", "bits_per_weight", "load_bytes", "resident_bytes")
MOST = 10.0
"""A candidate so many times larger is in the table alone."""


class Share(NamedTuple):
    """One size of the candidate over the reference's, and both in words."""

    words: str
    reference: str
    candidate: str
    ratio: float


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Sizes next to the reference's, where several are known of both."""
    found = shares(run)
    if len(found) < 2:
        return []
    said = "; ".join(f"{share.words[:1].lower()}{share.words[1:]} {percent(share.ratio, 0)}" for share in found)
    legend = (("outline", "reference, 100 %"), ("bar", "candidate"))
    return [SuiteFigure("Size next to the reference", f"Of the reference's: {said}.", _bars(found), legend)]


def shares(run: SuiteRun) -> list[Share]:
    """What both roles' samples say of SHOWN."""
    found = []
    for name in SHOWN:
        words, said = FACTS[name]
        roles = [average(values(role, name)) for role in zip(*run.pairs, strict=True)] or [None, None]
        ratio = quotient(roles[1], roles[0])
        if ratio is not None and finite(ratio, most=MOST):
            found.append(Share(words, said(roles[0] or 0.0), said(roles[1] or 0.0), ratio))
    return found


def _bars(found: Sequence[Share]) -> Svg:
    side, right = 4, 12

    def draw(axes: Axes) -> None:
        for y, share in enumerate(found):
            axes.barh(y, 100 * share.ratio, 0.34, color=INKS["candidate"])
            axes.barh(y, 100, 0.34, facecolor="none", edgecolor=INKS["reference"], linewidth=1.6)
            texts = ((0.0, "left", share.words), (1.0, "right", f"{share.reference} → {share.candidate}"))
            for x, align, text in texts:
                axes.annotate(
                    text,
                    (x, y),
                    (0, 11),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    ha=align,
                    va="bottom",
                    fontsize=12,
                    color=INKS["ink"],
                )
        axes.set_xlim(0, max(100.0, *(100 * share.ratio for share in found)) * 1.01)
        axes.set_ylim(len(found) - 0.55, -0.9)
        axes.set_yticks([])
        axes.spines["bottom"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        named(axes, x="% of the reference")

    return small(draw, 70 + 50 * len(found), side, right=right)
