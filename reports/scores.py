"""Scores of both roles, on the pairs in which both have one.

Means are over items, as estimates of checks are: of an item that is asked eight times each answer counts an eighth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.contract.pairs import Pair
from harness.contract.samples import Sample


@dataclass(frozen=True)
class RoleScores:
    """How one role did, in means over items. A mean is None when there is nothing to average."""

    n: int
    score: float | None
    completed: int
    """Answers that ended by themselves: finish_reason is "stop"."""
    score_completed: float | None
    """Score of the completed answers alone; never to be read without the cap-hit rate beside it."""
    cap_hit_rate: float | None
    """Share of answers that hit the token cap, of those whose finish_reason is known."""
    limit_rate: float | None
    """Likewise, of agents that a limit of steps, time or cost ended."""
    finish_known: int
    tokens: float | None


@dataclass(frozen=True)
class TaskScores:
    """One row of a suite: a task, or several together."""

    task: str
    items: int
    """Items; n counts their repeats too."""
    reference: RoleScores
    candidate: RoleScores
    worse: int = 0
    """Pairs in which the candidate scored less."""
    better: int = 0
    """Pairs in which it scored more."""

    @property
    def n(self) -> int:
        return self.reference.n

    @property
    def difference(self) -> float | None:
        """Candidate minus reference."""
        if self.reference.score is None or self.candidate.score is None:
            return None
        return self.candidate.score - self.reference.score


def task_scores(task: str, pairs: Sequence[Pair]) -> TaskScores:
    """Scores of some pairs; those without two scores do not count."""
    scored = [p for p in pairs if p.reference.score is not None and p.candidate.score is not None]
    items = {(p.reference.suite, p.reference.task, p.reference.item) for p in scored}
    lost = [(p.reference.score or 0.0) - (p.candidate.score or 0.0) for p in scored]
    roles = _role([p.reference for p in scored]), _role([p.candidate for p in scored])
    return TaskScores(task, len(items), *roles, worse=sum(x > 0 for x in lost), better=sum(x < 0 for x in lost))


def by_task(pairs: Iterable[Pair], order: Iterable[str] = ()) -> dict[str, list[Pair]]:
    """Pairs by their task: first the tasks of `order`, with or without pairs, then others as they come."""
    found: dict[str, list[Pair]] = {task: [] for task in order}
    for pair in pairs:
        found.setdefault(pair.reference.task, []).append(pair)
    return found


def all_scores(groups: Mapping[str, Sequence[Pair]]) -> list[TaskScores]:
    """One row for each group of pairs."""
    return [task_scores(name, pairs) for name, pairs in groups.items()]


def _role(samples: Sequence[Sample]) -> RoleScores:
    finished = [s for s in samples if s.finish_reason is not None]
    completed = [s for s in finished if s.finish_reason == "stop"]
    repeated = len({(s.suite, s.task, s.item) for s in samples}) < len(samples)

    def average(part: Sequence[Sample], value: Callable[[Sample], float | None]) -> float | None:
        """Where every item has one answer, that is the item's mean: the same number, in a fifth of the time."""
        return mean_over_items(part, value) if repeated else mean(map(value, part))

    return RoleScores(
        n=len(samples),
        score=average(samples, lambda s: s.score),
        completed=len(completed),
        score_completed=average(completed, lambda s: s.score),
        cap_hit_rate=average(finished, lambda s: float(s.finish_reason == "length")),
        limit_rate=average(finished, lambda s: float(s.finish_reason == "limit")),
        finish_known=len(finished),
        tokens=average(samples, lambda s: s.completion_tokens),
    )


def mean_over_items(samples: Iterable[Sample], value: Callable[[Sample], float | None]) -> float | None:
    """Mean over items of the mean over an item's answers; answers without a value, and items of such, do not count."""
    by_item: dict[tuple[str, ...], list[float | None]] = {}
    for sample in samples:
        by_item.setdefault((sample.suite, sample.task, sample.item), []).append(value(sample))
    return mean(mean(values) for values in by_item.values())


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None when none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
