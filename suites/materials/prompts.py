"""The prompts that ship with the project: 512, all written for it, each on a subject of its own.

The first 96 are chat, reasoning, code and tools, 8 each in English, Japanese and Chinese. The others are of ten kinds,
in German, French, Spanish, Korean and Portuguese too. Judged means are over prompts, which are taken as independent:
so no two are variants of one template.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from pydantic import Field

from harness.contract.chat import Messages, Tokenizer
from harness.contract.errors import BadInput
from harness.contract.samples import Item
from harness.contract.settings import SHORT_ANSWER
from suites.base import SuiteConfig, make_item

LONGEST_PROMPT = 640
"""Tokens that the longest of them may take: SmolLM2's tokenizer, which splits Japanese finely, makes 550."""

TOLD = {
    "en": "You can call these functions. To call one, answer with a JSON object that has its name and its arguments.",
    "ja": "次の関数を呼び出せます。呼び出すときは、name と arguments を持つ JSON オブジェクトで答えてください。",
    "zh": "你可以调用下列函数。需要调用时，请用包含 name 和 arguments 的 JSON 对象作答。",
}
"""What stands before the functions in a prompt whose model has no template for them."""


class PromptsConfig(SuiteConfig):
    """Of a suite that asks the prompts that ship."""

    prompts: int = Field(48, ge=1)
    """How many of them are answered: the first."""
    max_tokens: int = Field(SHORT_ANSWER, ge=1)
    """Budget of one answer."""


def shipped_prompts(
    suite: str, count: int, limit: int | None, tokenizer: Tokenizer, kinds: Sequence[str] = ()
) -> list[Item]:
    """The first `count` prompts as items, of each task (`kind-language`) at most `limit`; of all kinds, or of these.

    They are in an order in which any number of them is a fair mix. Functions that a prompt may call are in its data
    (`tools`), for the server to tell the model; where the chat template does not show them they are in its text.

    Raises:
        BadInput: fewer prompts than asked for, or none of a kind.
    """
    rows = _rows()
    if unknown := sorted({*kinds} - {row["kind"] for row in rows}):
        raise BadInput(
            f"{suite}: no prompt of kind {unknown[0]!r}; kinds: {', '.join({row['kind']: 0 for row in rows})}"
        )
    rows = [row for row in rows if not kinds or row["kind"] in kinds]
    if len(rows) < count:
        of_kinds = f" of kinds {', '.join(kinds)}" if kinds else ""
        raise BadInput(f"{suite}: {count} prompts asked, {len(rows)} are shipped{of_kinds}")
    items, of_task = [], Counter[str]()
    for row in rows[:count]:
        task = f"{row['kind']}-{row['language']}"
        of_task[task] += 1
        if limit is None or of_task[task] <= limit:
            items.append(_item(row, task, tokenizer))
    return items


def prompts_there_are() -> int:
    """How many prompts ship."""
    return len(_rows())


def _rows() -> list[dict[str, Any]]:
    text = (resources.files("suites") / "data" / "prompts.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _item(row: dict[str, Any], task: str, tokenizer: Tokenizer) -> Item:
    messages, tools = row["messages"], row.get("tools")
    if tools is None:
        return make_item(task, row["id"], messages)
    if shows_tools(tokenizer, messages, tools):
        return make_item(task, row["id"], messages, tools=tools)
    functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    *before, last = messages  # not a system message: not every template takes one
    told = {**last, "content": f"{TOLD[row['language']]}\n\n{functions}\n\n{last['content']}"}
    return make_item(task, row["id"], [*before, told])


def shows_tools(tokenizer: Tokenizer, messages: Messages, tools: list[dict[str, Any]]) -> bool:
    """Whether the chat template tells the model every one of its tools."""
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError):  # a template that refuses tools, or none at all
        return False
    return all(tool["function"]["name"] in text for tool in tools)
