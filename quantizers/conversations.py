"""Conversations as the very text that a model sees and writes: its chat template, thinking closed before the answer.

The last answer is laid behind the template's generation prompt, where the model itself would write it: templates drop
the thinking of answers that they are given as history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantizers.checkpoint import one_line
from quantizers.errors import QuantizeError

THINK, END_THINK = "<think>", "</think>"


def conversation_text(messages: list[dict[str, str]], tokenizer: Any) -> str:
    """The text of messages with role, content and perhaps reasoning_content, as `checked_messages` gives them.

    A tokenizer without a chat template gets "role: content" lines. Where neither template nor vocabulary knows the
    tags of thinking, the thinking stands before the answer without them.

    Raises:
        QuantizeError: the template refuses the conversation.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return "\n".join(f"{message['role']}: {_written(message, tagged=False)}" for message in messages)
    answered = messages[-1]["role"] == "assistant"
    try:
        prompt: str = tokenizer.apply_chat_template(
            messages[:-1] if answered and len(messages) > 1 else messages,
            tokenize=False,
            add_generation_prompt=answered and len(messages) > 1,
        )
    except Exception as error:  # a template may fail with any error of Python or Jinja
        raise QuantizeError(f"the model's chat template refuses it ({one_line(error)})") from None
    if not answered or len(messages) == 1:
        return prompt
    if prompt.rstrip().endswith(THINK):  # the template opens the thinking
        return prompt.rstrip() + _written(messages[-1], tagged=True, always=True).removeprefix(THINK)
    tagged = END_THINK in str(template) or END_THINK in tokenizer.get_vocab()
    return prompt + _written(messages[-1], tagged=tagged)


def _written(message: Mapping[str, str], *, tagged: bool, always: bool = False) -> str:
    """What the model writes: thinking, closed, and an answer. `always`: even where nothing was thought."""
    thought, answer = message.get("reasoning_content", ""), message["content"]
    if thought or always:
        return f"{THINK}\n{thought}\n{END_THINK}\n\n{answer}" if tagged else f"{thought}\n\n{answer}"
    return answer


def checked_messages(value: Any) -> list[dict[str, str]] | None:
    """Messages as data sets have them, brought to one form; None when they are no conversation.

    Content may be a text or a list of parts; thinking is a part of type "reasoning", or beside the content in
    `reasoning_content`, `reasoning` or `thinking`.
    """
    if not isinstance(value, list) or not value:
        return None
    found = [_message(message) for message in value]
    messages = [message for message in found if message is not None]
    return messages if len(messages) == len(found) else None


def _message(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        return None
    content = value.get("content")
    thoughts = [value.get(key) for key in ("reasoning_content", "reasoning", "thinking")]
    if isinstance(content, list):
        said = [(part.get("type"), part.get("text", part.get("value"))) for part in content if isinstance(part, dict)]
        parts = [(kind, text) for kind, text in said if isinstance(text, str)]
        if len(parts) < len(content):
            return None
        thoughts += [text for kind, text in parts if kind == "reasoning"]
        content = "\n".join(text for kind, text in parts if kind != "reasoning")
    if not isinstance(content, str):
        return None
    message = {"role": value["role"], "content": content}
    thinking = next((thought.strip() for thought in thoughts if isinstance(thought, str) and thought.strip()), "")
    return message | ({"reasoning_content": thinking} if thinking else {})
