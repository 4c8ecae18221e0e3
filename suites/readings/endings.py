"""How an answer ended: did its thinking close, does it repeat itself?"""

from __future__ import annotations

import re
from dataclasses import replace

from harness.endpoint.answers import Completion
from harness.endpoint.thinking_tags import split_thinking
from suites.readings.loops import looped

_CALL = re.compile(
    r"<tool_call>|<\|tool_calls?(?:_section)?_begin\|>|\[TOOL_CALLS\]|<function=|<\|python_tag\|>|<\uff5ctool\u2581calls?\u2581begin\uff5c>"
)
_CALLS_AT_THE_END = 20_000
"""So many last characters are searched for a call of a tool that was written as text."""


def apart(completion: Completion) -> Completion:
    """The completion with the tags of its text taken out, where nobody did that yet."""
    if completion.closed is not None:
        return completion
    thinking, answer, closed = split_thinking(completion.text)
    if closed is None:
        return completion
    thought = "\n".join(filter(None, (completion.reasoning, thinking)))
    return replace(completion, text=answer, reasoning=thought, closed=closed)


def endings(completion: Completion) -> dict[str, float]:
    """How an answer ended, 0 or 1 each, as metrics of its sample; `null` and `tool_calls` only where they are so."""
    whole = completion.reasoning + completion.text
    cut = completion.finish_reason == "length"
    found = {
        "unterminated": float(unterminated(completion)),
        "looped": float(completion.finish_reason == "repetition" or looped(whole, cut=cut)),
    }
    if completion.null:
        found["null"] = 1.0
    if completion.tool_calls:
        found["tool_calls"] = float(len(completion.tool_calls))
    return found


def unterminated(completion: Completion) -> bool:
    """Whether thinking was opened and never closed: by its tags, or else by the server's parser (no answer).

    Thinking that calls a tool goes on after the tool has answered, and closed thinking without an answer is closed.
    """
    if completion.tool_calls or completion.finish_reason in ("tool_calls", "function_call"):
        return False
    completion = apart(completion)
    if completion.closed is not None:
        return not completion.closed and not calls_tool(completion.reasoning)
    return bool(completion.reasoning) and not completion.text.strip() and not calls_tool(completion.reasoning)


def calls_tool(text: str) -> bool:
    """Whether a text ends in the call of a tool, in one of the forms that models write."""
    calls = list(_CALL.finditer(text[-_CALLS_AT_THE_END:]))
    return bool(calls) and len(text[-_CALLS_AT_THE_END:]) - calls[-1].start() < _CALLS_AT_THE_END // 2


def closed_without_answer(completion: Completion) -> bool:
    """Whether the thinking was closed and nothing stands behind it."""
    completion = apart(completion)
    return bool(completion.closed) and not completion.text.strip() and not completion.tool_calls
