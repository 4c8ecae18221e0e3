"""One check through time as a small chart: estimate and bounds of each run, and its margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from harness.judging.results import CheckResult
from reports.check_rows import no_loss
from reports.history.runs import CheckHistory, Run
from reports.metric_words import in_words
from reports.text import bare, plural, quantity, unit_word

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 24
MOST_POINTS = 40
"""The latest runs of a check."""
ROOM = 13
"""Pixels that one line of text needs."""


@dataclass(frozen=True)
class Mark:
    """One run in the chart."""

    x: float
    y: float | None
    """None where nothing was estimated."""
    low: float
    high: float
    """Ends of the bounds, from the upper edge."""
    verdict: str
    after: bool
    """Judged after the fact: another policy than the sealed one gave the verdict."""
    said: str


@dataclass(frozen=True)
class Label:
    """A value at the left edge."""

    y: float
    text: str
    strong: bool


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws, in pixels."""

    metric: str
    """In words."""
    on: str
    verdict: str
    """Of the latest run."""
    after: bool
    """Whether that one was judged after the fact."""
    latest: str
    label: str
    """What a screen reader says."""
    marks: list[Mark]
    trend: str
    """Points of the line through the estimates."""
    margin: str
    """Points of the margin's line, which has a step where a policy changed it."""
    equal: float | None
    """Height of "no loss"; None where the metric has no such value."""
    labels: list[Label]
    dates: list[str]
    """Of the first and of the latest run."""
    left_out: int
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    floor: int = HEIGHT - BOTTOM


def chart(line: CheckHistory) -> Chart:
    """Draw one check."""
    points = line.points[-MOST_POINTS:]
    checks = [check for _, check in points]
    last = checks[-1]
    equal = no_loss(last)
    low, high = _range(checks, equal)

    def y(value: float) -> float:
        inner = HEIGHT - TOP - BOTTOM
        return round(TOP + inner * (1 - (min(max(value, low), high) - low) / (high - low)), 1)

    step = (WIDTH - LEFT - RIGHT) / len(points)
    xs = [round(LEFT + step * (place + 0.5), 1) for place in range(len(points))]
    marks = [
        Mark(
            x=x,
            y=None if check.estimate is None else y(check.estimate),
            low=y(low if check.lower is None else check.lower),
            high=y(high if check.upper is None else check.upper),
            verdict=check.verdict,
            after=run.verdict.after_the_fact,
            said=_said(run, check),
        )
        for x, (run, check) in zip(xs, points, strict=True)
    ]
    edges = [(x - step / 2, x + step / 2, y(check.margin)) for x, check in zip(xs, checks, strict=True)]
    return Chart(
        metric=in_words(last.metric),
        on=last.on,
        verdict=last.verdict,
        after=points[-1][0].verdict.after_the_fact,
        latest=_estimate(last),
        label=_label(line, last),
        marks=marks,
        trend=" ".join(f"{mark.x:g},{mark.y:g}" for mark in marks if mark.y is not None),
        margin=" ".join(f"{start:g},{height:g} {end:g},{height:g}" for start, end, height in edges),
        equal=None if equal is None else y(equal),
        labels=_labels(last, y, equal),
        dates=list(dict.fromkeys([_day(points[0][0]), _day(points[-1][0])])),
        left_out=len(line.points) - len(points),
    )


def _range(checks: list[CheckResult], equal: float | None) -> tuple[float, float]:
    """What the chart spans: everything, but bounds no further than three times what estimates and margins span."""
    core = [v for c in checks for v in (equal, c.margin, c.estimate) if v is not None]
    low, high = min(core), max(core)
    far = (high - low) or abs(high) or 1.0
    low = min([low, *(max(c.lower, low - far) for c in checks if c.lower is not None)])
    high = max([high, *(min(c.upper, high + far) for c in checks if c.upper is not None)])
    room = 0.04 * ((high - low) or 1.0)
    return low - room, high + room


def _labels(last: CheckResult, y: Callable[[float], float], equal: float | None) -> list[Label]:
    margin = y(last.margin)
    found = [Label(margin, bare(last.unit, last.margin), True)]
    if equal is not None and abs(margin - y(equal)) >= ROOM:
        found.append(Label(y(equal), bare(last.unit, equal), False))
    return found


def _estimate(check: CheckResult) -> str:
    return "not estimated" if check.estimate is None else quantity(check.unit, check.estimate)


def _said(run: Run, check: CheckResult) -> str:
    bounds = f"{bare(check.unit, check.lower)} to {bare(check.unit, check.upper)} {unit_word(check.unit)}".strip()
    margin = f"{'at least' if check.margin_kind == 'min' else 'at most'} {quantity(check.unit, check.margin)}"
    after = " (judged after the fact)" if run.verdict.after_the_fact else ""
    verdict = f"{check.verdict}{after}, {_estimate(check)}"
    return f"{run.when}, {run.name}: {verdict}, bounds {bounds}, margin {margin}, n {check.n:,}"


def _label(line: CheckHistory, last: CheckResult) -> str:
    changes = [a.verdict != b.verdict for (_, a), (_, b) in zip(line.points, line.points[1:], strict=False)]
    turned = f"; the verdict changed {plural(sum(changes), 'time')}" if any(changes) else ""
    what = f"{in_words(last.metric)} on {last.on} in {plural(len(line.points), 'run')}"
    return f"{what}{turned}. Latest: {_said(*line.points[-1])}."


def _day(run: Run) -> str:
    try:
        found = datetime.fromisoformat(run.manifest.created)
    except ValueError:
        return ""
    return f"{found.day} {found:%b %Y}"
