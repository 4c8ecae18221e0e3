"""A conversation, and what is needed of a model's tokenizer to turn it into a prompt."""

from __future__ import annotations

from typing import Any, Protocol

Messages = list[dict[str, Any]]
"""OpenAI chat messages: role, content and what else the chat template reads."""


class Tokenizer(Protocol):
    """What suites need of the model's tokenizer (a transformers tokenizer is one)."""

    def apply_chat_template(self, conversation: Messages, **options: Any) -> Any: ...
