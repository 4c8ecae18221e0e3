"""The view model: everything a report prints, from a run's files. It words and sorts; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.contract.policy import SealedPolicy
from harness.contract.samples import Item, Role, Sample
from harness.judging.results import CheckResult
from harness.judging.verdict import EXIT_CODES, Verdict
from harness.runs.manifest import Manifest
from harness.runs.positions import PositionSummary
from reports.check_rows import RANK, CheckRow, check_rows
from reports.cost import costs
from reports.provenance import ModelView, Provenance, model_views, provenance, size_ratio
from reports.remarks import NOT_THERE, Banner, banners, notes, remarks
from reports.samples.index import PairsView, show_pairs
from reports.samples.pairs import collect, planned_pairs
from reports.suite_tables.footprint import fits_on
from reports.suite_view import SuiteExtras, SuiteView, suite_views
from reports.text import date, duration, one_line, plural, worded
from reports.what_helps import items_there

NOT_JUDGED = "NOT JUDGED"
NEAREST = 3
"""Checks that stand on the first screen."""
MEANING = {
    "PASS": "May be published.",
    "FAIL": "Do not publish.",
    "INCONCLUSIVE": "Not decided, so not to be published.",
    NOT_JUDGED: "No decision that counts is stored, so not to be published.",
}
AFTER_THE_FACT = "May be published by the policy it was judged by, which is not the sealed one."


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
    """Why, with the check that is worst."""
    summary: str
    """Why, in counts of checks; the checks themselves stand beside it."""
    meaning: str
    exit_code: int | None
    run_id: str
    created: str
    day: str
    """The same, as YYYY-MM-DD."""
    command: str
    policy_name: str
    policy_sha256: str
    policy_text: str | None
    """The sealed one."""
    judged_by_text: str | None
    """The other policy, when it was judged after the fact with one."""
    sealed_sha256: str
    after_the_fact: bool
    confidence: float | None
    """The one that all checks share, None when they differ."""
    models: list[ModelView]
    size_ratio: float | None
    fits: dict[str, str]
    """By role the GPUs that the model fits on; empty where that was not measured."""
    costs: list[tuple[str, str]]
    """What the run took: (what, how much)."""
    checks: list[CheckRow]
    suites: list[SuiteView]
    pairs: PairsView
    provenance: Provenance
    stages: list[StageView]
    total_time: str
    seconds: float
    sampling: list[tuple[str, str]]
    settings: Mapping[str, Mapping[str, Any]]
    """Of each suite, by the sealed policy; empty where that cannot be read."""
    banners: list[Banner]
    """What changes how the verdict is to be read; before the numbers in every report."""
    remarks: list[str]
    """How the run was made, where that is not as always."""
    notes: list[str]
    """What is missing or odd, in words; shown near the top."""

    @property
    def headline(self) -> str:
        """The outcome as no report may print it without saying by which policy."""
        return f"{self.outcome}, judged after the fact" if self.after_the_fact else self.outcome

    @property
    def tally(self) -> list[tuple[str, int]]:
        """Number of checks by verdict, the worst first; only verdicts that occur."""
        counts = [(name, sum(row.result.verdict == name for row in self.checks)) for name in RANK]
        return [(name, count) for name, count in counts if count]

    @property
    def nearest(self) -> list[CheckRow]:
        """The checks that fail, or come nearest to it."""
        return self.checks[:NEAREST]

    def model(self, role: str) -> ModelView | None:
        return next((model for model in self.models if model.role == role), None)


def build(
    manifest: Manifest,
    sealed: SealedPolicy | None,
    verdict: Verdict | None,
    samples: Iterable[Sample],
    items: Callable[[str], Iterable[Item]],
    not_judged: str = NOT_THERE,
    judged_by: SealedPolicy | None = None,
    positions: Mapping[Role, PositionSummary] = MappingProxyType({}),
    edited: Sequence[str] = (),
) -> Report:
    """Make the view of one run.

    `samples` is gone through once and never held as a whole.
    `items` gives a suite's items. `not_judged` says why there is no verdict. `judged_by` is
    the policy of a verdict after the fact. `positions` is what the divergence suite's files hold, by role.
    `edited` are the files of samples that are no longer what the run wrote.
    """
    policy = sealed.policy if sealed else None
    languages = {suite: settings.get("language", "") for suite, settings in policy.suites.items()} if policy else {}
    asked = dict.fromkeys(name.split("/")[0] for name in manifest.planned)
    stored = collect(samples, planned_pairs(asked, items, languages))
    margins = verdict.checks if verdict else policy.checks if policy else []
    kl_margin = next((c.margin for c in margins if (c.metric, c.margin_kind) == ("kl_mean", "max")), None)
    confidences = {check.confidence for check in verdict.checks} if verdict else set()
    results = verdict.checks if verdict else []
    stopped = {task for task in manifest.planned if _stopped(task, results)}
    extras = SuiteExtras(positions, manifest.speculative, kl_margin)
    suites = suite_views(stored, manifest.planned, policy.suites if policy else (), extras, stopped)
    settings = policy.suites if policy else {}
    checks = check_rows(results, lambda on: items_there(on, manifest.planned, settings))
    sources = provenance(manifest, policy.allow_different if policy else ())
    seconds = sum(stage.seconds for stage in manifest.stages)
    outcome: str = verdict.verdict if verdict else NOT_JUDGED
    after = bool(verdict and verdict.after_the_fact)
    return Report(
        outcome=outcome,
        sentence=_sentence(verdict, checks, sources, not_judged),
        summary=_summary(verdict, checks) or _sentence(verdict, checks, sources, not_judged),
        meaning=AFTER_THE_FACT if outcome == "PASS" and after else MEANING[outcome],
        exit_code=EXIT_CODES[verdict.verdict] if verdict else None,
        run_id=manifest.run_id,
        created=date(manifest.created),
        day=one_line(manifest.created, 100)[:10],
        command=sources.gate_command,
        policy_name=verdict.policy_name if verdict else manifest.policy_name,
        policy_sha256=verdict.policy_sha256 if verdict else manifest.policy_sha256,
        policy_text=sealed.text if sealed else None,
        judged_by_text=judged_by.text if judged_by else None,
        sealed_sha256=verdict.sealed_policy_sha256 if verdict else manifest.policy_sha256,
        after_the_fact=after,
        confidence=confidences.pop() if len(confidences) == 1 else None,
        models=model_views(manifest),
        size_ratio=size_ratio(manifest),
        fits=fits_on(stored),
        costs=costs(manifest, stored),
        checks=checks,
        suites=suites,
        pairs=show_pairs(stored.pairs),
        provenance=sources,
        stages=_stages(manifest),
        total_time=duration(seconds) if manifest.stages else "not recorded",
        seconds=seconds,
        sampling=[(k, str(v)) for k, v in policy.sampling.model_dump().items()] if policy else [],
        settings=settings,
        banners=banners(manifest, verdict, verdict.foreign if verdict else stored.foreign, edited),
        remarks=remarks(manifest, policy, stored),
        notes=notes(manifest, policy, verdict, stored, suites, sources),
    )


def _stopped(task: str, results: Iterable[CheckResult]) -> bool:
    """Whether every check of a task was decided before all of its items were used: the rest need not be there."""
    of_task = [r for r in results if r.on in (task, task.partition("/")[0])]
    early = [r.stop and r.n + r.missing + r.errored + r.unequal < r.planned for r in of_task]
    return bool(early) and all(early)


def _sentence(verdict: Verdict | None, checks: list[CheckRow], sources: Provenance, not_judged: str) -> str:
    """Why, in one sentence: the count, and the check that is worst."""
    if verdict is None:
        if sources.forbidden:
            names = ", ".join(sources.forbidden[:4])
            return f"The servers differ in {names}, which the policy does not allow: they cannot be compared."
        return not_judged
    if not checks:
        return "The verdict holds no checks: nothing was asked of this model."
    worst = [row for row in checks if row.result.verdict == verdict.verdict]
    if verdict.verdict == "PASS" and worst:
        return _summary(verdict, checks) or "The verdict holds advisory checks alone: nothing blocks."
    if not worst:
        return worded(f"{verdict.reason[:1].upper()}{verdict.reason[1:]}.")
    does = {"FAIL": "fails" if len(worst) == 1 else "fail", "INCONCLUSIVE": "cannot be decided"}[verdict.verdict]
    which = ":" if len(worst) == 1 else "; closest to failing:" if verdict.verdict == "INCONCLUSIVE" else "; worst:"
    first, said = worst[0], f"{len(worst)} of {plural(len(checks), 'check')} {does}{which}"
    if verdict.verdict == "INCONCLUSIVE" and checks[0].result.verdict == "FAIL":  # by itself, not in the run
        first, said = checks[0], f"{_summary(verdict, checks)[:-1]}; worst:"
    return f"{said} “{first.result.name}” ({first.reason})."


def _summary(verdict: Verdict | None, checks: list[CheckRow]) -> str:
    """How many checks ended how; empty where no check decides, so that there is another reason."""
    blocking = [row.result for row in checks if not row.result.advisory]
    if verdict is None or not any(result.verdict == verdict.verdict for result in blocking):
        return ""
    advisory = len(checks) - len(blocking)
    more = f"; {advisory} more {'is' if advisory == 1 else 'are'} advisory" if advisory else ""
    if verdict.verdict == "PASS":
        return (
            f"All {plural(len(blocking), 'check')} hold" if len(blocking) > 1 else "The one check holds"
        ) + f"{more}."
    ended = [(str(result.verdict), result.verdict == "FAIL" and not result.after_holm) for result in blocking]
    words = {
        ("FAIL", False): ("fails", "fail"),
        ("FAIL", True): ("fails by itself, which may be chance", "fail by themselves, which may be chance"),
        ("INCONCLUSIVE", False): ("cannot be decided",) * 2,
        ("PASS", False): ("holds", "hold"),
    }
    counts = [f"{n} {one if n == 1 else many}" for end, (one, many) in words.items() if (n := ended.count(end))]
    return f"Of {plural(len(blocking), 'check')} {', '.join(counts)}{more}."


def _stages(manifest: Manifest) -> list[StageView]:
    """Stages by name in the order in which they first ran; a resumed run's are added up."""
    seconds: dict[str, float] = {}
    for stage in manifest.stages:
        seconds[stage.name] = seconds.get(stage.name, 0.0) + max(stage.seconds, 0.0)
    longest = max(seconds.values(), default=0.0) or 1.0
    return [StageView(name, duration(spent), spent / longest) for name, spent in seconds.items()]
