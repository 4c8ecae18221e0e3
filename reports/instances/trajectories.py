"""mini-swe-agent's trajectories as a page shows them: read with suspicion and shortened at once.

A file holds everything that a model wrote and that its commands printed, so any of it may be huge, hostile or of
another shape. Nothing in a file that is JSON makes reading fail; what is not understood is not shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contract.errors import BadInput
from reports.text import one_line, shorten

FILE_LIMIT = 64 * 2**20
"""Bytes of a file that is read; parsing takes a few times as much memory."""
FIRST_STEPS, LAST_STEPS = 200, 100
"""Steps that are shown of a longer trajectory."""
CALLS, NOTICES = 10, 3
"""Commands that are shown of a step, and what else the agent was told."""
BLOCKS = (("```mswea_bash_command", "```"), ("<mswea_bash_command>", "</mswea_bash_command>"))
"""What stands around a command that is written as text, in mini-swe-agent's two formats."""
TASK_LIMIT, THOUGHT_LIMIT, COMMAND_LIMIT, OUTPUT_LIMIT = 6000, 1500, 1500, 2000
"""Characters that are shown of a text."""


@dataclass
class Call:
    """A command and what it printed."""

    command: str
    output: str | None = None
    """None when there is no observation of it."""
    length: int = 0
    """Characters of the whole output."""
    status: str = ""
    """Its exit code."""
    problem: str = ""
    """Why it did not run to its end (a timeout)."""

    @property
    def short(self) -> bool:
        """Whether the output is worth showing without being asked for."""
        return self.output is not None and len(self.output) <= 300 and self.output.count("\n") <= 6


@dataclass
class Step:
    """One answer of the model, and what came of it."""

    number: int
    """From 1."""
    reasoning: str
    thought: str
    finish_reason: str
    calls: list[Call] = field(default_factory=list)
    calls_left_out: int = 0
    refused: bool = False
    """Whether the answer held no usable command."""
    notices: list[str] = field(default_factory=list)
    """What the agent was told besides outputs (how to call the tool)."""
    left_out_before: int = 0
    """Steps between this one and the one shown before it."""


@dataclass(frozen=True)
class ShownSteps:
    """All that is shown of a trajectory."""

    task: str
    """What the agent was asked to do."""
    steps: list[Step]
    count: int
    """Steps that there are, shown or not."""
    exit_status: str
    problem: str
    """The exception that ended it, where one did."""


def read_steps(path: Path) -> ShownSteps:
    """Read a trajectory file.

    Raises:
        BadInput: it is too large, or is no JSON object with a list of messages (cut off, for one).
        OSError: it cannot be read.
    """
    if (size := path.stat().st_size) > FILE_LIMIT:
        raise BadInput(f"{path.name} has {size / 2**20:,.0f} MiB, more than the {FILE_LIMIT // 2**20} that are read")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path.name} is not JSON, or was cut off ({one_line(str(error), 120)})") from None
    messages = _object(data).get("messages")
    if not isinstance(messages, list):
        raise BadInput(f"{path.name} holds no messages")
    return _shown([_object(message) for message in messages], _object(_object(data).get("info")))


def _shown(messages: list[dict[str, Any]], info: dict[str, Any]) -> ShownSteps:
    answers = [place for place, message in enumerate(messages) if _is_answer(message)]
    asked = [m for m in messages[: answers[0] if answers else None] if m.get("role") == "user"]
    ends = [*answers[1:], len(messages)]
    shown = list(zip(answers, ends, strict=False))
    left_out = max(0, len(shown) - FIRST_STEPS - LAST_STEPS)
    numbered = list(enumerate(shown, start=1))
    if left_out:
        numbered = numbered[:FIRST_STEPS] + numbered[-LAST_STEPS:]
    steps = [_step(number, messages[start:end]) for number, (start, end) in numbered]
    if left_out:
        steps[FIRST_STEPS].left_out_before = left_out
    extra = _object(messages[-1].get("extra")) if messages else {}
    problem = _text(info.get("exception_str") or extra.get("exception_str"))
    return ShownSteps(
        task=shorten("\n\n".join(_text(message.get("content")) for message in asked), TASK_LIMIT),
        steps=steps,
        count=len(answers),
        exit_status=one_line(_text(info.get("exit_status") or extra.get("exit_status")), 80),
        problem=shorten(problem, THOUGHT_LIMIT),
    )


