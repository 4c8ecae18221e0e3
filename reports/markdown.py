"""Markdown for a pull request comment or a job summary."""

from __future__ import annotations

import re

from reports.text import one_line, short_hash
from reports.view import Report

SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "⚠️"}
MAX_CHECKS = 200
"""GitHub refuses a job summary over 1 MiB; the report itself has every check."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def escape(text: str, limit: int = 300) -> str:
    """Foreign text on one line that Markdown prints as it is: no markup, no HTML, no mention of anybody."""
    line = one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line).replace("@", "&#64;").replace("://", "&#58;//")


def render_markdown(report: Report) -> str:
    """The report's head and its checks, for people who will not open the page."""
    lines = [
        f"## {SIGNS.get(report.outcome, '❔')} quantgate: {report.outcome}",
        "",
        escape(report.sentence, 900),
    ]
    lines += ["", f"**{report.meaning}**", ""]
    if report.after_the_fact:
        lines += [
            "> [!WARNING]",
            f"> Judged after the fact: by policy `{report.policy_sha256}`, "
            f"while the run was sealed with `{report.sealed_sha256}`.",
            "",
        ]
    lines += model_table(report)
    lines += check_table(report)
    if report.notes:
        lines += ["**Missing or odd**", "", *(f"- {escape(note)}" for note in report.notes[:20]), ""]
    lines.append(
        f"Policy {escape(report.policy_name)} `{short_hash(report.policy_sha256)}` · "
        f"{escape(report.created)} · {escape(report.total_time)} · run {escape(report.run_id)}"
    )
    return "\n".join(lines) + "\n"


def model_table(report: Report) -> list[str]:
    """What was compared, one column a role."""
    if not report.models:
        return []
    rows = [
        ("Name", [escape(model.name) for model in report.models]),
        ("Quantization", [escape(model.quantization) for model in report.models]),
        ("Bits per weight", [model.bits_per_weight for model in report.models]),
        ("Size", [model.size for model in report.models]),
        ("sha256", [f"`{model.short_sha256}`" for model in report.models]),
    ]
    lines = [
        "| | " + " | ".join(model.role for model in report.models) + " |",
        "| --- |" + " --- |" * len(report.models),
    ]
    return lines + [f"| {name} | " + " | ".join(values) + " |" for name, values in rows] + [""]


def check_table(report: Report) -> list[str]:
    """The checks, those closest to failing first."""
    if not report.checks:
        return ["No checks.", ""]
    lines = [
        "| | Check | Estimate | Bounds | Margin | n | b / c / D | Left out | Why |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.checks[:MAX_CHECKS]:
        cells = [
            f"{SIGNS[row.result.verdict]} {row.result.verdict}",
            escape(row.result.name),
            row.estimate,
            row.interval,
            f"{row.margin} {row.unit}",
            f"{row.result.n:,}",
            row.counts,
            ", ".join(row.unusable) or "0",
            escape(row.result.reason, 400),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if len(report.checks) > MAX_CHECKS:
        lines += ["", f"{len(report.checks) - MAX_CHECKS} further checks are in the report."]
    return [*lines, ""]
