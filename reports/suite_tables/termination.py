"""Termination: whether thinking closes and an answer follows, how much is thought, scores within smaller budgets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.contract.pairs import Pair
from harness.contract.samples import Sample
from reports.scores import by_task
from reports.suite_tables.scores import endings_tables, score_table
from reports.suite_tables.table import (
    Groups,
    SuiteRun,
    Table,
    average,
    both,
    language_of,
    not_measured,
    of_roles,
    quotient,
    rate,
    shares,
    values,
    with_total,
)
from reports.text import number

RATES = {"unterminated": "Thinking not closed", "looped": "Looped", "uncommitted": "Reached, not answered"}
"""Metrics (suites/readings/endings.py, suites/readings/thinking.py) and their words."""

_BUDGET = re.compile(r"score@([0-9]{1,9})")


def tables(run: SuiteRun) -> list[Table]:
    """How answers ended, words of doubt, scores of smaller budgets, and the scores themselves."""
    groups = by_task(run.pairs, run.tasks)
    return [
        _endings(groups),
        *_markers(run.pairs),
        *_budgets(run.pairs),
        score_table(groups),
        *endings_tables(groups, ("null", "tool_calls")),
    ]


def _endings(groups: Groups) -> Table:
    title = "Thinking and answers"
    if not any(values(pair, "unterminated") for pairs in groups.values() for pair in pairs):
        return not_measured(title, "no sample says how its answer ended.")
    columns = (
        "Task",
        "n",
        *(c for name in RATES.values() for c in both(name)),
        *both("Mean tokens of thinking", "ratio"),
    )
    rows = []
    for task, pairs in with_total(groups, "all tasks").items():
        cells = [cell for kind in RATES for cell in of_roles(pairs, rate, kind)]
        rows.append((task, number(len(pairs)), *cells, *_thinking(pairs)))
    note = "Tokens of thinking are estimated by its share of the letters. Ratio: candidate ÷ reference."
    return Table(title, columns, rows, note, total=len(rows) > 1)


def _thinking(pairs: Sequence[Pair]) -> tuple[str, str, str]:
    there = [pair for pair in pairs if all("thinking_tokens" in sample.metrics for sample in pair)]
    means = [average(values(samples, "thinking_tokens")) for samples in zip(*there, strict=True)] or [None, None]
    return number(means[0]), number(means[1]), number(quotient(means[1], means[0]), 2)


def _markers(pairs: Sequence[Pair]) -> list[Table]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        if all("markers" in sample.metrics for sample in pair):
            groups.setdefault(language_of(pair.reference.task), []).append(pair)
    rows = []
    for language, found in with_total(groups, "all languages").items():
        rates = [_per_thousand(samples) for samples in zip(*found, strict=True)]
        rows.append(
            (language, number(len(found)), *(number(r, 2) for r in rates), number(quotient(rates[1], rates[0]), 2))
        )
    columns = ("Language", "n", *both("Markers", "ratio"))
    note = "Words with which thinking turns around (wait, でも, 等等), for each 1,000 tokens of it."
    return [Table("Over-thinking markers", columns, rows, note, total=len(rows) > 1)] if rows else []


def _per_thousand(samples: Sequence[Sample]) -> float | None:
    counted = [(sample.metrics["markers"], tokens) for sample in samples if (tokens := _searched(sample)) > 0]
    return quotient(1000 * sum(count for count, _ in counted), sum(tokens for _, tokens in counted))


def _searched(sample: Sample) -> float:
    """Tokens of the text in which markers were looked for: the thinking, or all where there is none apart."""
    if sample.metrics.get("thinking_chars", 0.0) > 0:
        return sample.metrics.get("thinking_tokens", 0.0)
    return float(sample.completion_tokens or 0)


def _budgets(pairs: Sequence[Pair]) -> list[Table]:
    names = {name for pair in pairs for sample in pair for name in sample.metrics}
    budgets = sorted(int(match[1]) for name in names if (match := _BUDGET.fullmatch(name)))
    rows = []
    for budget in budgets:
        name = f"score@{budget}"
        there = [pair for pair in pairs if all(name in sample.metrics for sample in pair)]
        means = [average(values(samples, name)) for samples in zip(*there, strict=True)]
        if means:
            rows.append((number(budget), number(len(there)), *shares(means[0], means[1])))
    columns = ("Budget, tokens", "n", *both("Score"), "Difference, points")
    note = "Of the same answers: one that took more tokens would have been cut, and counts as wrong."
    return [Table("Scores within a budget", columns, rows, note)] if rows else []
