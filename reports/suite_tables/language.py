"""Language: whether answers and thinking are in the language asked for, in which scripts, and what is garbled."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contract.samples import Sample
from reports.scores import by_task
from reports.suite_tables.scores import endings_tables, score_table
from reports.suite_tables.table import (
    Groups,
    SuiteRun,
    Table,
    average,
    both,
    not_measured,
    of_roles,
    rate,
    total,
    values,
    with_total,
)
from reports.text import number, percent

SCRIPTS = ("kana", "han", "latin", "hangul", "cyrillic", "arabic", "other")
"""Bins of the metrics answer_kana, reasoning_kana ... (suites/readings/scripts.py)."""
LEAST_SHARE = 0.0005
"""Scripts below are not shown."""
RATES = {
    "wrong_language": "Wrong language of the answer",
    "wrong_reasoning_language": "Wrong language of the thinking",
    "no_language": "Of no language",
    "garbled": "Garbled",
}
COUNTS = {"mixed_words": "Words of mixed scripts", "broken_characters": "U+FFFD"}


def tables(run: SuiteRun) -> list[Table]:
    """Rates by task, scripts of answers and of thinking, and the scores."""
    groups = by_task(run.pairs, run.tasks)
    return [
        _languages(groups),
        *_scripts(groups, "answer", "Scripts of the answers"),
        *_scripts(groups, "reasoning", "Scripts of the thinking"),
        score_table(groups),
        *endings_tables(groups),
    ]


def _languages(groups: Groups) -> Table:
    title = "Languages"
    everyone = [sample for pairs in groups.values() for pair in pairs for sample in pair]
    rates = {name: words for name, words in RATES.items() if values(everyone, name)}
    counts = {name: words for name, words in COUNTS.items() if values(everyone, name)}
    if not rates and not counts:
        return not_measured(title, "no sample says in which language its answer is.")
    rows = []
    for task, pairs in with_total(groups, "all tasks").items():
        cells = [c for name in rates for c in of_roles(pairs, rate, name)]
        cells += [c for name in counts for c in of_roles(pairs, _sum, name)]
        rows.append((task, number(len(pairs)), *cells))
    columns = ("Task", "n", *(column for words in (rates | counts).values() for column in both(words)))
    note = (
        "Of no language: a number, a formula or a name alone, which is not in a wrong one. Garbled: with a word of "
        "mixed scripts or U+FFFD."
    )
    return Table(title, columns, rows, note, total=len(rows) > 1)


def _scripts(groups: Groups, part: str, title: str) -> list[Table]:
    everyone = [sample for pairs in groups.values() for pair in pairs for sample in pair]
    shown = [script for script in SCRIPTS if any(v >= LEAST_SHARE for v in values(everyone, f"{part}_{script}"))]
    if not shown:
        return []

    there = {
        task: [pair for pair in pairs if any(values(pair, f"{part}_{script}") for script in shown)]
        for task, pairs in groups.items()
    }
    rows = [
        (task, *(cell for script in shown for cell in of_roles(pairs, _share, f"{part}_{script}")))
        for task, pairs in with_total(there, "all tasks").items()
    ]
    columns = ("Task", *(column for script in shown for column in both(script.capitalize())))
    return [Table(title, columns, rows, "Share of the letters, mean over the answers.", total=len(rows) > 1)]


def _share(samples: Sequence[Sample], metric: str) -> str:
    return percent(average(values(samples, metric)))


def _sum(samples: Sequence[Sample], metric: str) -> str:
    return number(total(samples, metric))
