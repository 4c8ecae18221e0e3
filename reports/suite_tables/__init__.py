"""The tables that a report shows of each suite: one module a suite, each a pure function of what was stored."""

from __future__ import annotations

from collections.abc import Callable

from reports.suite_tables import (
    decoding,
    divergence,
    footprint,
    language,
    needle,
    ruler,
    scores,
    speculative,
    speed,
    swebench,
    termination,
)
from reports.suite_tables.table import SuiteRun, Table

TABLES: dict[str, Callable[[SuiteRun], list[Table]]] = {
    "ruler": ruler.tables,
    "needle": needle.tables,
    "divergence": divergence.tables,
    "decoding": decoding.tables,
    "termination": termination.tables,
    "language": language.tables,
    "speculative": speculative.tables,
    "footprint": footprint.tables,
    "speed": speed.tables,
    "swebench": swebench.tables,
}
"""By the suite's name; every other suite shows its scores."""

WITHOUT_SCORES = frozenset({"divergence", "decoding", "speculative", "footprint", "speed"})
"""Suites whose samples have no score, so that nothing is missing where there is none."""


def suite_tables(suite: str, run: SuiteRun) -> list[Table]:
    """What is shown of a suite, the table that summaries show first."""
    return TABLES.get(suite, scores.tables)(run)
