"""Thinking: how much both roles think, and what they score within smaller budgets."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from harness.contract.pairs import Pair
from reports.drawing.canvas import SuiteFigure, Svg, small
from reports.drawing.charts import Curve, curves, finite, named
from reports.drawing.svg import INKS
from reports.suite_figures.ruler import short
from reports.suite_tables.table import SuiteRun, average
from reports.text import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 14
FEWEST = 10
"""Answers of which a distribution is drawn."""
MOST_TOKENS = 1e9

_BUDGET = re.compile(r"score@([0-9]{1,9})")


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Score by budget, and the distribution of thinking, of whatever the samples say."""
    return [*_budgets(run.pairs), *_thinking(run.pairs)]


# -- budgets --------------------------------------------------------------------------------------------------------


def budgets(pairs: Sequence[Pair]) -> list[tuple[int, float, float]]:
    """(tokens, score of the reference, score of the candidate), of the pairs that have both at every budget."""
    names = sorted({name for pair in pairs for sample in pair for name in sample.metrics if _BUDGET.fullmatch(name)})
    there = [pair for pair in pairs if all(name in sample.metrics for sample in pair for name in names)]
    found = []
    for name in names:
        roles = [average([sample.metrics[name] for sample in role]) for role in zip(*there, strict=True)]
        if roles and finite(*roles, most=1.0):
            found.append((int(name.partition("@")[2]), roles[0] or 0.0, roles[1] or 0.0))
    return sorted(found)


def _budgets(pairs: Sequence[Pair]) -> list[SuiteFigure]:
    found = budgets(pairs)
    if len(found) < 2:
        return []
    curve = Curve([100 * r for _, r, _ in found], [100 * c for _, _, c in found])
    svg = curves([short(tokens) for tokens, *_ in found], [curve], "budget of an answer, tokens", "score, %")
    tokens, reference, candidate = min(found, key=lambda row: round(row[2] - row[1], 9))
    said = f"They differ most within {number(tokens)} tokens: {percent(reference)} with the reference, "
    return [SuiteFigure("Score within a budget", f"{said}{percent(candidate)} with the candidate.", svg)]


# -- thinking -------------------------------------------------------------------------------------------------------


def _thinking(pairs: Sequence[Pair]) -> list[SuiteFigure]:
    there = [lengths for pair in pairs if finite(*(lengths := _lengths(pair)), most=MOST_TOKENS)]
    roles = [[max(float(value or 0.0), 0.0) for value in role] for role in zip(*there, strict=True)]
    if len(there) < FEWEST or not any(value >= 1 for role in roles for value in role):
        return []
    middle = [median(role) for role in roles]
    said = f"Half of {len(there):,} answers think more than {number(middle[0])} tokens with the reference, "
    said += f"{number(middle[1])} with the candidate; at most {number(max(roles[0]))} and {number(max(roles[1]))}."
    return [SuiteFigure("How much is thought", said, _histogram(roles[0], roles[1]), _LEGEND)]


def _lengths(pair: Pair) -> tuple[float | None, float | None]:
    """Tokens of thinking of both answers. Where one of them thought, the other that has no such figure did not."""
    if not any("thinking_tokens" in sample.metrics for sample in pair):
        return None, None
    thought = [s.metrics.get("thinking_tokens", 0.0 if s.completion_tokens else None) for s in pair]
    return thought[0], thought[1]


_LEGEND = (("outline", "reference"), ("bar", "candidate"), ("dash", "medians"))


def edges(values: Sequence[float]) -> list[float]:
    """Bounds of bins that are equally wide on a logarithmic scale; fewer than one token counts as one."""
    low, high = math.log10(max(min(values), 1.0)), math.log10(max(*values, 1.0))
    high = max(high, low + 0.1)
    return [10 ** (low + (high - low) * step / BINS) for step in range(BINS + 1)]


def histogram(values: Sequence[float], bounds: Sequence[float]) -> list[float]:
    """Share of the values in each bin; the last bin has its upper bound too."""
    counts = [0] * (len(bounds) - 1)
    for value in values:
        inside = sum(value >= bound * (1 - 1e-9) for bound in bounds[1:-1])
        counts[inside] += 1
    return [count / len(values) for count in counts]


def _histogram(reference: Sequence[float], candidate: Sequence[float]) -> Svg:
    bounds = edges([*reference, *candidate])
    shares = [[100 * share for share in histogram(role, bounds)] for role in (reference, candidate)]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for (left, right), share in zip(pairwise(bounds), shares[1], strict=True):
            axes.fill_between([left, right], [share, share], color=INKS["candidate"], alpha=0.5, linewidth=0)
        axes.stairs(shares[0], bounds, color=INKS["reference"], linewidth=2, baseline=0)
        for role, ink in ((reference, "reference"), (candidate, "candidate")):
            axes.axvline(max(median(role), 1.0), color=INKS[ink], linewidth=1.6, linestyle=(0, (4, 3)))
        axes.set_xlim(bounds[0], bounds[-1])
        axes.set_ylim(0, max(map(max, shares)) * 1.12)
        ticks = _ticks(bounds[0], bounds[-1])
        axes.set_xticks(ticks, [number(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(axis="y", color=INKS["rule"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="y", nbins=5)
        named(axes, "tokens of thinking, logarithmic", "answers, %")

    return small(draw, 250, 56)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two bounds, at most five; the bounds themselves when there are fewer than two."""
    whole = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [float(step * 10**power) for power in whole for step in steps if low <= step * 10**power <= high]
        if len(found) <= 5:
            break
    return found[:: math.ceil(len(found) / 5)] if len(found) > 1 else [low, high]
