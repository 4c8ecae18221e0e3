"""A model card that is there already: the report's section and metadata are laid into it, the rest stays as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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

_MARKS = re.compile(r"^<!-- quantgate: begin\b.*?-->$|^<!-- quantgate: end -->$", re.MULTILINE)
_KEY = re.compile(r"""^(["']?)([A-Za-z_][\w-]*)\1[ ]*:""")


def merge_into(report: Report, path: Path, source_url: str | None = None) -> list[str]:
    """Lay the report's section and metadata into a README.md; done twice, nothing changes the second time.

    Between our marks everything is replaced. Of the front matter only our own keys change: `tags` and `model-index` are
    joined, others are added where there are none. A file that is not there is made.

    Returns:
        What stayed as it was though the report says something else, in sentences.

    Raises:
        BadInput: no file of text, front matter that cannot be read, marks that are torn apart, a bad `source_url`.
        OSError: it cannot be read or written.
    """
    path = path.resolve()  # a link stays a link
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    found = origin(report.models)
    line_end = "\r\n" if "\r\n" in text else "\n"
    front, body = _split(text.replace("\r\n", "\n"), path)
    front, stayed = _with_metadata(front, front_matter(report, found, source_url), path)
    made = f"---\n{front}---\n{_with_section(body, card_section(report, found), path)}".replace("\n", line_end)
    if made != text:
        write_whole(path, made)
    return stayed


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
    stayed = [
        f"{key} stays {before[key]!r}; the report says {ours[key]!r}"
        for key in OWNERS
        if key in ours and key in before and before[key] != ours[key]
    ]
    new = {key: ours[key] for key in OWNERS if key in ours and key not in before}
    if "base_model" in before and before["base_model"] != ours.get("base_model"):
        new.pop("base_model_relation", None)  # it speaks of the report's base model, not of the card's
    if "license" in before:
        new = {key: value for key, value in new.items() if not key.startswith("license")}
    tags = before.get("tags") or []
    tags = [tags] if isinstance(tags, str) else tags
    if not isinstance(tags, list):
        raise BadInput(f"{path}: tags is no list")
    more = [tag for tag in ours["tags"] if tag not in tags]
    if more:
        new["tags"] = [*tags, *more]
    index = _index(before.get("model-index"), ours.get("model-index"), path)
    if index != before.get("model-index"):
        new["model-index"] = index
    for key, value in new.items():
        front = _with_key(front, key, to_yaml({key: value}) if value else "")
    after = _parse(front, path)
    if {k: v for k, v in after.items() if k not in new} != {k: v for k, v in before.items() if k not in new}:
        raise BadInput(f"{path}: its front matter is written in a way that cannot be changed in part; add ours by hand")
    return front, stayed


def _index(before: Any, ours: Any, path: Path) -> Any:
    """`model-index` with our results in the place of those of an earlier run; other people's stay, and come first."""
    if before is None:
        return ours
    try:
        kept = [
            entry | {"results": [result for result in entry["results"] if result["task"].get("name") != TASK]}
            for entry in before
        ]
        if ours and kept:
            kept[0]["results"] += ours[0]["results"]
        return [entry for entry in kept if entry["results"]] or ours
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: model-index is not what a model hub reads ({type(error).__name__}: {error})") from None


def _parse(front: str, path: Path) -> dict[str, Any]:
    try:
        data = YAML(typ="safe", pure=True).load(front)
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: its front matter is not YAML: {quoted(str(error), 200)}") from None
    if data is not None and not isinstance(data, dict):
        raise BadInput(f"{path}: its front matter holds no keys")
    return data or {}


def _with_key(front: str, key: str, block: str) -> str:
    """The front matter with the lines of one top-level key replaced, or added at the end; no other line changes."""
    lines = front.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if (m := _KEY.match(line)) and m[2] == key), None)
    if first is None:
        return front + block
    end = first + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t-#]}"):
        end += 1
    while not lines[end - 1].strip() or lines[end - 1][0] == "#":  # what stands above the next key belongs to it
        end -= 1
    return "".join([*lines[:first], block, *lines[end:]])
