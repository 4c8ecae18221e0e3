"""Scores: of any suite whose answers are right or wrong, always beside the share that the token cap cut."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contract.samples import Sample
from reports.scores import RoleScores, TaskScores, all_scores, by_task, mean
from reports.suite_tables.table import Groups, SuiteRun, Table, both, known, not_measured, of_roles, with_total
from reports.text import number, percent, plural, points

ENDINGS = {
    "unterminated": "Thinking not closed",
    "looped": "Looped",
    "null": "No answer (null)",
    "tool_calls": "Tool call",
    "no_answer": "Nothing answered",
}
"""Metrics that say how an answer ended (suites/readings/endings.py, suites/base.py), and their words."""


FLIPS = "Flips: pairs that score lower with the candidate (worse), higher (better), or either (D)."


def tables(run: SuiteRun) -> list[Table]:
    """Scores by task, and how answers ended where one ended badly."""
    groups = by_task(run.pairs, run.tasks)
    return [score_table(groups), *endings_tables(groups)]


def score_table(groups: Groups, first: str = "Task", title: str = "Scores", together: str = "all tasks") -> Table:
    """One row for each group: both roles' score, flips, score of answers that ended, cap hits and length."""
    found = [row for row in all_scores(with_total(groups, together)) if row.n]
    if not found:
        return not_measured(title, "no pair of answers has scores.")
    columns = (
        first,
        "n",
        *both("Score"),
        "Difference, points",
        *(f"Flips: {part}" for part in ("worse", "better", "D")),
        *both("Score of answers that ended"),
        *both("Hit the token cap"),
        *both("Mean tokens"),
    )
    repeated = any(row.n > row.items for row in found)
    notes = (
        ["n: items × answers to each; scores are means over items, each the mean over its answers (avg@k)."]
        if repeated
        else []
    )
    note = " ".join([*notes, FLIPS])
    return Table(title, columns, [_row(row) for row in found], note, total=len(found) > 1)


def _row(row: TaskScores) -> tuple[str, ...]:
    roles = (row.reference, row.candidate)
    return (
        row.task,
        _count(row),
        *(percent(role.score) for role in roles),
        points(row.difference),
        *(number(count) for count in (row.worse, row.better, row.worse + row.better)),
        *(_ended(role) for role in roles),
        *(known(role.cap_hit_rate, role.finish_known, role.n) for role in roles),
        *(number(role.tokens) for role in roles),
    )


def _count(row: TaskScores) -> str:
    if row.n == row.items:
        return number(row.n)
    k, rest = divmod(row.n, row.items)
    return f"{row.items:,} × {k}" if rest == 0 else f"{row.n:,} of {plural(row.items, 'item')}"


def _ended(role: RoleScores) -> str:
    return known(role.score_completed, role.completed, role.n)


def endings_tables(groups: Groups, kinds: Sequence[str] = tuple(ENDINGS)) -> list[Table]:
    """How often answers ended in another way than they should; no table when none did."""
    found = with_total(groups, "all tasks")
    everyone = [sample for pairs in groups.values() for pair in pairs for sample in pair]
    there = [kind for kind in kinds if any(sample.metrics.get(kind, 0.0) > 0 for sample in everyone)]
    if not there:
        return []
    rows = []
    for name, pairs in found.items():
        cells = [cell for kind in there for cell in of_roles(pairs, _times, kind)]
        rows.append((name, number(len(pairs)), *cells))
    columns = ("Task", "n", *(column for kind in there for column in both(ENDINGS[kind])))
    note = (
        "Answers, of n. What is no answer has no score, unless its budget cut it; see “without a score” above. "
        "Nothing answered: no number, letter or expression is stated, or two are; it earns nothing."
    )
    return [Table("How answers ended", columns, rows, note, total=len(rows) > 1)]


def substring_tables(groups: Groups) -> list[Table]:
    """Where RULER's own score, by substring, is another than ours; no table where it never is.

    A doubled digit passes by substring; 4,141,759 for 4141759 does not.
    """
    rows = []
    for name, pairs in with_total(groups, "all tasks").items():
        cells = [cell for part in (_passes_there_alone, _passes_here_alone) for cell in of_roles(pairs, part)]
        rows.append((name, number(len(pairs)), *of_roles(pairs, _substring), *cells))
    if all(cell == number(0) for row in rows for cell in row[4:]):
        return []
    columns = (
        "Task",
        "n",
        *both("Score by substring"),
        *both("Higher by substring"),
        *both("Lower by substring"),
    )
    note = (
        "RULER's published score takes a reference for said where it is a substring of the answer (92025837 says "
        "9202583); here numbers and words are whole, in any usual spelling. Answers whose two scores differ, of n."
    )
    return [Table("Where RULER's substring score differs", columns, rows, note, total=len(rows) > 1)]


def _both_known(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    return [(s.score, s.metrics["substring"]) for s in samples if s.score is not None and "substring" in s.metrics]


def _substring(samples: Sequence[Sample]) -> str:
    return percent(mean(published for _, published in _both_known(samples)))


def _passes_there_alone(samples: Sequence[Sample]) -> str:
    return number(sum(published > ours for ours, published in _both_known(samples)))


def _passes_here_alone(samples: Sequence[Sample]) -> str:
    return number(sum(published < ours for ours, published in _both_known(samples)))


def _times(samples: Sequence[Sample], kind: str) -> str:
    return number(sum(sample.metrics.get(kind, 0.0) > 0 for sample in samples))
