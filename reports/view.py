"""The view model: everything a report prints, from a run's files. It words and sorts; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harness.policy import SealedPolicy
from harness.runfolder import Manifest
from harness.samples import Item, Sample
from harness.verdict import EXIT_CODES, CheckResult, Verdict
from reports.pairs import PairsView, StoredPairs, collect, show_pairs
from reports.provenance import ModelView, Provenance, model_views, provenance, size_ratio
from reports.tables import SuiteView, suite_views
from reports.text import duration, number, plural, quantity, unit

NOT_JUDGED = "NOT JUDGED"
MEANING = {
    "PASS": "May be published.",
    "FAIL": "Do not publish.",
    "INCONCLUSIVE": "Not decided, so not to be published.",
    NOT_JUDGED: "No decision is stored, so not to be published.",
}
BAR_LOW, BAR_HIGH = -1.0, 2.0
"""Range of an interval bar, in margins: zero and the margin lie at the same place in every row."""


@dataclass(frozen=True)
class Bar:
    """An interval drawn on its own margin's scale: positions in percent of the width."""

    start: float
    end: float
    estimate: float | None
    """None when it lies outside the range."""
    zero: float | None
    """Where no loss lies; None when the margin itself is zero."""
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
    unit: str
    counts: str
    """b / c / D, or a dash where pairs have no direction."""
    unusable: list[str]

    @property
    def label(self) -> str:
        """Short name for figures."""
        return f"{self.result.metric} · {self.result.on}"


@dataclass(frozen=True)
class StageView:
    """Where some of the time went."""

    name: str
    text: str
    share: float
    """Of the longest stage, 0 to 1."""


@dataclass(frozen=True)
class Report:
    """One run, ready to print."""

    outcome: str
    """PASS, FAIL, INCONCLUSIVE or NOT JUDGED."""
    sentence: str
    meaning: str
    exit_code: int | None
    run_id: str
    created: str
    command: str
    policy_name: str
    policy_sha256: str
    policy_text: str | None
    sealed_sha256: str
    after_the_fact: bool
    confidence: float | None
    """The one that all checks share, None when they differ."""
    models: list[ModelView]
    size_ratio: float | None
    checks: list[CheckRow]
    suites: list[SuiteView]
    pairs: PairsView
    provenance: Provenance
    stages: list[StageView]
    total_time: str
    seconds: float
    sampling: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
    """What is missing or odd, in words; shown near the top."""

    @property
    def tally(self) -> list[tuple[str, int]]:
        """Number of checks by verdict, the worst first; only verdicts that occur."""
        counts = [(name, sum(row.result.verdict == name for row in self.checks)) for name in _RANK]
        return [(name, count) for name, count in counts if count]

    def model(self, role: str) -> ModelView | None:
        return next((model for model in self.models if model.role == role), None)


_RANK = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


def build(
    manifest: Manifest,
    sealed: SealedPolicy | None,
    verdict: Verdict | None,
    samples: Iterable[Sample],
    items: Callable[[str], Iterable[Item]],
    notes: Iterable[str] = (),
    max_pairs: int = 300,
) -> Report:
    """Make the view of one run.

    `samples` is gone through twice (numbers, then the texts of the pairs on show) and never held as a whole.
    `items` gives a suite's items. `notes` are problems met while reading, to be shown with those found here.
    """
    stored = collect(samples)
    policy = sealed.policy if sealed else None
    margins = verdict.checks if verdict else policy.checks if policy else []
    kl_margin = next((check.margin for check in margins if check.metric == "kl_mean"), None)
    confidences = {check.confidence for check in verdict.checks} if verdict else set()
    suites = suite_views(stored.pairs, manifest.planned, policy.suites if policy else (), kl_margin)
    checks = check_rows(verdict)
    sources = provenance(manifest)
    seconds = sum(stage.seconds for stage in manifest.stages)
    outcome: str = verdict.verdict if verdict else NOT_JUDGED
    return Report(
        outcome=outcome,
        sentence=_sentence(verdict, checks, sources),
        meaning=MEANING[outcome],
        exit_code=EXIT_CODES[verdict.verdict] if verdict else None,
        run_id=manifest.run_id,
        created=_date(manifest.created),
        command=sources.gate_command,
        policy_name=verdict.policy_name if verdict else manifest.policy_name,
        policy_sha256=verdict.policy_sha256 if verdict else manifest.policy_sha256,
        policy_text=sealed.text if sealed else None,
        sealed_sha256=verdict.sealed_policy_sha256 if verdict else manifest.policy_sha256,
        after_the_fact=bool(verdict and verdict.after_the_fact),
        confidence=confidences.pop() if len(confidences) == 1 else None,
        models=model_views(manifest),
        size_ratio=size_ratio(manifest),
        checks=checks,
        suites=suites,
        pairs=show_pairs(stored.pairs, samples, items, max_pairs),
        provenance=sources,
        stages=_stages(manifest),
        total_time=duration(seconds) if manifest.stages else "not recorded",
        seconds=seconds,
        sampling=[(k, str(v)) for k, v in policy.sampling.model_dump().items()] if policy else [],
        notes=[*_notes(manifest, verdict, stored, suites, sources), *notes],
    )


def check_rows(verdict: Verdict | None) -> list[CheckRow]:
    """The checks, those closest to failing first."""
    results = verdict.checks if verdict else []
    return [_check_row(result) for result in sorted(results, key=_closeness)]


def _closeness(result: CheckResult) -> tuple[int, float]:
    """Verdict, then how much of its margin the upper bound leaves; a check without a bound comes first."""
    if result.upper is None:
        return _RANK[result.verdict], float("-inf")
    return _RANK[result.verdict], (result.margin - result.upper) / (result.margin or 1.0)


