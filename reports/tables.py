"""What each suite shows: scores of both roles by task, or how far the two distributions lie apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

from harness.samples import Sample
from reports.pairs import StoredPair


@dataclass(frozen=True)
class RoleScores:
    """How one role did on the pairs that can be compared. A mean is None when there is nothing to average."""

    n: int
    score: float | None
    completed: int
    """Answers that ended by themselves: finish_reason is "stop"."""
    score_completed: float | None
    """Score of the completed answers alone; never to be read without the cap-hit rate beside it."""
    cap_hit_rate: float | None
    """Share of answers that hit the token cap, of those whose finish_reason is known."""
    finish_known: int
    tokens: float | None
    seconds: float | None


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


@dataclass(frozen=True)
class TaskScores:
    """One row of a suite: a task, or all its tasks together."""

    task: str
    coverage: Coverage
    reference: RoleScores
    candidate: RoleScores

    @property
    def difference(self) -> float | None:
        """Candidate minus reference."""
        if self.reference.score is None or self.candidate.score is None:
            return None
        return self.candidate.score - self.reference.score


@dataclass(frozen=True)
class Document:
    """One trajectory that both models scored. KL is in nats a position."""

    name: str
    positions: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Divergence:
    """How far the two distributions lie apart, over all positions of all documents."""

    documents: list[Document]
    without_metrics: int
    positions: float
    lower: float | None
    upper: float | None
    flips: float | None
    flip_rate: float | None
    confident_flips: float | None
    confident_flip_rate: float | None
    captured_mass: float | None
    margin: float | None = None
    """The policy's margin on the mean, when it has one."""


@dataclass(frozen=True)
class SuiteView:
    """One suite. Exactly one of `total` and `divergence` says what it measured; neither when nothing ran."""

    name: str
    coverage: Coverage
    tasks: list[TaskScores] = field(default_factory=list)
    total: TaskScores | None = None
    divergence: Divergence | None = None
    errors: list[tuple[str, str, int]] = field(default_factory=list)
    """(role, error, how often)."""


def suite_views(
    pairs: Sequence[StoredPair],
    planned: Mapping[str, int],
    order: Iterable[str],
    kl_margin: float | None = None,
    stopped: Collection[str] = (),
) -> list[SuiteView]:
    """One view for each suite that was planned or has samples: the policy's order first, then by name.

    `stopped` are the tasks ("suite/task") of which no more was asked once they were decided.
    """
    known = {name.split("/", 1)[0] for name in planned} | {pair.key.suite for pair in pairs}
    names = [*order, *sorted(known)]
    return [
        _suite(name, [p for p in pairs if p.key.suite == name], planned, kl_margin, stopped)
        for name in dict.fromkeys(names)
    ]


def _suite(
    suite: str,
    pairs: Sequence[StoredPair],
    planned: Mapping[str, int],
    kl_margin: float | None,
    stopped: Collection[str],
) -> SuiteView:
    wanted = {name.split("/", 1)[1]: count for name, count in planned.items() if name.startswith(f"{suite}/")}
    tasks = list(dict.fromkeys([*wanted, *(pair.key.task for pair in pairs)]))
    by_task = {task: [p for p in pairs if p.key.task == task] for task in tasks}
    is_divergence = suite == "divergence" or any(p.candidate and "positions" in p.candidate.metrics for p in pairs)
    coverages = {
        task: _coverage(by_task[task], wanted.get(task, 0), not is_divergence, f"{suite}/{task}" in stopped)
        for task in tasks
    }
    coverage = _sum(coverages.values())
    errors = _errors(pairs)
    if not pairs:
        return SuiteView(suite, coverage)
    if is_divergence:
        divergence = _divergence(pairs, kl_margin, one_task=len(tasks) == 1)
        return SuiteView(suite, coverage, divergence=divergence, errors=errors)
    rows = [_scores(task, by_task[task], coverages[task]) for task in tasks]
    return SuiteView(suite, coverage, rows, _scores("all tasks", pairs, coverage), errors=errors)


