"""A badge for a README: self-contained SVG, the verdict in a word as well as in colour."""

from __future__ import annotations

from xml.sax.saxutils import escape

from reports.text import plural
from reports.view import Report

_COLOURS = {"PASS": "#00664d", "FAIL": "#a83200", "INCONCLUSIVE": "#7a5600"}


def render_badge(report: Report) -> str:
    """The badge of one run: "quantgate | PASS · 5 checks"."""
    held = sum(row.result.verdict == "PASS" for row in report.checks)
    if report.outcome == "PASS":
        right = f"PASS · {plural(len(report.checks), 'check')}"
    elif held < len(report.checks):
        right = f"{report.outcome} · {held} of {len(report.checks)} hold"
    else:
        right = report.outcome
    if report.after_the_fact:
        right += " · after the fact"
    left_width, right_width = _width("quantgate"), _width(right)
    total = left_width + right_width
    label = escape(f"quantgate: {right}", {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" '
        f'aria-label="{label}">\n'
        f"<title>{label}</title>\n"
        f'<rect width="{total}" height="20" rx="3" fill="#24292f"/>\n'
        f'<path d="M{left_width} 0h{right_width - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right_width - 3}z" '
        f'fill="{_COLOURS.get(report.outcome, "#57606a")}"/>\n'
        '<g fill="#fff" font-family="system-ui,-apple-system,Segoe UI,Verdana,sans-serif" font-size="11" '
        'text-anchor="middle">\n'
        f'<text x="{left_width / 2:g}" y="14">quantgate</text>\n'
        f'<text x="{left_width + right_width / 2:g}" y="14">{escape(right)}</text>\n'
        "</g>\n</svg>\n"
    )


def _width(text: str) -> int:
    """Width of text at 11 px with room at both sides: generous, since nobody knows the reader's font."""
    return round(6.6 * len(text)) + 14