def _check_row(result: CheckResult) -> CheckRow:
    kind = (result.metric, result.margin_kind)
    directed = None not in (result.b, result.c, result.discordant)
    unusable = {"missing": result.missing, "errored": result.errored, "unequal": result.unequal}
    interval = f"{quantity(*kind, result.lower)} to {quantity(*kind, result.upper)}"
    return CheckRow(
        result=result,
        bar=_bar(result),
        estimate="–" if result.estimate is None else quantity(*kind, result.estimate),
        interval="–" if result.estimate is None else interval,
        margin=quantity(*kind, result.margin).lstrip("+"),
        unit=unit(*kind),
        counts=f"{number(result.b)} / {number(result.c)} / {number(result.discordant)}" if directed else "–",
        unusable=[f"{count:,} {word}" for word, count in unusable.items() if count],
    )


def _bar(result: CheckResult) -> Bar | None:
    if result.estimate is None:
        return None
    known = [abs(v) for v in (result.estimate, result.lower, result.upper) if v is not None]
    scale = result.margin or max(known) or 1.0

    def place(value: float | None, without: float) -> float:
        # A margin of zero has no scale of its own: values keep their side of it.
        in_margins = without if value is None else value / scale + (0.0 if result.margin else 1.0)
        return 100 * (min(max(in_margins, BAR_LOW), BAR_HIGH) - BAR_LOW) / (BAR_HIGH - BAR_LOW)

    start, end, middle = (
        place(result.lower, BAR_LOW),
        place(result.upper, BAR_HIGH),
        place(result.estimate, 0.0),
    )
    return Bar(
        start=start,
        end=end,
        estimate=middle if 0 < middle < 100 else None,
        zero=place(0.0, 0.0) if result.margin else None,
        cut_left=start <= 0,
        cut_right=end >= 100,
    )


def _sentence(verdict: Verdict | None, checks: list[CheckRow], sources: Provenance) -> str:
    """Why, in one sentence: the count, and the check that is worst."""
    if verdict is None:
        if sources.forbidden:
            names = ", ".join(sources.forbidden[:4])
            return f"The servers differ in {names}, which the policy does not allow: they cannot be compared."
        return "verdict.json is not there: the run did not finish, or was never judged (quantgate judge RUN)."
    if not checks:
        return "The verdict holds no checks: nothing was asked of this model."
    if verdict.verdict == "PASS":
        return f"All {plural(len(checks), 'check')} hold." if len(checks) > 1 else "The one check holds."
    worst = [row for row in checks if row.result.verdict == verdict.verdict]
    if not worst:
        return verdict.reason
    does = {"FAIL": "fails" if len(worst) == 1 else "fail", "INCONCLUSIVE": "cannot be decided"}[verdict.verdict]
    which = ":" if len(worst) == 1 else "; closest to failing:" if verdict.verdict == "INCONCLUSIVE" else "; worst:"
    first = worst[0].result
    return f"{len(worst)} of {plural(len(checks), 'check')} {does}{which} “{first.name}” ({first.reason})."


def _notes(
    manifest: Manifest,
    verdict: Verdict | None,
    stored: StoredPairs,
    suites: list[SuiteView],
    sources: Provenance,
) -> list[str]:
    notes = []
    if verdict is None:
        notes.append("There is no verdict: nothing below was judged.")
    elif not verdict.checks:
        notes.append("The verdict holds no checks.")
    if sources.forbidden:
        notes.append(f"The servers differ in what the policy does not allow: {', '.join(sources.forbidden)}.")
    for role in ("reference", "candidate"):
        if role not in manifest.models:
            notes.append(f"The manifest says nothing about the {role} model.")
        if role not in manifest.servers:
            notes.append(f"The manifest says nothing about the {role}'s server.")
    if stored.duplicates:
        many = plural(stored.duplicates, "sample")
        notes.append(f"{many} with a key that was there before: the first one counts here.")
    if not stored.pairs:
        return [*notes, "There are no samples."]
    return notes + [note for note in map(_suite_note, suites) if note]


def _suite_note(suite: SuiteView) -> str | None:
    """What one suite lacks, or None when it is whole."""
    lacks = suite.coverage
    if suite.total is None and suite.divergence is None:
        return f"{suite.name}: no samples, of {plural(lacks.planned, 'planned pair')}."
    without = suite.divergence.without_metrics if suite.divergence else 0
    parts = [
        (lacks.missing, f"{plural(lacks.missing, 'pair')} missing of {lacks.planned:,} planned"),
        (lacks.errored, f"{plural(lacks.errored, 'pair')} with an error"),
        (lacks.unequal, f"{plural(lacks.unequal, 'pair')} with different prompts"),
        (lacks.unscored, f"{plural(lacks.unscored, 'pair')} without a score"),
        (without, f"{plural(without, 'document')} without divergence metrics"),
    ]
    said = [text for count, text in parts if count]
    return f"{suite.name}: {'; '.join(said)}." if said else None


def _stages(manifest: Manifest) -> list[StageView]:
    """Stages by name in the order in which they first ran; a resumed run's are added up."""
    seconds: dict[str, float] = {}
    for stage in manifest.stages:
        seconds[stage.name] = seconds.get(stage.name, 0.0) + max(stage.seconds, 0.0)
    longest = max(seconds.values(), default=0.0) or 1.0
    return [StageView(name, duration(spent), spent / longest) for name, spent in seconds.items()]


def _date(created: str) -> str:
    """An ISO date as a person reads it, in UTC; anything else as it is."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M}{' UTC' if moment.tzinfo else ''}"