def _coverage(pairs: Sequence[StoredPair], planned: int, scored: bool, stopped: bool) -> Coverage:
    states = Counter(pair.state for pair in pairs)
    missing = states["missing"] + max(0, planned - len(pairs))
    return Coverage(
        planned=planned,
        usable=states["usable"],
        missing=0 if stopped else missing,
        not_needed=missing if stopped else 0,
        errored=states["errored"],
        unequal=states["unequal"],
        unscored=sum(pair.usable and pair.difference is None for pair in pairs) if scored else 0,
    )


def _sum(parts: Iterable[Coverage]) -> Coverage:
    rows = [astuple(part) for part in parts]
    return Coverage(*(sum(column) for column in zip(*rows, strict=True))) if rows else Coverage()


def _scores(task: str, pairs: Sequence[StoredPair], coverage: Coverage) -> TaskScores:
    comparable = [p for p in pairs if p.usable and p.difference is not None]
    return TaskScores(
        task,
        coverage,
        _role([p.reference for p in comparable if p.reference]),
        _role([p.candidate for p in comparable if p.candidate]),
    )


def _role(samples: Sequence[Sample]) -> RoleScores:
    finished = [s for s in samples if s.finish_reason is not None]
    completed = [s for s in finished if s.finish_reason == "stop"]
    return RoleScores(
        n=len(samples),
        score=_mean([s.score for s in samples]),
        completed=len(completed),
        score_completed=_mean([s.score for s in completed]),
        cap_hit_rate=_mean([float(s.finish_reason == "length") for s in finished]),
        finish_known=len(finished),
        tokens=_mean([s.completion_tokens for s in samples]),
        seconds=_mean([s.seconds for s in samples]),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _errors(pairs: Sequence[StoredPair]) -> list[tuple[str, str, int]]:
    """Errors by role, the most frequent first; what follows a colon ("timeout: 120 s") does not count."""
    samples = [s for pair in pairs for s in (pair.reference, pair.candidate) if s is not None and s.error]
    counts = Counter((s.role, (s.error or "").split(":")[0].strip()[:60]) for s in samples)
    return [(role, error, count) for (role, error), count in counts.most_common(12)]


def _divergence(pairs: Sequence[StoredPair], margin: float | None, one_task: bool) -> Divergence:
    documents: list[Document] = []
    sums: Counter[str] = Counter()
    without = 0
    for pair in pairs:
        if not pair.usable or pair.candidate is None:
            continue
        metrics = pair.candidate.metrics
        positions = metrics.get("positions", 0.0)
        low, high = metrics.get("kl_lower_sum"), metrics.get("kl_upper_sum")
        if positions <= 0 or (low is None and high is None):
            without += 1
            continue
        name = pair.key.item if one_task else f"{pair.key.task}/{pair.key.item}"
        documents.append(
            Document(
                name if pair.key.repeat == 0 else f"{name}/{pair.key.repeat}",
                positions,
                None if low is None else low / positions,
                None if high is None else high / positions,
            )
        )
        for metric, value in metrics.items():
            sums[metric] += value  # type: ignore[assignment]
            sums[f"positions of {metric}"] += positions  # type: ignore[assignment]

    def total(metric: str) -> float | None:
        return sums[metric] if f"positions of {metric}" in sums else None

    def rate(metric: str) -> float | None:
        value = total(metric)
        return None if value is None else value / sums[f"positions of {metric}"]

    return Divergence(
        documents=sorted(documents, key=lambda d: -(d.upper if d.upper is not None else d.lower or 0.0)),
        without_metrics=without,
        positions=sum(document.positions for document in documents),
        lower=rate("kl_lower_sum"),
        upper=rate("kl_upper_sum"),
        flips=total("flips"),
        flip_rate=rate("flips"),
        confident_flips=total("confident_flips"),
        confident_flip_rate=rate("confident_flips"),
        captured_mass=rate("captured_mass_sum"),
        margin=margin,
    )
