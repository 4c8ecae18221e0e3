"""A model card that is there already: the report's section and metadata are laid into it, the rest stays as it is."""

from __future__ import annotations

import io
import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness.contract.errors import BadInput
from harness.contract.text import quoted
from harness.contract.whole_files import write_whole
from reports.cards.licence import origin
from reports.cards.model_card import card_section
from reports.cards.model_index import TASK, front_matter, to_yaml
from reports.view import Report

BEGIN = "<!-- quantgate: begin. Written by `quantgate card`; what stands up to the end mark is replaced. -->"
END = "<!-- quantgate: end -->"
OWNERS = ("base_model", "base_model_relation", "license", "license_name", "license_link")
"""Keys of which the card's owner has the last word: they are only added where the card has none."""
PARTLY = "is written in a way that cannot be changed in part; add ours by hand"
MARKDOWN = (".md", ".markdown")

_MARKS = re.compile(r"^<!-- quantgate: begin\b.*?-->$|^<!-- quantgate: end -->$", re.MULTILINE)
_KEY = re.compile(r"""^(["']?)([A-Za-z_][\w-]*)\1[ ]*:""")


class Merged(NamedTuple):
    """What came of laying a report into a card."""

    stayed: list[str]
    """What stayed as it was though the report says something else, in sentences."""
    backup: Path | None
    """The card as it was; None where there was none, or nothing changed."""


def merge_into(report: Report, path: Path, source_url: str | None = None, anyway: bool = False) -> Merged:
    """Lay the report's section and metadata into a README.md; done twice, nothing changes the second time.

    Between our marks everything is replaced. Of the front matter only our own keys change: `tags` and `model-index` are
    joined, others are added where there are none; comments, quotes and style of what stays are kept. A file that is not
    there is made, and one that is changed is kept beside itself. `anyway`: also a file whose name is not Markdown's.

    Raises:
        BadInput: a file of another kind, no file of text, front matter that cannot be read, marks that are torn apart,
            a bad `source_url`.
        OSError: it cannot be read or written.
    """
    path = path.resolve()  # a link stays a link
    if path.suffix.lower() not in MARKDOWN and not anyway:
        raise BadInput(f"{path} is no Markdown file: name the model's README.md, or write into it with --anyway")
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    found = origin(report.models)
    line_end = "\r\n" if "\r\n" in text else "\n"
    front, body = _split(text.replace("\r\n", "\n"), path)
    front, stayed = _with_metadata(front, front_matter(report, found, source_url), path)
    made = f"---\n{front}---\n{_with_section(body, card_section(report, found), path)}".replace("\n", line_end)
    backup = None
    if made != text:
        if path.exists():
            backup = _free_name(path)
            shutil.copy2(path, backup)
        write_whole(path, made)
    return Merged(stayed, backup)