def _is_answer(message: dict[str, Any]) -> bool:
    """Whether the model wrote it; an answer without a usable command is stored with what the agent was told instead."""
    return message.get("role") == "assistant" or _refused(message)


def _refused(message: dict[str, Any]) -> bool:
    return message.get("role") != "assistant" and _object(message.get("extra")).get("interrupt_type") == "FormatError"


def _step(number: int, messages: list[dict[str, Any]]) -> Step:
    """A step from its answer and the messages up to the next one."""
    first, extra = messages[0], _object(messages[0].get("extra"))
    choice = _object(_first(_object(extra.get("response")).get("choices")))
    refused = _refused(first)
    answer = _object(choice.get("message")) if refused else first
    if refused and not choice:  # the response could not be stored as an object: its text is there instead
        answer = {"content": extra.get("response")}
    calls = list(_calls(answer, extra, refused))
    step = Step(
        number,
        reasoning=shorten(_text(answer.get("reasoning_content") or answer.get("reasoning")), THOUGHT_LIMIT),
        thought=shorten(_without_command(_text(answer.get("content")), extra), THOUGHT_LIMIT),
        finish_reason=one_line(_text(choice.get("finish_reason")), 40),
        refused=refused,
        calls=[call for _, call in calls[:CALLS]],
        calls_left_out=max(0, len(calls) - CALLS),
    )
    if refused:
        step.notices.append(shorten(_text(first.get("content")), THOUGHT_LIMIT))
    _observe(step, dict(calls), messages[1:])
    del step.notices[NOTICES:]
    return step


def _without_command(content: str, extra: dict[str, Any]) -> str:
    """An answer without the block that holds its command, where commands are written as text."""
    command = _text(_object(_first(extra.get("actions"))).get("command"))
    before, found, after = content.rpartition(command) if command else ("", "", "")
    before, after = before.rstrip(), after.lstrip()
    for opening, closing in BLOCKS:
        if found and before.endswith(opening) and after.startswith(closing):
            return f"{before.removesuffix(opening)}{after.removeprefix(closing)}".strip()
    return content


def _calls(answer: dict[str, Any], extra: dict[str, Any], refused: bool) -> Iterator[tuple[str, Call]]:
    """(id, call) of each command; of an answer that was refused the calls as the model wrote them."""
    tool_calls = answer.get("tool_calls") if refused else extra.get("actions")
    for place, call in enumerate(tool_calls if isinstance(tool_calls, list) else []):
        if refused:
            function = _object(_object(call).get("function"))
            command = f"{_text(function.get('name'))} {_text(function.get('arguments'))}"
        else:
            command = _text(_object(call).get("command"))
        yield f"{_object(call).get('tool_call_id') or ''} {place}", Call(shorten(command, COMMAND_LIMIT))


def _observe(step: Step, calls: dict[str, Call], messages: list[dict[str, Any]]) -> None:
    """Give each output to its command, by the call's id or else in order; anything else is a notice."""
    open_calls = list(calls.items())
    for message in messages:
        extra, name = _object(message.get("extra")), message.get("tool_call_id")
        if message.get("role") == "exit":
            continue
        if not open_calls or ("raw_output" not in extra and message.get("role") != "tool"):
            step.notices.append(shorten(_text(message.get("content")), THOUGHT_LIMIT))
            continue
        match = next((entry for entry in open_calls if name and entry[0].startswith(f"{name} ")), open_calls[0])
        open_calls.remove(match)
        output = _text(extra.get("raw_output", message.get("content")))
        call = match[1]
        call.output, call.length = shorten(output, OUTPUT_LIMIT), len(output)
        call.status = one_line(_text(extra.get("returncode")), 20)
        call.problem = one_line(_text(extra.get("exception_info")), 300)


# -- values of any shape --------------------------------------------------------------------------------------------


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _text(value: object) -> str:
    """Text as it is; of a list of parts those that are text; of numbers how they are written; nothing else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = [_object(part) for part in value]
        return "\n".join(_text(part.get("text")) or f"[{_text(part.get('type')) or 'part'}]" for part in parts)
    return str(value) if isinstance(value, int | float) else ""
