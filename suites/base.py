"""What a suite is: it makes items, and answers one item for one role. Everything else is the runner's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.endpoint import Completion, Endpoint, Messages
from harness.policy import Config, Sampling
from harness.samples import Item, Role, Sample, sha256_of
from suites.endings import endings


class Tokenizer(Protocol):
    """What suites need of the model's tokenizer (a transformers tokenizer is one)."""

    def apply_chat_template(self, conversation: Messages, **options: Any) -> Any: ...


class Suite(Protocol):
    """One evaluation. Made from its configuration, the policy's sampling and a folder of its own for large data."""

    name: str
    reference_first: bool
    """Whether the candidate's answer to an item needs the reference's (its trajectory)."""

    def __init__(self, config: Any, sampling: Sampling, folder: Path) -> None: ...

    @property
    def context_needed(self) -> int:
        """Tokens of context, prompt and answer together, without which no item can be asked."""
        ...

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """All items, the same on every machine. Raises BadInput when data is missing."""
        ...

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """Ask one role one item. Raises EndpointError when there is no usable answer."""
        ...


SuiteConfig = Config
"""Base of a suite's configuration: frozen, unknown keys refused."""


def make_item(task: str, item: str, messages: Messages, target: Any = None, **data: Any) -> Item:
    """An item whose prompt is `messages`; the hash is over the messages alone."""
    return Item(task=task, item=item, prompt=messages, prompt_sha256=sha256_of(messages), target=target, data=data)


def count_tokens(tokenizer: Tokenizer, messages: Messages) -> int:
    """Prompt tokens of chat messages, the chat template and its generation prompt counted."""
    return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False))


def make_sample(
    suite: str,
    item: Item,
    role: Role,
    completion: Completion,
    *,
    score: float | None,
    answer: str | None,
    metrics: dict[str, float] | None = None,
) -> Sample:
    """The sample of one answer; how it ended is added to its metrics."""
    return Sample(
        suite=suite,
        task=item.task,
        item=item.item,
        repeat=item.repeat,
        role=role,
        prompt_sha256=item.prompt_sha256,
        score=score,
        answer=answer,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seconds=round(completion.seconds, 3),
        text=completion.text,
        reasoning=completion.reasoning,
        metrics=(endings(completion) if completion.finish_reason else {}) | (metrics or {}),
    )
