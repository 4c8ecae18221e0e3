"""A section for a model card: front matter that model hubs read, the tables, and what they do not show."""

from __future__ import annotations

from typing import Any

from huggingface_hub import CardData

from reports.markdown import MAX_LINES, SIGNS, banner_lines, check_table, escape, model_table
from reports.text import one_line, percent, points, short_hash
from reports.view import Report

_LICENCE = "# license: the base model's licence applies; name it here.\n"


def render_model_card(report: Report) -> str:
    """Front matter and Markdown to paste into the README of the quantized model."""
    front = CardData(**_front_matter(report)).to_yaml() + "\n"
    lines = ["## Evaluation of the quantized model", "", *_status(report), ""]
    lines += model_table(report) + check_table(report) + _score_table(report)
    lines += ["### What this does not show", "", *(f"- {line}" for line in _limits(report)), ""]
    lines += ["### Licence and attribution", "", *_licence(report)]
    return f"---\n{front}{_LICENCE}---\n\n" + "\n".join(lines) + "\n"


def _front_matter(report: Report) -> dict[str, Any]:
    reference, candidate = report.model("reference"), report.model("candidate")
    front: dict[str, Any] = {}
    if reference:
        front |= {"base_model": one_line(reference.name, 120), "base_model_relation": "quantized"}
    front["tags"] = ["quantized", "quantgate"]
    results = [
        {
            "task": {"type": "text-generation", "name": "Text generation"},
            "dataset": {"type": one_line(f"{suite.name}/{task.task}", 120), "name": one_line(task.task, 120)},
            "metrics": [
                {
                    "type": "accuracy",
                    "name": "score of the quantized model",
                    "value": round(task.candidate.score, 4),
                }
            ],
        }
        for suite in report.suites
        for task in suite.tasks
        if task.candidate.score is not None
    ]
    if candidate and results:
        front["model-index"] = [{"name": one_line(candidate.name, 120), "results": results}]
    return front


def _status(report: Report) -> list[str]:
    sign = SIGNS.get(report.outcome, "❔")
    lines = [
        f"{sign} **{report.headline}** under policy {escape(report.policy_name)} "
        f"(`{short_hash(report.policy_sha256)}`), {escape(report.created)}. {escape(report.sentence, 900)}"
    ]
    if report.outcome != "PASS":
        lines += [
            "",
            "**This model did not pass its release checks.** This section goes only when the model goes.",
        ]
    return lines + [line for banner in report.banners for line in ("", *banner_lines(banner))]


def _score_table(report: Report) -> list[str]:
    rows = [(suite, task) for suite in report.suites for task in suite.tasks if task.reference.n]
    lines: list[str] = []
    if rows:
        lines += [
            "| Task | n | Reference | Quantized | Difference, points | Cut off: reference, quantized |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {escape(suite.name)}/{escape(task.task)} | {task.reference.n:,} | "
            f"{percent(task.reference.score)} | {percent(task.candidate.score)} | "
            f"{points(task.difference)} | "
            f"{percent(task.reference.cap_hit_rate)}, {percent(task.candidate.cap_hit_rate)} |"
            for suite, task in rows
        ]
        lines.append("")
    for suite in report.suites:
        if suite.divergence and suite.divergence.documents:
            d = suite.divergence
            mean = " to ".join(f"{v:.4f}" for v in (d.lower, d.upper) if v is not None)
            lines += [
                f"KL divergence from the reference: {mean} nats a position over {d.positions:,.0f} positions "
                f"of {len(d.documents):,} documents.",
                "",
            ]
    return lines


def _limits(report: Report) -> list[str]:
    asked = [f"{suite.name}/{task.task}" for suite in report.suites for task in suite.tasks if task.reference.n]
    asked += [suite.name for suite in report.suites if suite.divergence and suite.divergence.documents]
    limits = [
        f"Only this was asked: {escape(', '.join(asked), 600)}. Other tasks, languages and longer contexts are unknown."
        if asked
        else "Nothing was asked of this model.",
        "The checks compare with the reference. They say nothing about its own faults, safety or bias.",
        "A check that holds bounds the loss by its margin; it does not show that there is none. "
        "A check with few items (n above) can only have a wide margin.",
    ]
    if report.confidence:
        limits.append(f"Each bound is one-sided at {100 * report.confidence:g} %: of many such bounds some are wrong.")
    if report.sampling:
        settings = ", ".join(f"{name} {value}" for name, value in report.sampling)
        limits.append(f"Sampled with {escape(settings)}; a suite may set its own budget. Other settings are unknown.")
    versions = dict(report.provenance.versions)
    if "vllm" in versions:
        limits.append(f"Served with vLLM {escape(versions['vllm'])}. Other engines and kernels may behave differently.")
    return limits + [escape(note, 600) for note in [*report.remarks, *report.notes][:MAX_LINES]]


def _licence(report: Report) -> list[str]:
    reference = report.model("reference")
    base = escape(reference.name) if reference else "the base model"
    return [
        f"Derived from {base} by quantization. The base model's licence applies, and with it its terms of attribution."
    ]
