"""The figures that a report shows of each suite: one module a suite, drawn from what the tables are made of."""

from __future__ import annotations

from collections.abc import Callable

from reports.drawing.canvas import SuiteFigure
from reports.suite_figures import (
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
from reports.suite_tables import WITHOUT_SCORES
from reports.suite_tables.table import SuiteRun

FIGURES: dict[str, Callable[[SuiteRun], list[SuiteFigure]]] = {
    "ruler": ruler.figures,
    "needle": needle.figures,
    "divergence": divergence.figures,
    "language": language.figures,
    "speculative": speculative.figures,
    "footprint": footprint.figures,
    "speed": speed.figures,
    "swebench": swebench.figures,
}
"""By the suite's name; every other suite with scores shows these, and its thinking."""


def suite_figures(suite: str, run: SuiteRun) -> list[SuiteFigure]:
    """What can be drawn of a suite, not drawn yet; nothing where a figure would repeat two or three numbers."""
    if suite in FIGURES:
        return FIGURES[suite](run)
    return [] if suite in WITHOUT_SCORES else [*scores.figures(run), *termination.figures(run)]
