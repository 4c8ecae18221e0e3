"""What each suite shows: how much of it is there, its tables and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

from harness.contract.error_kinds import error_kind
from harness.contract.samples import Role, Sample
from harness.runs.positions import PositionSummary
from reports.drawing.canvas import SuiteFigure
from reports.kl import KlSummary, kl_summary
from reports.known_suites import KNOWN_SUITES, KnownSuite, known_suite
from reports.samples.pairs import StoredPair, StoredPairs
from reports.scores import TaskScores, all_scores, by_task
from reports.suite_tables.table import DraftCounts, SuiteRun, Table

NO_SCORE = {"null": "null", "tool_calls": "tool call", "unterminated": "thinking not closed"}
"""Metrics that say why an answer is none, and their words."""


@dataclass(frozen=True)
class Coverage:
    """How many pairs were planned, are there, and cannot be used."""

    planned: int = 0
    usable: int = 0
    missing: int = 0
    not_needed: int = 0
    """Missing, but of a task that sequential checks had decided."""
    errored: int = 0
    unequal: int = 0
    unscored: int = 0
    """Usable pairs in which a score is absent without an error."""

    @property
    def anything(self) -> bool:
        """Whether any pair was planned or is there."""
        return any(astuple(self))


@dataclass(frozen=True)
class SuiteExtras:
    """What a run holds of its suites besides samples."""

    positions: Mapping[Role, PositionSummary] = field(default_factory=dict)
    """Of the divergence suite, by the role that was compared with the reference."""
    speculative: DraftCounts = field(default_factory=dict)
    kl_margin: float | None = None
    """The policy's margin on the mean KL, when it has one."""


@dataclass(frozen=True)
class SuiteView:
    """One suite. The first of its tables is the one for summaries; there is none when nothing ran."""

    name: str
    coverage: Coverage
    tables: list[Table] = field(default_factory=list)
    tasks: list[TaskScores] = field(default_factory=list)
    """Scores by task, for the model card; of suites without scores none has a number."""
    divergence: KlSummary | None = None
    """Of the divergence suite, for the same."""
    figures: list[SuiteFigure] = field(default_factory=list)
    """Not drawn yet: only the page does that."""
    errors: list[tuple[str, str, int]] = field(default_factory=list)
    """(role, error, how often)."""
    unscored: list[tuple[str, str, int]] = field(default_factory=list)
    """(role, why an answer has no score, how often)."""

    @property
    def errors_said(self) -> str:
        return _listed(self.errors)

    @property
    def unscored_said(self) -> str:
        return _listed(self.unscored)


def suite_views(
    stored: StoredPairs,
    planned: Mapping[str, int],
    order: Iterable[str],
    extras: SuiteExtras,
    stopped: Collection[str] = (),
) -> list[SuiteView]:
    """One view for each suite that was planned or has something to show: the policy's order first, then by name.

    `stopped` are the tasks ("suite/task") of which no more was asked once they were decided.
    """
    known = {name.split("/", 1)[0] for name in planned} | {pair.suite for pair in stored.pairs}
    counted = [suite.name for suite in KNOWN_SUITES.values() if suite.has_counters and extras.speculative]
    names = dict.fromkeys([*order, *sorted(known), *counted])
    return [_suite(known_suite(name), stored, planned, extras, stopped) for name in names]


def _suite(
    known: KnownSuite,
    stored: StoredPairs,
    planned: Mapping[str, int],
    extras: SuiteExtras,
    stopped: Collection[str],
) -> SuiteView:
    suite = known.name
    pairs = [pair for pair in stored.pairs if pair.suite == suite]
    wanted = {name.split("/", 1)[1]: count for name, count in planned.items() if name.startswith(f"{suite}/")}
    tasks = list(dict.fromkeys([*wanted, *(pair.task for pair in pairs)]))
    scored = known.has_scores
    coverage = _sum(
        _coverage([p for p in pairs if p.task == task], wanted.get(task, 0), scored, f"{suite}/{task}" in stopped)
        for task in tasks
    )
    if not pairs and not (known.has_counters and extras.speculative):
        return SuiteView(suite, coverage)
    usable = [pair for stored_pair in pairs if (pair := stored_pair.pair)]
    noise = [pair for pair in stored.noise_pairs if pair.reference.suite == suite]
    run = SuiteRun(usable, tasks, noise, extras.positions, extras.speculative, extras.kl_margin)
    return SuiteView(
        suite,
        coverage,
        known.tables(run),
        figures=known.figures(run),
        tasks=all_scores(by_task(usable, tasks)) if scored else [],
        divergence=kl_summary(usable, extras.kl_margin) if known.has_divergence else None,
        errors=_errors(pairs),
        unscored=_unscored(pairs) if scored else [],
    )


def _coverage(pairs: Sequence[StoredPair], planned: int, scored: bool, stopped: bool) -> Coverage:
    unusable = Counter(pair.unusable for pair in pairs)
    missing = unusable["missing"] + max(0, planned - len(pairs))
    return Coverage(
        planned=planned,
        usable=unusable[None],
        missing=0 if stopped else missing,
        not_needed=missing if stopped else 0,
        errored=unusable["errored"],
        unequal=unusable["unequal"],
        unscored=sum(pair.unusable is None and pair.difference is None for pair in pairs) if scored else 0,
    )


def _sum(parts: Iterable[Coverage]) -> Coverage:
    rows = [astuple(part) for part in parts]
    return Coverage(*(sum(column) for column in zip(*rows, strict=True))) if rows else Coverage()


def _samples(pairs: Sequence[StoredPair]) -> list[Sample]:
    return [sample for pair in pairs for sample in (pair.reference, pair.candidate) if sample is not None]


def _errors(pairs: Sequence[StoredPair]) -> list[tuple[str, str, int]]:
    """Errors by role, the most frequent first; what follows a colon ("timeout: 120 s") does not count."""
    counts = Counter((s.role, error_kind(s.error).strip()[:60]) for s in _samples(pairs) if s.error)
    return [(role, error, count) for (role, error), count in counts.most_common(12)]


def _unscored(pairs: Sequence[StoredPair]) -> list[tuple[str, str, int]]:
    """Answers without score and without error, by role and by what they are."""
    found = Counter(
        (s.role, next((words for name, words in NO_SCORE.items() if s.metrics.get(name, 0.0) > 0), "no reason stored"))
        for s in _samples(pairs)
        if s.score is None and not s.error
    )
    return [(role, why, count) for (role, why), count in sorted(found.items())]


def _listed(counts: Iterable[tuple[str, str, int]]) -> str:
    return ", ".join(f"{role} {what} ×{count:,}" for role, what, count in counts)
