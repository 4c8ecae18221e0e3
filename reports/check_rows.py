"""The table of checks: each result in words, and its interval placed on a bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.contract.metrics import METRICS
from harness.judging.results import CheckResult, TaskResult
from harness.judging.run_level import fails_alone
from reports.metric_words import both_values, in_words, recovered
from reports.text import bare, number, percent, plural, quantity, unit_word
from reports.what_helps import reason_of

MARGIN_AT = 200 / 3
"""Where the margin lies on a bar, in percent of its width: at the same place in every row."""
MIN_ITEMS = 20
"""Of fewer items an interval says nothing: without a single loss it still reaches to 14 points, 1 - 0.05^(1/20)."""
RANK = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


@dataclass(frozen=True)
class Bar:
    """An interval drawn in units of its own margin, or in larger ones so that all of it is seen: positions in percent
    of the width."""

    start: float
    end: float
    estimate: float
    equal: float | None
    """Where a candidate like its reference lies; None when that is nowhere, outside, or the margin itself."""
    open_left: bool
    """There is no lower bound."""
    open_right: bool


@dataclass(frozen=True)
class CheckRow:
    """One check, worded."""

    result: CheckResult
    title: str
    """What is measured, in words: "KL from the reference"."""
    bar: Bar | None
    both: str
    """What each model has by itself: "83.3 → 70.8 %"; empty where only their distance is measured."""
    recovery: str
    """Share of the reference's value that the candidate has; empty where more is not better."""
    estimate: str
    interval: str
    margin: str
    """With the side that is allowed: "≤ 1.0"."""
    unit: str
    """Of all three; empty for ratios."""
    noise: str
    """The noise floor; empty where none was measured, or on too few items to say something."""
    noise_counts: str
    """What it rests on, and its bounds."""
    counts: str
    """b / c / D, or a dash where pairs have no direction."""
    power: str
    reason: str
    """Why, with about how many items would decide, or what would where there are not so many."""
    unusable: list[str]
    remarks: list[str]
    """What the verdict alone does not say: where a sequential test ended, a FAIL that Holm's correction takes back,
    what gaps may hide."""
    tasks: list[str]
    """Of a pooled check: each task by itself, those that come nearest to failing first."""

    @property
    def label(self) -> str:
        """Short name for figures."""
        return f"{self.title} · {self.result.on}"

    @property
    def value(self) -> str:
        """The estimate with its unit."""
        return f"{self.estimate} {self.unit}".strip() if self.result.estimate is not None else self.estimate


def check_rows(results: Sequence[CheckResult], there: Callable[[str], int | None] = lambda on: None) -> list[CheckRow]:
    """The checks, those closest to failing first; `there` says how many items a check's tasks have, where known."""
    blocking = sum(not result.advisory for result in results)
    return [check_row(result, blocking, there(result.on)) for result in sorted(results, key=_closeness)]


def _closeness(result: CheckResult) -> tuple[int, float]:
    """Verdict, then how much of its margin the deciding bound leaves; a check without that bound comes first."""
    at_least = result.margin_kind == "min"
    bound = result.lower if at_least else result.upper
    if bound is None:
        return RANK[result.verdict], float("-inf")
    room = bound - result.margin if at_least else result.margin - bound
    return RANK[result.verdict], room / (_span(result) or 1.0)


def check_row(result: CheckResult, checks: int, most: int | None = None) -> CheckRow:
    """One check in words; `checks` is how many may fail the run, `most` how many items its tasks have."""
    directed = None not in (result.b, result.c, result.discordant)
    unusable = {
        "missing": result.missing,
        "without a value": result.errored,
        "unequal": result.unequal,
        "foreign": result.foreign,
    }
    there = result.estimate is not None
    return CheckRow(
        result=result,
        title=in_words(result.metric),
        bar=_bar(result),
        both=both_values(result),
        recovery=recovered(result.metric, result),
        estimate=bare(result.unit, result.estimate) if there else "–",
        interval=f"{bare(result.unit, result.lower)} to {bare(result.unit, result.upper)}" if there else "–",
        margin=f"{'≥' if result.margin_kind == 'min' else '≤'} {bare(result.unit, result.margin)}",
        unit=unit_word(result.unit),
        noise=_noise(result),
        noise_counts=_noise_counts(result),
        counts=f"{number(result.b)} / {number(result.c)} / {number(result.discordant)}" if directed else "–",
        power=percent(result.power, 0),
        reason=reason_of(result, most),
        unusable=[f"{count:,} {word}" for word, count in unusable.items() if count],
        remarks=_remarks(result, checks),
        tasks=[_task(result, task) for task in sorted(result.tasks, key=lambda task: task.p_fail)],
    )


def task_interval(result: CheckResult, task: TaskResult) -> str:
    """The bounds of one task of a pooled check, without their unit."""
    return f"{bare(result.unit, task.lower)} to {bare(result.unit, task.upper)}"


def telling(result: CheckResult) -> list[TaskResult]:
    """The tasks of a pooled check that say something by themselves: with enough items, or by breaking the margin."""
    return [task for task in result.tasks if task.n >= MIN_ITEMS or task.after_holm]


def too_few(result: CheckResult) -> str:
    """Which tasks of a pooled check have so few items that they say nothing by themselves, in words; empty: none."""
    counts = [task.n for task in result.tasks if task not in telling(result)]
    if not counts:
        return ""
    each = plural(max(counts), "item")
    if min(counts) < max(counts):
        each = f"{min(counts):,} to {each}"
    return f"{plural(len(counts), 'task')} of {each} each"


def _task(result: CheckResult, task: TaskResult) -> str:
    both, estimate = both_values(result, task), bare(result.unit, task.estimate)
    said = f"{both}, {estimate}" if both else estimate
    return f"{task.task}: {said} ({task_interval(result, task)}), n {task.n:,}, {task.verdict} alone"


def _noise_tells(result: CheckResult) -> bool:
    """Whether a noise floor was measured on enough items to say something, or is a part of the check."""
    return result.noise is not None and (result.noise.n >= MIN_ITEMS or result.margin_kind == "max_over_noise")


def _noise(result: CheckResult) -> str:
    if not _noise_tells(result) or result.noise is None:
        return ""
    before = "above noise of" if result.margin_kind == "max_over_noise" else "noise floor"
    return f"{before} {quantity(result.unit, result.noise.estimate)}"


def _noise_counts(result: CheckResult) -> str:
    noise = result.noise
    if not _noise_tells(result) or noise is None:
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
    known = [v - margin for v in (result.estimate, result.lower, result.upper) if v is not None]
    # One unit lies right of the margin, two lie left of it; nothing that is known is drawn beyond.
    unit = max(_span(result) * (2 if result.margin_kind == "min" else 1), *known, *(-v / 2 for v in known)) or 1.0

    def place(value: float) -> float:
        return MARGIN_AT + (value - margin) / unit * (100 - MARGIN_AT)

    zero = None if equal is None or equal == margin else place(equal)
    return Bar(
        start=0.0 if result.lower is None else place(result.lower),
        end=100.0 if result.upper is None else place(result.upper),
        estimate=place(result.estimate),
        equal=zero if zero is not None and 0 < zero < 100 else None,
        open_left=result.lower is None,
        open_right=result.upper is None,
    )
