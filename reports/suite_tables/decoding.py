"""Decoding: how long greedy answers stay the reference's own."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contract.samples import Sample
from reports.scores import by_task
from reports.suite_tables.table import SuiteRun, Table, not_measured, quotient, total, values, with_total
from reports.text import ABSENT, number, percent

TITLE = "Greedy answers against the reference's"


def tables(run: SuiteRun) -> list[Table]:
    """One row for each task: where the candidate's answers part from the reference's, beside the noise floor's."""
    groups = {task: [p for p in pairs if _has(p.candidate)] for task, pairs in by_task(run.pairs, run.tasks).items()}
    noise = {task: [p.candidate for p in pairs if _has(p.candidate)] for task, pairs in by_task(run.noise).items()}
    found = with_total(groups, "all tasks")
    if not found:
        return [not_measured(TITLE, "no sample says where its answer parts from the reference's.")]
    parts = ("candidate", "noise") if any(noise.values()) else ("candidate",)
    names = ("Never parted", "Median of tokens before parting", "Chance to part at the next token")
    columns = ("Task", "n", *(f"{name}: {part}" for name in names for part in parts))
    everyone = [sample for samples in noise.values() for sample in samples]
    rows = []
    for task, pairs in found.items():
        of_candidate = figures([p.candidate for p in pairs])
        of_noise = figures(noise.get(task, everyone if len(found) > 1 and task == "all tasks" else []))
        cells = zip(of_candidate, of_noise, strict=True)
        rows.append((task, number(len(pairs)), *(cell for both in cells for cell in both[: len(parts)])))
    note = (
        "Answers that never part are taken as cut off at their end (Kaplan-Meier). The noise floor is the reference "
        "asked again: greedy answers are not always the same."
    )
    return [Table(TITLE, columns, rows, note, total=len(rows) > 1)]


def figures(samples: Sequence[Sample]) -> tuple[str, str, str]:
    """Share that never parted, median of tokens before parting, chance to part at a token."""
    if not samples:
        return ABSENT, ABSENT, ABSENT
    times, parted = values(samples, "first_divergence"), [value > 0 for value in values(samples, "diverged")]
    median = median_time(times, parted)
    chance = quotient(total(samples, "diverged"), total(samples, "decode_positions"))
    return (
        percent(1 - sum(parted) / len(parted)),
        f"more than {number(max(times))}" if median is None else number(median),
        percent(chance, 2),
    )


def median_time(times: Sequence[float], happened: Sequence[bool]) -> float | None:
    """Median of times that are only known to be longer where nothing happened (Kaplan and Meier 1958).

    None when fewer than half have happened by the longest time.
    """
    left, surviving = len(times), 1.0
    for time in sorted(set(times)):
        now = [event for at, event in zip(times, happened, strict=True) if at == time]
        surviving *= 1 - sum(now) / left
        left -= len(now)
        if surviving <= 0.5 + 1e-9:  # a product of quotients is half but for rounding
            return time
    return None


def _has(sample: Sample) -> bool:
    return {"first_divergence", "diverged"} <= sample.metrics.keys()
