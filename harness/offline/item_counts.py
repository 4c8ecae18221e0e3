"""How many items a policy's suites would ask, counted without a model: their number depends on no tokenizer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.contract.chat import Messages
from harness.contract.errors import BadInput
from harness.contract.policy import Policy
from suites.base import made_items
from suites.registry import make_suite

LETTERS_OF_A_TOKEN = 4


class LetterTokens:
    """A stand-in for a model's tokenizer: a token for every fourth letter, a chat template of bare texts."""

    def apply_chat_template(self, conversation: Messages, **options: Any) -> Any:
        text = "\n".join(str(message["content"]) for message in conversation)
        return list(range(0, len(text), LETTERS_OF_A_TOKEN)) if options.get("tokenize", True) else text


def count_items(policy: Policy, suites: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """Items (repeats are one) of each `suite/task`, and a line for each suite that cannot say it here."""
    counted: dict[str, set[str]] = {}
    remarks = []
    for name in suites:
        with tempfile.TemporaryDirectory() as folder:
            found: dict[str, set[str]] = {}
            try:
                for item in made_items(make_suite(policy, name, Path(folder)), LetterTokens(), "that counts"):
                    found.setdefault(f"{name}/{item.task}", set()).add(item.item)
            except BadInput as error:
                remarks.append(f"items of {name} are not known: {error}")
                continue
        counted |= found
    return {task: len(items) for task, items in counted.items()}, remarks


def without_limits(policy: Policy, suite: str) -> Policy:
    """The policy that asks all items of a suite's data sets."""
    own = {key: value for key, value in (policy.suites[suite] or {}).items() if key != "limit"}
    if isinstance(own.get("tasks"), dict):
        own["tasks"] = {
            task: {key: value for key, value in (of or {}).items() if key != "limit"}
            for task, of in own["tasks"].items()
        }
    return policy.model_copy(update={"suites": policy.suites | {suite: own}})
