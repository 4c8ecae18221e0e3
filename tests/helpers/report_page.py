"""Readers of the rendered reports: a strict one of the page, and all of them as text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

from harness.runs.folder import RunFolder
from reports.render import render
from reports.samples.index import PairRow

NAMES = ("index.html", "junit.xml", "summary.md", "model_card.md", "badge.svg")
VOID = {"meta", "link", "br", "input", "wbr", "img", "hr"}
BLOCKS = {"td", "th", "dt", "dd", "li", "p", "small", "br", "h1", "h2", "h3", "pre"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order and ids are unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in BLOCKS:
            self.text += " "
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]][-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def index(self) -> dict[str, Any]:
        """What the page knows of every pair."""
        return dict(json.loads(self.raw["script"][-1]))

    @property
    def kinds(self) -> list[str]:
        """The kind of every pair, in the page's order."""
        return [self.index["kinds"][PairRow(*row).kind][0] for row in self.index["rows"]]


def page_of(folder: RunFolder) -> Page:
    return Page(render(folder.path).read_text("utf-8"))


def side_files(folder: RunFolder) -> dict[str, list[Any]]:
    """What each script beside the page hands over, by its name."""
    found = {}
    for path in (folder.report_path / "samples").iterdir():
        call = re.fullmatch(r'quantgateTexts\("([0-9a-z-]+)",(\[.*\])\);\n', path.read_text("utf-8"))
        assert call and f"{call[1]}.js" == path.name
        found[call[1]] = json.loads(call[2])
    return found


def texts_of(folder: RunFolder) -> list[dict[str, Any]]:
    """The texts of every pair, in the order of the page's index."""
    files = side_files(folder)
    pairs = []
    for number in range(len(files) // 2):
        prompts = dict(files[f"{number}-prompts"])
        pairs += [pair | {"prompt": prompts[pair["path"]]} for pair in files[str(number)]]
    return pairs


def reports_of(folder: RunFolder) -> dict[str, str]:
    """Every report, by name."""
    render(folder.path)
    return {name: (folder.report_path / name).read_text("utf-8").replace("<wbr>", "") for name in NAMES}


def plain(text: str) -> str:
    """Markup of HTML and Markdown taken away from a text without letters that need it."""
    return text.replace("\\", "").replace("&gt;", ">").replace("&#39;", "'").replace("&#x27;", "'")


def printed(markup: str) -> list[str]:
    """The texts of a drawing's first image."""
    root = ET.fromstring(f"<figure>{markup}</figure>")
    return [element.text for element in root[0].iter() if element.tag.endswith("text") and element.text]
