"""The page: templates filled from the view; style and script inlined, and allowed by their hash."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports import text
from reports.drawing import forest
from reports.drawing.canvas import SuiteFigure
from reports.samples.index import PairsView
from reports.samples.links import pairs_link
from reports.samples.pairs import KINDS
from reports.samples.side_files import CALL, FOLDER, Texts, inert_json
from reports.view import Report

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("report.css", "figures.css", "samples.css", "provenance.css")
SCRIPTS = ("report.js", "checks.js", "words.js", "texts.js", "pair.js", "samples.js")
"""Joined in this order."""

_PLAIN = re.compile(r"[a-z][a-z0-9_-]*")

BESIDE = "'self' file:"
"""What may be loaded besides the page's own script: files of the folder that it came from. Chromium takes 'self' for
that from disk and over http alike. Where a browser gives a file no origin, 'self' means nothing and file: is needed;
over http it opens nothing, since no browser lets such a page load from the disk."""


def render_html(report: Report, texts: Texts | None = None) -> str:
    """The page, which opens from disk: no request leaves it, and script in a model's answer cannot run.

    `texts` says where the texts of the samples are; without it they cannot be opened.
    """
    texts = texts or Texts()
    style, script = style_sheet(), "".join((TEMPLATES / name).read_text("utf-8") for name in SCRIPTS)
    beside = f" {BESIDE}" if texts.starts else ""
    policy = (
        f"default-src 'none'; style-src '{source_hash(style)}'; script-src '{source_hash(script)}'{beside}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        environment()
        .get_template("index.html.j2")
        .render(
            report=report,
            content_policy=policy,
            style=Markup(style),
            script=Markup(script),
            texts=texts,
            pairs_json=embed_json(_index(report.pairs, texts)),
            forest=_svg(forest.forest(report.checks)),
            forest_of=forest.drawn(report.checks),
            suite_figures={suite.name: _suite_figure(report, place) for place, suite in enumerate(report.suites)},
            suite_ids=_suite_ids(report),
            pairs_links=[pairs_link(row.result, report.pairs) for row in report.checks],
        )
    )


def _suite_ids(report: Report) -> dict[str, str]:
    """Where each suite stands on the page: by its name, where that can be an address."""
    names = [suite.name for suite in report.suites]
    return {name: f"suite-{name if _PLAIN.fullmatch(name) else place}" for place, name in enumerate(names)}


def style_sheet() -> str:
    """The style of every page."""
    return "".join((TEMPLATES / name).read_text("utf-8") for name in STYLES)


def _index(pairs: PairsView, texts: Texts) -> dict[str, object]:
    """What the page's script knows from the start; its rows are PairRow."""
    index: dict[str, object] = {
        "tasks": pairs.tasks,
        "languages": pairs.languages,
        "kinds": list(KINDS.items()),
        "rows": pairs.rows,
        "starts": texts.starts,
        "folder": FOLDER,
        "call": CALL,
    }
    if texts.inlined is not None:
        index["inlined"] = [pair.record(with_prompt=True) for pair in texts.inlined]
    return index


def embed_json(value: object) -> Markup:
    """JSON to stand inside <script type="application/json">: nothing in it can end the element."""
    return Markup(inert_json(value))


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
        "worded": text.worded,
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


def _suite_figure(report: Report, place: int) -> list[tuple[SuiteFigure, Markup]]:
    """A suite's figures, drawn."""
    found = report.suites[place].figures
    return [(figure, Markup(figure.draw(f"suite-{place}-{number}"))) for number, figure in enumerate(found)]


def _svg(drawing: str | None) -> Markup | None:
    return None if drawing is None else Markup(drawing)
