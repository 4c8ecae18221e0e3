"""What a report knows of each suite: said here and nowhere else in reports, so that a new suite is one entry more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.contract.datasets import PublicDataset
from reports.cards.sources import of_cot, of_none, of_swebench
from reports.drawing.canvas import SuiteFigure
from reports.suite_figures import divergence as divergence_figures
from reports.suite_figures import footprint as footprint_figures
from reports.suite_figures import language as language_figures
from reports.suite_figures import needle as needle_figures
from reports.suite_figures import ruler as ruler_figures
from reports.suite_figures import scores as scores_figures
from reports.suite_figures import speculative as speculative_figures
from reports.suite_figures import speed as speed_figures
from reports.suite_figures import swebench as swebench_figures
from reports.suite_figures import termination as termination_figures
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


def figures_of_scores(run: SuiteRun) -> list[SuiteFigure]:
    """What can be drawn of any suite with scores: these, and its thinking."""
    return [*scores_figures.figures(run), *termination_figures.figures(run)]


def no_figures(run: SuiteRun) -> list[SuiteFigure]:
    """For a suite of which a figure would repeat two or three numbers."""
    return []


@dataclass(frozen=True)
class KnownSuite:
    """A suite, as a report shows it; as it stands, one that a report knows nothing of."""

    name: str
    tables: Callable[[SuiteRun], list[Table]] = scores.tables
    """The table that summaries show first."""
    figures: Callable[[SuiteRun], list[SuiteFigure]] = figures_of_scores
    """What can be drawn, not drawn yet."""
    has_scores: bool = True
    """Whether its samples have one, so that something is missing where there is none."""
    has_divergence: bool = False
    """Whether its samples compare distributions, which reports sum up in a line."""
    has_counters: bool = False
    """Whether there is something to show without samples: what servers counted while other suites ran."""
    reads_files: bool = False
    """Whether its questions or texts may come from files."""
    score: Literal["accuracy", "resolved"] = "accuracy"
    """The metric that its mean score is, in a model card."""
    result_by_task: bool = False
    """Whether tasks are results of their own in a model card; those of others (52 of RULER) are one together."""
    whole_without_limit: bool = False
    """Whether a task that the policy gives no `limit` is asked with all items that it has."""
    source: Callable[[Mapping[str, Any] | None, str], PublicDataset | None] = of_none
    """The public data set of (the suite's settings in the policy, if that is there; a task), where that is known."""


KNOWN_SUITES = {
    suite.name: suite
    for suite in (
        KnownSuite("cot", result_by_task=True, whole_without_limit=True, source=of_cot, reads_files=True),
        KnownSuite("ruler", ruler.tables, ruler_figures.figures, reads_files=True),
        KnownSuite("needle", needle.tables, needle_figures.figures, reads_files=True),
        KnownSuite("divergence", divergence.tables, divergence_figures.figures, has_scores=False, has_divergence=True),
        KnownSuite("decoding", decoding.tables, no_figures, has_scores=False),
        KnownSuite("termination", termination.tables),
        KnownSuite("language", language.tables, language_figures.figures),
        KnownSuite("speculative", speculative.tables, speculative_figures.figures, has_scores=False, has_counters=True),
        KnownSuite("footprint", footprint.tables, footprint_figures.figures, has_scores=False),
        KnownSuite("speed", speed.tables, speed_figures.figures, has_scores=False),
        KnownSuite(
            "swebench",
            swebench.tables,
            swebench_figures.figures,
            score="resolved",
            result_by_task=True,
            source=of_swebench,
        ),
    )
}
"""By name, in the order in which a model card says what was not run."""


def known_suite(name: str) -> KnownSuite:
    """What is known of a suite; one that nobody knows shows its scores."""
    return KNOWN_SUITES.get(name) or KnownSuite(name)
