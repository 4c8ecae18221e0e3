"""Language: scores by task, and the scripts of answers and of thinking by the language asked for."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contract.pairs import Pair
from reports.drawing.canvas import MAX_ROWS, SuiteFigure
from reports.drawing.charts import ChartRow, finite, grouped_rows, most_changed
from reports.suite_figures import scores, termination
from reports.suite_tables.language import SCRIPTS
from reports.suite_tables.table import SuiteRun, average, language_of, values
from reports.text import one_line, percent

LEAST_SHARE = 0.005
"""Scripts that have less with both roles are in the table alone."""

NAMES = {"en": "English", "ja": "Japanese", "zh": "Chinese", "ko": "Korean", "ru": "Russian", "ar": "Arabic"}


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Scripts of the answers and of the thinking, scores by task, and how much is thought."""
    return [
        *_scripts(run.pairs, "answer", "Scripts of the answers"),
        *_scripts(run.pairs, "reasoning", "Scripts of the thinking"),
        *termination.figures(run),
        *scores.figures(run),
    ]


def script_shares(pairs: Sequence[Pair], part: str) -> list[ChartRow]:
    """Share of the letters, mean over the answers, by the language asked for and by script."""
    asked: dict[str, list[Pair]] = {}
    for pair in pairs:
        if any(values(pair, f"{part}_{script}") for script in SCRIPTS):
            asked.setdefault(language_of(pair.reference.task), []).append(pair)
    found = []
    for language, of in sorted(asked.items()):
        for script in SCRIPTS:
            roles = [average(values(role, f"{part}_{script}")) for role in zip(*of, strict=True)]
            reference, candidate = roles
            if reference is None or candidate is None or not finite(*roles, most=1.5):
                continue
            if max(reference, candidate) >= LEAST_SHARE:
                group = NAMES.get(language, one_line(language, 20))
                found.append(ChartRow(group, script.capitalize(), reference, candidate))
    return found


def _scripts(pairs: Sequence[Pair], part: str, title: str) -> list[SuiteFigure]:
    found = script_shares(pairs, part)
    if len(found) < 2:
        return []
    most, said = most_changed(found), "The same with both roles."
    if most:
        said = f"Most changed: {most.label} where {most.group} is asked for, {percent(most.reference)} with the "
        said += f"reference and {percent(most.candidate)} with the candidate."
    return [SuiteFigure(title, said, grouped_rows(found[:MAX_ROWS], "share of the letters, %"))]
