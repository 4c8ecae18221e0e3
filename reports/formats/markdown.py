"""Markdown for a pull request comment or a job summary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from reports.provenance import ModelView
from reports.remarks import Banner
from reports.samples.index import PairRow
from reports.samples.pairs import KINDS
from reports.suite_view import SuiteView
from reports.text import ABSENT, one_line, plural, short_hash
from reports.view import Report

SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "⚠️"}
MAX_LINES = 40
MAX_ROWS = 24
"""Of a suite's table; the rest is in the report."""
MAX_CHECKS = 200
MAX_FLIPS = 8
MOST_BYTES = 59_000
"""A comment on a pull request holds 65,536 characters, a job summary 1 MiB."""
MOST_OF_A_PART = 24_000

_MENTION = re.compile(r"@(?!(?<=\w@)\d+(?![\w.]))")
"""Any @ but that of a length, as in vt@4096: neither a mention nor an address."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$])")


def escape(text: str, limit: int = 300) -> str:
    """Foreign text on one line that Markdown prints as it is: no markup, no HTML, no mention of anybody."""
    line = one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MENTION.sub("&#64;", _SPECIAL.sub(r"\\\1", line)).replace("://", "&#58;//")


def render_markdown(report: Report) -> str:
    """The report's head, its checks and its worst flips, for people who will not open the page.

    Never longer than MOST_BYTES: what does not fit is left out from the least important part, which says so.
    """
    head = [f"## {SIGNS.get(report.outcome, '❔')} quantgate: {report.headline}", "", escape(report.sentence, 900), ""]
    head += [f"**{report.meaning}**", ""]
    for banner in report.banners:
        head += ["> [!WARNING]", *(f"> {line}" for line in banner_lines(banner)), ""]
    notes = [line for remark in report.remarks[:MAX_LINES] for line in (escape(remark, 600), "")]
    if report.notes:
        notes += ["**Missing or odd**", "", *(f"- {escape(note)}" for note in report.notes[:20]), ""]
    last = (
        f"The whole report is `report/index.html` in the folder of run {escape(report.run_id)} · "
        f"policy {escape(report.policy_name)} `{short_hash(report.policy_sha256)}` · "
        f"{escape(report.created)} · {escape(report.total_time)}"
    )
    # In the order in which they are read; how much room each may take is decided in the order of importance.
    parts = [head, check_table(report), _flips(report), folded("What was compared", model_table(report))]
    parts += [notes, *(folded(f"Suite {suite.name}", _suite_table(suite)) for suite in report.suites)]
    room = MOST_BYTES - _bytes([last])
    shown: dict[int, list[str]] = {}
    for place in (0, 1, 4, 2, 3, *range(5, len(parts))):
        shown[place] = within(parts[place], min(room, MOST_OF_A_PART))
        room -= _bytes(shown[place])
    return "\n".join([line for place in sorted(shown) for line in shown[place]] + [last]) + "\n"


def within(lines: Sequence[str], room: int) -> list[str]:
    """As many of the lines, in whole, as `room` bytes hold; all of a fold or none of it."""
    if _bytes(lines) <= room:
        return list(lines)
    left_out = ["", "_The rest of this part does not fit here; the report has it._", ""]
    if lines[0].startswith("<details>"):
        return left_out if _bytes(left_out) <= room else []
    kept: list[str] = []
    room -= _bytes(left_out)
    for line in lines:
        room -= _bytes([line])
        if room < 0:
            break
        kept.append(line)
    return [*kept, *left_out] if kept else []


def _bytes(lines: Sequence[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def folded(title: str, lines: list[str]) -> list[str]:
    """The lines in a fold that stands closed; nothing of nothing."""
    return ["<details>", f"<summary>{escape(title)}</summary>", "", *lines, "</details>", ""] if lines else []


def _flips(report: Report) -> list[str]:
    """Pairs in which the candidate is worse, and how many there are: of each task the largest loss, then the next."""
    kinds = list(KINDS)
    counts = Counter(kinds[row.kind] for row in report.pairs.rows)
    if not counts["worse"]:
        return []
    before: Counter[int] = Counter()
    turns: list[tuple[int, PairRow]] = []
    for row in report.pairs.rows:
        if kinds[row.kind] == "worse":
            turns.append((before[row.task], row))
            before[row.task] += 1
    worst = [row for _, row in sorted(turns, key=lambda turn: turn[0])[:MAX_FLIPS]]
    said = f"**{plural(counts['worse'], 'pair')} worse with the candidate, {counts['better']:,} better**; the worst:"
    lines = [said, "", "| Item | Score: reference → candidate | Answer: reference | Answer: candidate |"]
    lines += ["| --- | ---: | --- | --- |"]
    for row in worst:
        name = "/".join([*report.pairs.tasks[row.task], row.item, str(row.repeat)])
        answers = [escape(answer or "", 60) or "–" for answer in row.answers]
        lines.append(f"| {escape(name, 120)} | {escape(row.scores, 60)} | {' | '.join(answers)} |")
    return [*lines, ""]


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
        "| | Check | Reference → candidate | Recovery | Loss or distance | Bounds | Margin | n | b / c / D | Why |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report.checks[:MAX_CHECKS]:
        why = [escape(row.reason, 400), *(f"**{escape(remark)}**" for remark in row.remarks)]
        why += [f"left out: {', '.join(row.unusable)}"] if row.unusable else []
        why += [f"power {row.power}"] if row.power != ABSENT else []
        cells = [
            f"{SIGNS[row.result.verdict]} {row.result.verdict}",
            escape(row.label),
            row.both or ABSENT,
            row.recovery or ABSENT,
            "<br>".join(filter(None, [row.value, row.noise, row.noise_counts])),
            row.interval,
            f"{row.margin} {row.unit}".strip(),
            f"{row.result.n:,}",
            row.counts,
            "<br>".join(why),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if len(report.checks) > MAX_CHECKS:
        lines += ["", f"{len(report.checks) - MAX_CHECKS} further checks are in the report."]
    return [*lines, ""]


def _suite_table(suite: SuiteView) -> list[str]:
    """The first table of a suite, with what could not be scored; all others are in the report."""
    if not suite.tables:
        return []
    table = suite.tables[0]
    lines = [f"**{escape(suite.name)}: {escape(table.title)}**", ""]
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