def _free_name(path: Path) -> Path:
    """README.md.bak, or README.md.bak2 and so on: no earlier copy is overwritten."""
    names = (path.with_name(f"{path.name}.bak{number if number > 1 else ''}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _split(text: str, path: Path) -> tuple[str, str]:
    """(lines of the front matter, everything after it)."""
    text = text.removeprefix("\ufeff")
    if not text.startswith("---\n"):
        return "", f"\n{text}" if text and not text.startswith("\n") else text
    front, dashes, body = f"\n{text[4:]}".partition("\n---\n")
    if not dashes:
        if not text.endswith("\n---"):
            raise BadInput(f"{path}: its front matter does not end with a line ---; end it and run this again")
        front, body = f"\n{text[4:-4]}", ""
    return f"{front[1:]}\n" if front.strip() else "", body


def _with_section(body: str, section: str, path: Path) -> str:
    section = f"{BEGIN}\n\n{section}\n{END}"
    before = body.rstrip("\n")
    marks = list(_MARKS.finditer(body))
    if not marks:
        return f"{before}\n\n{section}\n" if before else f"\n{section}\n"
    kinds = [mark[0] == END for mark in marks]
    if kinds != [False, True]:
        raise BadInput(f"{path}: the marks of quantgate's section are not one begin and one end; mend or remove them")
    return body[: marks[0].start()] + section + body[marks[1].end() :]


def _with_metadata(front: str, ours: dict[str, Any], path: Path) -> tuple[str, list[str]]:
    before = _parse(front, path)
    same_base = "base_model" in ours and ours["base_model"] in _listed(before.get("base_model"))
    stayed = [
        f"{key} stays {before[key]!r}; the report says {ours[key]!r}"
        for key in OWNERS
        if key in ours and key in before and before[key] != ours[key] and not (key == "base_model" and same_base)
    ]
    new = {key: ours[key] for key in OWNERS if key in ours and key not in before}
    if "base_model" in before and not same_base:
        new.pop("base_model_relation", None)  # it speaks of the report's base model, not of the card's
    if "license" in before:
        new = {key: value for key, value in new.items() if not key.startswith("license")}
    for key, value in new.items():
        front += to_yaml({key: value})
    tags = before.get("tags") or []
    if not isinstance(tags, list | str):
        raise BadInput(f"{path}: tags is no list")
    more = [tag for tag in ours["tags"] if tag not in _listed(tags)]
    if more:
        front = _with_key(front, "tags", ours, lambda tags: _joined(tags, more), path)
    if "model-index" in before or "model-index" in ours:
        results = ours.get("model-index")
        front = _with_key(front, "model-index", ours, lambda index: _index(index, results, path), path)
    after, own = _parse(front, path), {*new, "tags", "model-index"}
    if {k: v for k, v in after.items() if k not in own} != {k: v for k, v in before.items() if k not in own}:
        raise BadInput(f"{path}: its front matter {PARTLY}")
    return front, stayed


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _joined(tags: Any, more: list[str]) -> Any:
    if not isinstance(tags, list):
        return [*_listed(tags), *more]
    tags.extend(more)
    return tags


def _index(index: Any, ours: Any, path: Path) -> Any:
    """`model-index` with our results in the place of those of an earlier run; other people's stay, and come first."""
    if index is None:
        return ours
    try:
        for entry in index:
            for place in reversed(range(len(entry["results"]))):
                if entry["results"][place]["task"].get("name") == TASK:
                    del entry["results"][place]
        if ours and index:
            # As text first: only so are its numbers written as every reader of YAML reads them.
            index[0]["results"].extend(_round_trip().load(to_yaml({"model-index": ours}))["model-index"][0]["results"])
        for place in reversed(range(len(index))):
            if not index[place]["results"]:
                del index[place]
        return index or ours
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: model-index is not what a model hub reads ({type(error).__name__}: {error})") from None


def _round_trip() -> YAML:
    """Keeps comments, quotes and flow style of what it reads."""
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes, yaml.width = True, 1 << 20
    return yaml


def _parse(front: str, path: Path) -> dict[str, Any]:
    try:
        data = YAML(typ="safe", pure=True).load(front)
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: its front matter is not YAML: {quoted(str(error), 200)}") from None
    if data is not None and not isinstance(data, dict):
        raise BadInput(f"{path}: its front matter holds no keys")
    return data or {}


def _with_key(front: str, key: str, ours: dict[str, Any], change: Callable[[Any], Any], path: Path) -> str:
    """The front matter with the value of one top-level key changed, or ours added at the end; no other line changes."""
    lines = front.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if (m := _KEY.match(line)) and m[2] == key), None)
    if first is None:
        return front + (to_yaml({key: ours[key]}) if ours.get(key) else "")
    end = first + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t-#]}"):
        end += 1
    while not lines[end - 1].strip() or lines[end - 1][0] == "#":  # what stands above the next key belongs to it
        end -= 1
    block, yaml = "".join(lines[first:end]), _round_trip()
    try:
        held = yaml.load(block)
    except YAMLError as error:  # an alias of something that stands elsewhere
        raise BadInput(f"{path}: {key} {PARTLY}") from error
    held[key] = change(held[key])
    indented = re.search(r"^( *)- ", block, re.MULTILINE)
    offset = len(indented[1]) if indented else 0
    yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    written = io.StringIO()
    if held[key]:
        yaml.dump(held, written)
    changed = written.getvalue()
    if _parse(changed, path) == _parse(block, path):
        return front
    return "".join([*lines[:first], changed, *lines[end:]])
