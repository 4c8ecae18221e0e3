"""Speed: output tokens a second and time to the first token, by concurrency."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.contract.pairs import Pair
from reports.drawing.canvas import ROLE_LEGEND, SuiteFigure
from reports.drawing.charts import Curve, curves, finite
from reports.scores import by_task
from reports.suite_tables.table import SuiteRun, average
from reports.text import number

_TASK = re.compile(r"c([0-9]{1,9})")
Means = dict[int, tuple[float, float]]
"""By number of concurrent requests: of the reference and of the candidate, over the rounds."""


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Tokens a second and time to the first, where there are several numbers of concurrent requests."""
    tokens = means(run, "tokens_per_second")
    found = []
    if len(tokens) > 1:
        curve = _curve(tokens)
        svg = curves(_places(tokens), [curve], "requests at once", "output tokens a second", low=0.0)
        said = f"{_finding(tokens, 'tokens a second')} More is better."
        found.append(SuiteFigure("Output tokens a second", said, svg))
    half, most = means(run, "ttft_p50_ms"), means(run, "ttft_p99_ms")
    if len(half) > 1:
        drawn = [_curve(half), *([_curve(most, dashed=True)] if half.keys() == most.keys() else [])]
        svg = curves(_places(half), drawn, "requests at once", "milliseconds", low=0.0)
        said = f"{_finding(half, 'ms')} Less is better."
        legend = (*ROLE_LEGEND, ("line", "median"), ("dash", "99 %")) if len(drawn) > 1 else ROLE_LEGEND
        found.append(SuiteFigure("Time to the first token", said, svg, legend))
    return found


def means(run: SuiteRun, metric: str) -> Means:
    """Means of a metric over the rounds that both roles have."""
    found: Means = {}
    for task, pairs in by_task(run.pairs).items():
        match = _TASK.fullmatch(task)
        roles = [average(role) for role in zip(*_measured(pairs, metric), strict=True)]
        if match and roles and finite(*roles):
            found[int(match[1])] = (roles[0] or 0.0, roles[1] or 0.0)
    return dict(sorted(found.items()))


def _measured(pairs: Sequence[Pair], metric: str) -> list[tuple[float, float]]:
    return [(r.metrics[metric], c.metrics[metric]) for r, c in pairs if metric in r.metrics and metric in c.metrics]


def _curve(found: Means, dashed: bool = False) -> Curve:
    return Curve([r for r, _ in found.values()], [c for _, c in found.values()], dashed)


def _places(found: Means) -> list[str]:
    return [number(concurrency) for concurrency in found]


def _finding(found: Means, unit: str) -> str:
    said = []
    for concurrency in (min(found), max(found)):
        reference, candidate = found[concurrency]
        requests = "1 request" if concurrency == 1 else f"{number(concurrency)} requests"
        said.append(f"{_figure(reference)} and {_figure(candidate)} {unit} with {requests}")
    return f"Reference and candidate: {'; '.join(said)} at once."


def _figure(value: float) -> str:
    return number(value, 0 if abs(value) >= 100 else 1)
