"""Divergence: KL by part of the answers beside the noise floor, and by document."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.contract.pairs import Pair
from harness.contract.samples import Sample
from harness.runs.positions import BUCKETS, CONFIDENCES
from reports.drawing.canvas import SMALL, SuiteFigure, Svg, small
from reports.drawing.charts import beside, finite, named, places_of
from reports.drawing.svg import INKS
from reports.kl import kl_summary, per_position
from reports.suite_tables.table import SuiteRun, between, language_of, nats
from reports.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NATS = 1e6
"""A KL above is a broken file's; it stands in the table and would flatten the figure."""


class KlPart(NamedTuple):
    """KL of some positions, in nats a position."""

    group: str
    name: str
    lower: float
    upper: float
    noise: float | None
    """Of the reference against itself, the upper figure; None where it was not measured."""


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """KL by position, the reference's confidence, language and kind of prompt on one scale; KL of every document."""
    return [*_by_part(run), *_by_document(run)]


# -- by part --------------------------------------------------------------------------------------------------------


def parts(run: SuiteRun) -> list[KlPart]:
    """The groups that have several parts, with what was measured of each."""
    candidates, noise = _compared(run.pairs), _compared(run.noise)
    groups: dict[str, list[tuple[str, str, list[Sample], list[Sample]]]] = {
        "by position": [(bucket, f"@{bucket}", candidates, noise) for bucket in BUCKETS],
        "by the reference's confidence": [(name, f"@{name}", candidates, noise) for name in CONFIDENCES],
    }
    tasks = sorted({sample.task for sample in candidates})
    if all("-" in task for task in tasks):
        for group, of in (("by language", language_of), ("by kind of prompt", lambda task: task.rpartition("-")[0])):
            groups[group] = [
                (name, "", *([s for s in role if of(s.task) == name] for role in (candidates, noise)))  # type: ignore[misc]
                for name in sorted({of(task) for task in tasks})
            ]
    found = []
    for group, members in groups.items():
        of_group = [part for member in members if (part := _part(group, *member))]
        found += of_group if len(of_group) > 1 else []
    return found


def _compared(pairs: Sequence[Pair]) -> list[Sample]:
    return [pair.candidate for pair in pairs if pair.candidate.metrics.get("positions", 0.0) > 0]


def _part(group: str, name: str, suffix: str, candidates: list[Sample], noise: list[Sample]) -> KlPart | None:
    lower, upper = (per_position(candidates, f"kl_{side}_sum", suffix) for side in ("lower", "upper"))
    lower, upper = (lower if lower is not None else upper), (upper if upper is not None else lower)
    floor = per_position(noise, "kl_upper_sum", suffix)
    if lower is None or upper is None or not finite(lower, upper, most=MOST_NATS):
        return None
    return KlPart(group, name, lower, upper, floor if finite(floor, most=MOST_NATS) else None)


def _by_part(run: SuiteRun) -> list[SuiteFigure]:
    found = parts(run)
    if not found:
        return []
    legend = [("bar", "candidate, from its lower to its upper figure")]
    legend += [("ring", "noise floor")] if any(part.noise is not None for part in found) else []
    most = max(found, key=lambda part: part.upper)
    said = f"Highest {most.group}: {most.name}, {between((most.lower, most.upper))} nats a position"
    said += "." if most.noise is None else f", where the noise floor is {nats(most.noise)}."
    return [SuiteFigure("KL by part of the answers", said, _part_bars(found), legend)]


def _part_bars(found: Sequence[KlPart]) -> Svg:
    places, headings, height = places_of([part.group for part in found])
    left = 86
    top = max(max(part.upper, part.noise or 0.0) for part in found) * 1.28 or 1.0

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INKS["rule"], linewidth=1, zorder=0)
        for y, part in zip(places, found, strict=True):
            axes.barh(y, part.lower, 0.5, color=INKS["candidate"])
            axes.barh(y, part.upper - part.lower, 0.5, left=part.lower, color=INKS["candidate"], alpha=0.45)
            if part.noise is not None:
                axes.plot([part.noise], [y], linestyle="none", marker="o", **_ring())
            axes.annotate(
                nats(part.upper),
                (max(part.upper, part.noise or 0.0), y),
                (7, 0),
                textcoords="offset points",
                fontsize=11,
                va="center",
                color=INKS["muted"],
            )
            beside(axes, y, part.name, left)
        for y, name in headings:
            beside(axes, y, name, left, weight="bold")
        axes.set_xlim(0, top)
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=4)
        named(axes, x="mean KL, nats a position")

    return small(draw, 58 + round(22 * height), left)


def _ring() -> dict[str, Any]:
    edge = {"markeredgecolor": INKS["reference"], "markeredgewidth": 2, "markersize": 7, "clip_on": False}
    return {"markerfacecolor": INKS["paper"], **edge}


# -- by document ----------------------------------------------------------------------------------------------------


def _by_document(run: SuiteRun) -> list[SuiteFigure]:
    found = kl_summary(run.pairs, run.kl_margin)
    spans = [
        (lower, upper)
        for document in found.documents
        for lower, upper in [_span(document.lower, document.upper)]
        if finite(lower, upper, most=MOST_NATS)
    ]
    if len(spans) < 2:
        return []
    mean = found.upper if found.upper is not None else found.lower
    shown = mean if finite(mean, most=MOST_NATS) else None
    middle = median(upper for _, upper in spans)
    said = f"Half of {plural(len(spans), 'document')} lie above {nats(middle)}"
    said += " nats a position." if shown is None else f", the mean is {nats(shown)} nats a position"
    if shown is not None:
        said += "." if found.margin is None else f", its margin {nats(found.margin)}."
    legend = [("bar", "a document, from its lower to its upper figure")]
    legend += [("dash", f"mean {nats(shown)}")] if shown is not None else []
    legend += [("line", f"margin of the mean {nats(found.margin)}")] if found.margin is not None else []
    return [SuiteFigure("KL by document", said, _document_strokes(spans, shown, found.margin), legend)]


def _span(lower: float | None, upper: float | None) -> tuple[float, float]:
    known = [value for value in (lower, upper) if value is not None] or [0.0]
    return known[0], known[-1]


def _document_strokes(spans: Sequence[tuple[float, float]], mean: float | None, margin: float | None) -> Svg:
    lower, upper = [low for low, _ in spans], [high for _, high in spans]

    def draw(axes: Axes) -> None:
        places = range(1, len(spans) + 1)
        width = min(6.0, max(1.0, SMALL * 0.5 / len(spans)))
        axes.vlines(places, 0, upper, color=INKS["rule"], linewidth=1)
        axes.vlines(places, lower, upper, color=INKS["candidate"], linewidth=width)
        axes.plot(places, upper, "o", color=INKS["candidate"], markersize=min(width + 1, 6), linestyle="none")
        if mean is not None:
            axes.axhline(mean, color=INKS["ink"], linewidth=1.4, linestyle=(0, (4, 3)))
        if margin is not None:
            axes.axhline(margin, color=INKS["ink"], linewidth=2)
        axes.set_ylim(0, max([*upper, margin or 0.0]) * 1.15 or 1.0)
        axes.set_xlim(0.2, len(spans) + 0.8)
        axes.set_xticks([1, len(spans)])
        axes.locator_params(axis="y", nbins=5)
        named(axes, "document, by KL", "nats a position")

    return small(draw, 290, 66)
