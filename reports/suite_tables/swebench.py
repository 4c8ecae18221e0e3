"""SWE-bench: what was resolved, how trajectories ended, what they took, and which repositories they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from harness.contract.pairs import Pair
from harness.contract.samples import Sample
from reports.scores import by_task
from reports.suite_tables.table import (
    Groups,
    SuiteRun,
    Table,
    average,
    both,
    finite,
    not_measured,
    of_roles,
    quotient,
    shares,
    with_total,
)
from reports.text import ABSENT, number, percent

EXIT = "exit "
"""Prefix of the metric that names a trajectory's exit status (harness/runs/instances.py)."""

LIMITED = "Hit a step or time limit"

USED = {
    "steps": "Steps",
    "prompt_tokens": "Prompt tokens",
    "completion_tokens": "Completion tokens",
    "cut_steps": "Answers cut by their budget",
    "format_errors": "Format errors",
    "agent_seconds": "Seconds of the agent",
    "grading_seconds": "Seconds of grading",
}
"""Fields and metrics of a sample, and their words."""


def tables(run: SuiteRun) -> list[Table]:
    """Resolved by both roles; exit statuses; what a trajectory took; resolved by repository."""
    scored = [pair for pair in run.pairs if all(sample.score is not None for sample in pair)]
    if not scored:
        return [not_measured("Resolved", "no instance was graded for both roles.")]
    tasks = {task: pairs for task, pairs in by_task(scored, run.tasks).items() if pairs}
    found = [_resolved("Resolved", "Task", with_total(tasks, "all tasks"))]
    found += _exits(scored)
    found.append(_used(scored))
    repositories: dict[str, list[Pair]] = {}
    for pair in scored:
        repositories.setdefault(repository_of(pair.reference.item), []).append(pair)
    if len(repositories) > 1:
        ordered = dict(sorted(repositories.items(), key=lambda entry: (-len(entry[1]), entry[0])))
        found.append(_resolved("Resolved by repository", "Repository", with_total(ordered, "all repositories")))
    return found


def repository_of(instance: str) -> str:
    """The beginning of an instance's name: django of django__django-11099."""
    return instance.partition("__")[0]


def _resolved(title: str, first: str, groups: Groups) -> Table:
    columns = (first, "n", *both("Resolved", "both"), "Difference, points", "b", "c", "D")
    rows = [(name, *_row(pairs)) for name, pairs in groups.items()]
    if any(_limited(of_role) for pairs in groups.values() for of_role in zip(*pairs, strict=True)):
        columns += both(LIMITED)
        rows = [(*row, *of_roles(pairs, _limited_said)) for row, pairs in zip(rows, groups.values(), strict=True)]
    note = "b: resolved by the reference alone. c: by the candidate alone. D: b + c. Intervals stand with the checks."
    return Table(title, columns, rows, note, total=len(rows) > 1)


def _row(pairs: Sequence[Pair]) -> tuple[str, ...]:
    scores = [(pair.reference.score or 0.0, pair.candidate.score or 0.0) for pair in pairs]
    lost = sum(candidate < reference for reference, candidate in scores)
    won = sum(candidate > reference for reference, candidate in scores)
    whole = sum(min(score) == 1 for score in scores)
    means = [average(of_role) for of_role in zip(*scores, strict=True)]
    reference, candidate, difference = shares(means[0], means[1])
    counts = (number(count) for count in (lost, won, lost + won))
    return number(len(pairs)), reference, candidate, percent(whole / len(pairs)), difference, *counts


def _limited(samples: Sequence[Sample]) -> int:
    return sum(sample.finish_reason == "limit" for sample in samples)


def _limited_said(samples: Sequence[Sample]) -> str:
    return percent(_limited(samples) / len(samples))


def exit_status(sample: Sample) -> str:
    """How a trajectory ended, in mini-swe-agent's words; a dash where that is not known."""
    return next((name.removeprefix(EXIT) for name in sample.metrics if name.startswith(EXIT)), "") or ABSENT


def _exits(pairs: Sequence[Pair]) -> list[Table]:
    counts = [Counter(exit_status(sample) for sample in of_role) for of_role in zip(*pairs, strict=True)]
    order = sorted(counts[0] | counts[1], key=lambda name: (-counts[0][name] - counts[1][name], name))
    if order == [ABSENT]:
        return []
    rows = []
    for name in order:
        times = [count[name] for count in counts]
        share = shares(times[0] / len(pairs), times[1] / len(pairs))
        rows.append((name, number(times[0]), number(times[1]), *share))
    columns = ("Exit status", *both("Trajectories"), *both("Share"), "Shift, points")
    note = "Of the graded pairs. What an agent's format costs a model shows here before it shows in what is resolved."
    return [Table("How trajectories ended", columns, rows, note)]


def _used(pairs: Sequence[Pair]) -> Table:
    rows = []
    for name, words in USED.items():
        found = [(r, c) for pair in pairs for r, c in [(_figure(pair[0], name), _figure(pair[1], name))]]
        there = [(r, c) for r, c in found if r is not None and c is not None]
        if there:
            roles = list(zip(*there, strict=True))
            means, medians = [average(role) for role in roles], [finite(median(role)) for role in roles]
            rows.append((words, number(len(there)), *_compared(means), *_compared(medians)))
    if not rows:
        return not_measured("What a trajectory took", "no sample says how many steps and tokens it took.")
    columns = ("Of a trajectory", "n", *both("Mean", "ratio"), *both("Median", "ratio"))
    note = "Ratio: candidate ÷ reference. Prompt tokens are summed over steps: each one reads the whole trajectory."
    return Table("What a trajectory took", columns, rows, note)


def _figure(sample: Sample, name: str) -> float | None:
    if name in ("prompt_tokens", "completion_tokens"):
        tokens = getattr(sample, name)
        return None if tokens is None else float(tokens)
    return sample.metrics.get(name)


def _compared(of_roles: Sequence[float | None]) -> tuple[str, str, str]:
    said = [number(value, _digits(value)) for value in of_roles]
    return said[0], said[1], number(quotient(of_roles[1], of_roles[0]), 2)


def _digits(value: float | None) -> int:
    return 0 if value is None or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
