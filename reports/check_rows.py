"""The table of checks: each result in words, and its interval placed on a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contract.metrics import METRICS
from harness.judging.results import CheckResult, TaskResult
from harness.judging.run_level import fails_alone
from reports.text import bare, number, percent, plural, quantity, unit_word

BAR_LOW, BAR_HIGH = -1.0, 2.0
"""Range of a bar, in margins: the margin lies at 1, so at the same place in every row."""
RANK = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


@dataclass(frozen=True)
class Bar:
    """An interval drawn on its own margin's scale: positions in percent of the width."""

    start: float
    end: float
    estimate: float | None
    """None when it lies outside the range."""
    equal: float | None
    """Where a candidate like its reference lies; None when that is nowhere, outside, or the margin itself."""
    cut_left: bool
    cut_right: bool


@dataclass(frozen=True)
class CheckRow:
    """One check, worded."""

    result: CheckResult
    bar: Bar | None
    estimate: str
    interval: str
    margin: str
    """With the side that is allowed: "≤ 1.0"."""
    unit: str
    """Of all three; empty for ratios."""
    noise: str
    """The noise floor; empty where none was measured."""
    noise_counts: str
    """What it rests on, and its bounds."""
    counts: str
    """b / c / D, or a dash where pairs have no direction."""
    power: str
    needed: str
    """About how many items would decide; empty unless that is known."""
    unusable: list[str]
    remarks: list[str]
    """What the verdict alone does not say: where a sequential test ended, a FAIL that Holm's correction takes back,
    what gaps may hide."""
    tasks: list[str]
    """Of a pooled check: each task by itself, those that come nearest to failing first."""

    @property
    def label(self) -> str:
        """Short name for figures."""
        return f"{self.result.metric} · {self.result.on}"


def check_rows(results: Sequence[CheckResult]) -> list[CheckRow]:
    """The checks, those closest to failing first."""
    blocking = sum(not result.advisory for result in results)
    return [_check_row(result, blocking) for result in sorted(results, key=_closeness)]


def _closeness(result: CheckResult) -> tuple[int, float]:
    """Verdict, then how much of its margin the deciding bound leaves; a check without that bound comes first."""
    at_least = result.margin_kind == "min"
    bound = result.lower if at_least else result.upper
    if bound is None:
        return RANK[result.verdict], float("-inf")
    room = bound - result.margin if at_least else result.margin - bound
    return RANK[result.verdict], room / (_span(result) or 1.0)


def _check_row(result: CheckResult, checks: int) -> CheckRow:
    directed = None not in (result.b, result.c, result.discordant)
    unusable = {
        "missing": result.missing,
        "without a value": result.errored,
        "unequal": result.unequal,
        "foreign": result.foreign,
    }
    needed = result.items_needed if result.verdict == "INCONCLUSIVE" else None
    there = result.estimate is not None
    return CheckRow(
        result=result,
        bar=_bar(result),
        estimate=bare(result.unit, result.estimate) if there else "–",
        interval=f"{bare(result.unit, result.lower)} to {bare(result.unit, result.upper)}" if there else "–",
        margin=f"{'≥' if result.margin_kind == 'min' else '≤'} {bare(result.unit, result.margin)}",
        unit=unit_word(result.unit),
        noise=_noise(result),
        noise_counts=_noise_counts(result),
        counts=f"{number(result.b)} / {number(result.c)} / {number(result.discordant)}" if directed else "–",
        power=percent(result.power, 0),
        needed="" if needed is None else f"≈\u00a0{needed:,} would decide",
        unusable=[f"{count:,} {word}" for word, count in unusable.items() if count],
        remarks=_remarks(result, checks),
        tasks=[_task(result, task) for task in sorted(result.tasks, key=lambda task: task.p_fail)],
    )


def _task(result: CheckResult, task: TaskResult) -> str:
    bounds = f"{bare(result.unit, task.lower)} to {bare(result.unit, task.upper)}"
    return f"{task.task}: {bare(result.unit, task.estimate)} ({bounds}), n {task.n:,}, {task.verdict} alone"


def _noise(result: CheckResult) -> str:
    if result.noise is None:
        return ""
    before = "above noise of" if result.margin_kind == "max_over_noise" else "noise floor"
    return f"{before} {quantity(result.unit, result.noise.estimate)}"


def _noise_counts(result: CheckResult) -> str:
    noise = result.noise
    if noise is None:
        return ""
    count = f"n {noise.n:,}" if noise.discordant is None else f"D {noise.discordant:,} of {noise.n:,}"
    return f"{count}, {bare(result.unit, noise.lower)} to {bare(result.unit, noise.upper)}"


def _remarks(result: CheckResult, checks: int) -> list[str]:
    said = ["advisory: no say in the run's verdict"] if result.advisory else []
    if result.approximate:
        said.append("approximate bounds: outside of the run's error rates")
    gaps = result.missing + result.errored + result.unequal
    if gaps and (result.lower_with_gaps is not None or result.upper_with_gaps is not None):
        low, high = (bare(result.unit, v) for v in (result.lower_with_gaps, result.upper_with_gaps))
        said.append(f"with {plural(gaps, 'gap')} filled for and against it: {low} to {high}")
    broken = [task.task for task in result.tasks if task.after_holm]
    if broken:
        among = f"among {plural(len(result.tasks), 'task')}"
        said.append(f"by more than chance {among} breaks the margin (Holm's correction): {', '.join(broken)}")
    if result.stop and result.planned:
        decided = "not decided" if result.verdict == "INCONCLUSIVE" else "decided"
        said.append(f"{decided} after {result.n:,} of {plural(result.planned, 'item')}")
    if result.verdict == "FAIL" and result.after_holm is False:
        said.append(fails_alone(result, checks))
    return said


def no_loss(result: CheckResult) -> float | None:
    """The value of a candidate that is like its reference; None where there is none, or the metric is not known."""
    metric = METRICS.get(result.metric)
    return metric.neutral if metric else None


def _span(result: CheckResult) -> float:
    """How far the margin lies from no loss, or else from zero."""
    return abs(result.margin - (no_loss(result) or 0.0))


def _bar(result: CheckResult) -> Bar | None:
    if result.estimate is None:
        return None
    margin, equal = result.margin, no_loss(result)
    known = [abs(v - margin) for v in (result.estimate, result.lower, result.upper) if v is not None]
    scale = _span(result) or max(known) or 1.0
    if result.margin_kind == "min":
        scale *= 2  # what is good lies right of the margin, where there is less room

    def place(value: float | None, without: float) -> float:
        in_margins = without if value is None else 1 + (value - margin) / scale
        return 100 * (min(max(in_margins, BAR_LOW), BAR_HIGH) - BAR_LOW) / (BAR_HIGH - BAR_LOW)

    start, end = place(result.lower, BAR_LOW), place(result.upper, BAR_HIGH)
    middle, zero = place(result.estimate, 0.0), place(equal, BAR_LOW)
    return Bar(
        start=start,
        end=end,
        estimate=middle if 0 < middle < 100 else None,
        equal=zero if margin != equal and 0 < zero < 100 else None,
        cut_left=start <= 0,
        cut_right=end >= 100,
    )
