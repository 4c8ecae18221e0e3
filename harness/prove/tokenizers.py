"""Defects of what turns a chat into tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.whole_files import write_whole
from harness.prove.editing import edit_json, link_files
from harness.prove.entries import Entry, NotApplicable, refused

FOREIGN_TEMPLATE = (
    "{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
"""Of no model in particular."""


def with_template(source: Path, out: Path, change: Callable[[str, str], str]) -> None:
    """The good checkpoint with a changed chat template: (template, text of the first token) -> template."""
    tokenizer = load_tokenizer(source, source.name)
    template, first = getattr(tokenizer, "chat_template", None), getattr(tokenizer, "bos_token", None) or ""
    if not isinstance(template, str):
        raise NotApplicable("the model has several chat templates")
    link_files(source, out)
    changed = change(template, first)
    if changed == template:
        raise NotApplicable("the chat template does not write a first token (BOS)")
    write_whole(out / "chat_template.jinja", changed)


def without_first(template: str, first: str) -> str:
    """Without the first token: as a variable, or, where its text is written, without the first place of that."""
    text = template.replace("{{ bos_token }}", "").replace("{{- bos_token }}", "")
    return text if text != template or not first else template.replace(first, "", 1)


def without_a_merge(source: Path, out: Path) -> None:
    """One merge of the byte-pair encoding is gone: a few words fall into other tokens."""
    link_files(source, out)

    def change(data: dict[str, Any]) -> None:
        merges = (data.get("model") or {}).get("merges")
        if not merges:
            raise NotApplicable("the tokenizer has no merges")
        del merges[len(merges) // 2]

    edit_json(out, "tokenizer.json", change)


ENTRIES = (
    Entry(
        "chat-template",
        "tokenizer",
        "another model's chat template",
        refused("chat_template"),
        partial(with_template, change=lambda template, first: FOREIGN_TEMPLATE),
        of_control=True,
    ),
    Entry(
        "bos-missing",
        "tokenizer",
        "chat template without its first token",
        refused("prompt_ids.english"),
        partial(with_template, change=without_first),
        of_control=True,
    ),
    Entry(
        "merge-off",
        "tokenizer",
        "tokenizer with one merge missing",
        refused("tokenizer"),
        without_a_merge,
        of_control=True,
    ),
)
