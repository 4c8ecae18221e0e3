"""The page: templates filled from the view; style and script inlined, and allowed by their hash."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports import figures, text
from reports.view import Report

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("report.css",)
"""Joined in this order."""


def render_html(report: Report) -> str:
    """One HTML file that opens from disk: no request leaves it, and script in a model's answer cannot run."""
    style = style_sheet()
    script = (TEMPLATES / "report.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; style-src '{source_hash(style)}'; script-src '{source_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        environment()
        .get_template("index.html.j2")
        .render(
            report=report,
            content_policy=policy,
            style=Markup(style),
            script=Markup(script),
            pairs_json=embed_json([asdict(pair) for pair in report.pairs.shown]),
            forest=_svg(figures.forest(report.checks)),
            suite_figures={suite.name: _suite_figure(report, place) for place, suite in enumerate(report.suites)},
        )
    )


def style_sheet() -> str:
    """The style of every page."""
    return "".join((TEMPLATES / name).read_text("utf-8") for name in STYLES)


def embed_json(value: object) -> Markup:
    """JSON to stand inside <script type="application/json">: nothing in it can end the element."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return Markup(data)


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters |= {
        "number": text.number,
        "plural": text.plural,
        "short_hash": text.short_hash,
        "lines": _lines,
    }
    return made


def _finalize(value: object) -> object:
    """Every text that a template prints is made visible first; markup made here is left as it is."""
    return text.visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _lines(value: str) -> Markup:
    """Text that may break after slashes and underscores, so that long names do not widen a narrow page."""
    escaped = str(escape(text.visible(value)))
    return Markup(escaped.replace("/", "/<wbr>").replace("_", "_<wbr>"))


def source_hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _suite_figure(report: Report, place: int) -> Markup | None:
    suite = report.suites[place]
    if suite.divergence:
        return _svg(figures.kl_by_document(suite.divergence, f"suite-{place}"))
    return _svg(figures.task_scores(suite.tasks, f"suite-{place}")) if len(suite.tasks) > 1 else None


def _svg(drawing: str | None) -> Markup | None:
    return None if drawing is None else Markup(drawing)
