"""Front matter of a model card: base model, licence, tags and results (`model-index`), as model hubs read them."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from harness.contract.datasets import PublicDataset
from harness.contract.errors import BadInput
from reports.cards.licence import Origin, public_name
from reports.check_rows import CheckRow
from reports.known_suites import known_suite
from reports.provenance import ModelView
from reports.scores import TaskScores
from reports.text import one_line
from reports.view import Report

TASK = "Text generation, compared with its reference by quantgate"
"""Name of the task in every result of ours, by which a later run finds and replaces them."""


def front_matter(report: Report, origin: Origin, source_url: str | None = None) -> dict[str, Any]:
    """The keys of a card's front matter; only those that are known.

    `source_url` is where the report is published; results without one name no source.

    Raises:
        BadInput: it is no http(s) address.
    """
    if source_url is not None and not source_url.startswith(("https://", "http://")):
        raise BadInput(f"--source-url is {one_line(source_url, 80)}; give the http(s) address of the published report")
    candidate = report.model("candidate")
    known: dict[str, Any] = {"base_model": origin.base, "tags": ["quantized", "quantgate"]}
    if origin.base and _is_quantized_of(origin, candidate):
        known["base_model_relation"] = "quantized"
    if not origin.disagree:
        known |= origin.licence
    found = _results(report, source_url) if candidate else []
    if candidate and found:
        known |= {"eval_results": found, "model_name": public_name(candidate.name)}
    return dict(ModelCardData(**known).to_dict())  # type: ignore[no-untyped-call]


def _is_quantized_of(origin: Origin, candidate: ModelView | None) -> bool:
    """Whether the candidate is a quantized form of its base model, and not of something made of that one."""
    if origin.is_reference:
        return True
    own_words = candidate is not None and origin.said_by == "the candidate's card" and candidate.quantization != "none"
    relation = dict(candidate.claimed).get("card: base_model_relation") if candidate else None
    return own_words and relation in (None, "quantized")


def to_yaml(front: dict[str, Any]) -> str:
    """Front matter as YAML, without the lines of dashes."""
    return ModelCardData(**front).to_yaml().rstrip("\n") + "\n"


def source_of(report: Report, suite: str, task: str) -> PublicDataset | None:
    """The public data set that a task is made of, where that is known."""
    return known_suite(suite).source(report.settings.get(suite), task)


def _results(report: Report, source_url: str | None) -> list[EvalResult]:
    found = []
    for suite in report.suites:
        scored = [task for task in suite.tasks if task.candidate.score is not None]
        known = known_suite(suite.name)
        for tasks in [[task] for task in scored] if known.result_by_task else [scored] if scored else []:
            place, on = _place(report, suite.name, tasks)
            checks = [r for r in report.checks if r.result.metric == known.score and r.result.on in on]
            metrics = [*_scores(known.score, tasks), *map(_of_check, checks)]
            found += [_result(place, metric, source_url) for metric in metrics]
    place = {"dataset_type": "quantgate-divergence", "dataset_name": "answers of the reference"}
    for row in report.checks:
        if row.result.metric in ("tv_mean", "js_mean", "kl_capped_mean", "kl_mean"):
            found.append(_result(place, _of_check(row), source_url))
    return [result for result in found if result.metric_value is not None]


def _result(place: dict[str, Any], metric: dict[str, Any], source_url: str | None) -> EvalResult:
    source: dict[str, Any] = {"source_name": "quantgate report", "source_url": source_url} if source_url else {}
    return EvalResult(task_type="text-generation", task_name=TASK, **place, **metric, **source)


def _place(report: Report, suite: str, tasks: list[TaskScores]) -> tuple[dict[str, Any], set[str]]:
    """The data set of these tasks, and what a check that speaks of just them is on."""
    by_task = known_suite(suite).result_by_task
    on = {f"{suite}/{tasks[0].task}"} if by_task else {suite}
    name = one_line(tasks[0].task if by_task else suite, 120)
    public = source_of(report, suite, tasks[0].task)
    if public is None:
        # Without a slash: a data set that quantgate makes is nobody's on a hub.
        return {"dataset_type": f"quantgate-{name}", "dataset_name": name}, on
    config, split = public.config, public.split
    return {
        "dataset_type": public.hub_id,
        "dataset_name": name,
        "dataset_config": config,
        "dataset_split": split,
    }, on


def _scores(kind: str, tasks: list[TaskScores]) -> list[dict[str, Any]]:
    """The mean score of the candidate, and of its reference, over items."""
    items = sum(task.items for task in tasks)
    args = {"n": sum(task.n for task in tasks), "items": items}
    if len(tasks) > 1:
        args["tasks"] = len(tasks)
    both = {
        kind: ("score of the quantized model", [task.candidate for task in tasks]),
        f"reference_{kind}": ("score of the reference under the same settings", [task.reference for task in tasks]),
    }
    return [
        {
            "metric_type": metric,
            "metric_name": name,
            "metric_value": _rounded(sum((r.score or 0) * t.items for r, t in zip(roles, tasks, strict=True)) / items),
            "metric_args": args,
        }
        for metric, (name, roles) in both.items()
    ]


def _of_check(row: CheckRow) -> dict[str, Any]:
    result = row.result
    kind = f"{result.metric}_loss" if result.margin_kind == "max_loss" else result.metric
    return {
        "metric_type": kind,
        "metric_name": one_line(f"{result.name}: {result.verdict}", 200),
        "metric_value": _rounded(result.estimate),
        "metric_args": {
            "n": result.n,
            "lower": _rounded(result.lower),
            "upper": _rounded(result.upper),
            "confidence": result.confidence,
            "margin": result.margin,
            "verdict": result.verdict,
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
