"""Markdown for a pull request comment or a job summary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reports.provenance import ModelView
from reports.remarks import Banner
from reports.text import one_line, short_hash
from reports.view import Report

SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "⚠️"}
MAX_LINES = 40
MAX_ROWS = 24
"""Of a suite's table; the rest is in the report."""
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
        f"## {SIGNS.get(report.outcome, '❔')} quantgate: {report.headline}",
        "",
        escape(report.sentence, 900),
    ]
    lines += ["", f"**{report.meaning}**", ""]
    for banner in report.banners:
        lines += ["> [!WARNING]", *(f"> {line}" for line in banner_lines(banner)), ""]
    lines += model_table(report)
    lines += check_table(report)
    lines += suite_tables(report)
    lines += [line for remark in report.remarks[:MAX_LINES] for line in (escape(remark, 600), "")]
    if report.notes:
        lines += ["**Missing or odd**", "", *(f"- {escape(note)}" for note in report.notes[:20]), ""]
    lines.append(
        f"Policy {escape(report.policy_name)} `{short_hash(report.policy_sha256)}` · "
        f"{escape(report.created)} · {escape(report.total_time)} · run {escape(report.run_id)}"
    )
    return "\n".join(lines) + "\n"


def banner_lines(banner: Banner) -> list[str]:
    """A banner as a bold line and a list."""
    lines = [f"**{escape(banner.title)}**", ""] + [f"- {escape(line, 600)}" for line in banner.lines[:MAX_LINES]]
    left_out = len(banner.lines) - MAX_LINES
    return lines if left_out <= 0 else [*lines, f"- {left_out} more are in the report"]


def model_table(report: Report) -> list[str]:
    """What was compared, one column a role."""
    if not report.models:
        return []
    rows = [
        ("Name", [escape(model.name) for model in report.models]),
        ("Quantization", [escape(model.quantization) for model in report.models]),
        ("Bits per weight", [model.bits_per_weight for model in report.models]),
        ("in linear layers", [escape(model.linear_bits) for model in report.models]),
        ("Size", [model.size for model in report.models]),
        ("Bytes by dtype", [escape(model.tensor_bytes) or "unknown" for model in report.models]),
        ("Says of itself", [_claims(model) for model in report.models]),
        ("sha256", [f"`{model.short_sha256}`" for model in report.models]),
    ]
    lines = [
        "| | " + " | ".join(model.role for model in report.models) + " |",
        "| --- |" + " --- |" * len(report.models),
    ]
    return lines + [f"| {name} | " + " | ".join(values) + " |" for name, values in rows] + [""]


def _claims(model: ModelView) -> str:
    return "<br>".join(escape(f"{source}: {text}") for source, text in model.claimed) or "nothing"


def check_table(report: Report) -> list[str]:
    """The checks, those closest to failing first."""
    if not report.checks:
        return ["No checks.", ""]
    lines = [
        "| | Check | Estimate | Bounds | Margin | n | b / c / D | Power | Left out | Why |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.checks[:MAX_CHECKS]:
        cells = [
            f"{SIGNS[row.result.verdict]} {row.result.verdict}",
            escape(row.result.name),
            "<br>".join(filter(None, [row.estimate, row.noise, row.noise_counts])),
            row.interval,
            f"{row.margin} {row.unit}".strip(),
            "<br>".join(filter(None, [f"{row.result.n:,}", row.needed])),
            row.counts,
            row.power,
            ", ".join(row.unusable) or "0",
            "<br>".join([escape(row.result.reason, 400), *(f"**{escape(remark)}**" for remark in row.remarks)]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if len(report.checks) > MAX_CHECKS:
        lines += ["", f"{len(report.checks) - MAX_CHECKS} further checks are in the report."]
    return [*lines, ""]


def suite_tables(report: Report) -> list[str]:
    """The first table of each suite, with what could not be scored; all others are in the report."""
    lines = []
    for suite in report.suites:
        if not suite.tables:
            continue
        table = suite.tables[0]
        lines += [f"**{escape(suite.name)}: {escape(table.title)}**", ""]
        if table.rows:
            shown = table.rows if len(table.rows) <= MAX_ROWS else [*table.rows[: MAX_ROWS - 1], table.rows[-1]]
            lines += [_row(table.columns), "| --- |" + " ---: |" * (len(table.columns) - 1), *map(_row, shown), ""]
            if len(shown) < len(table.rows):
                lines += [f"{len(table.rows) - len(shown)} further rows are in the report.", ""]
        if table.note:
            lines += [escape(table.note, 600), ""]
        for what, said in (("Errors", suite.errors_said), ("Answers without a score", suite.unscored_said)):
            if said:
                lines += [f"{what}: {escape(said, 900)}.", ""]
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"
