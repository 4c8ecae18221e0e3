"""Files of answers that were made elsewhere, one JSON object a line, and whose answer each line is.

The file is hostile text, and so is an items file: every line is checked, bounded, and named when it is refused.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.contract.errors import BadInput, first_error
from harness.contract.items import ItemRef
from harness.contract.samples import Item, Sample
from harness.contract.text import quoted
from harness.endpoint.answers import valid_text

LONGEST_LINE = 64 * 2**20
"""Bytes of the longest line of answers that is read: an answer of a million tokens takes a tenth of it."""
MOST_LISTED = 20
"""So many faults, missing answers or errors are listed for a reader; all are counted."""

# JSON may carry lone surrogates; the live path replaces them as well.
ModelText = Annotated[str, BeforeValidator(lambda value: valid_text(value) if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Answer(BaseModel):
    """One line of an answers file. What is absent is not known, and stays unknown in the sample."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    item: str
    """The item's id, or "task/id"."""
    text: ModelText | None
    """The answer; null where the server sent none. Thinking may stand in it between <think> tags."""
    task: str | None = None
    """Needed where several tasks have an item of this id."""
    repeat: Count = 0
    reasoning: ModelText | None = None
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: ModelText | None = Field(None, min_length=1)
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    seconds: float = Field(0.0, ge=0)


Names = dict[tuple[str, int], list[ItemRef]]
"""(id or "task/id", repeat) -> the items of that name, one for each task."""


def by_name(path: Path, refs: Sequence[ItemRef]) -> Names:
    if not refs:
        raise BadInput(f"{path}: no item is in it")
    names: Names = defaultdict(list)
    for ref in refs:
        if any(
            (other.task, other.item) == (ref.task, ref.item) for other in names[f"{ref.task}/{ref.item}", ref.repeat]
        ):
            raise BadInput(f"{path}: item {name_of(ref)} is there twice")
        names[ref.item, ref.repeat].append(ref)
        names[f"{ref.task}/{ref.item}", ref.repeat].append(ref)
    return dict(names)


def match_answers(path: Path, names: Names) -> dict[ItemRef, int]:
    """Item -> byte at which the line of its answer begins, in the order of the answers.

    Raises:
        BadInput: the file cannot be read, holds no answer, or lines that cannot be used: how many, and file:line of
            each (the first MOST_LISTED).
    """
    offsets: dict[ItemRef, int] = {}
    lines: dict[ItemRef, int] = {}
    faults: list[str] = []
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is no regular file: answers are read twice")
    try:
        for number, offset, line in _lines(path):
            try:
                ref = _find(read_answer(line), names)
                if ref in lines:
                    raise BadInput(f"a second answer to {name_of(ref)}; the first is on line {lines[ref]}")
            except BadInput as fault:
                faults.append(f"{path}:{number}: {fault}")
                continue
            lines[ref], offsets[ref] = number, offset
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    if faults:
        listed = "\n".join(quoted(fault, 300) for fault in faults[:MOST_LISTED])
        counted = f"{len(faults)} of {len(faults) + len(lines)} answers cannot be used"
        raise BadInput(f"{faults[0]} ({counted}; nothing was scored)", details=listed if len(faults) > 1 else "")
    if not offsets:
        raise BadInput(f"{path}: no answer is in it")
    return offsets


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, line) of a file's lines; empty ones are passed over."""
    with path.open("rb") as file:
        number = offset = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise BadInput(f"{path}:{number}: longer than {LONGEST_LINE // 2**20} MiB")
            if line.strip():
                yield number, offset, line
            offset += len(line)


def read_answer(line: bytes) -> Answer:
    try:
        return Answer.model_validate(json.loads(line.strip()))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            key = quoted(str(first["loc"][0]))
            raise BadInput(f"unknown key '{key}'; known: {', '.join(Answer.model_fields)}") from None
        raise BadInput(f"not an answer ({quoted(first_error(error, 'line'), 100)})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON, or cut off ({quoted(str(error))})") from None


def _find(answer: Answer, names: Names) -> ItemRef:
    """The item that an answer names. Raises BadInput: none, or several."""
    found = names.get((answer.item, answer.repeat), [])
    if answer.task is not None:
        found = [ref for ref in found if ref.task == answer.task]
    if len(found) == 1:
        return found[0]
    task = "" if answer.task is None else f" of task '{quoted(answer.task)}'"
    repeat = f", repeat {answer.repeat}" if answer.repeat else ""
    if not found:
        raise BadInput(f"there is no item '{quoted(answer.item)}'{task}{repeat}")
    several = ", ".join(quoted(ref.task) for ref in found[:5])
    raise BadInput(f"item '{quoted(answer.item)}' is in several tasks ({several}); name one with \"task\"")


def name_of(named: ItemRef | Item | Sample) -> str:
    """An item by name, safe to print."""
    name = f"{quoted(named.task)}/{quoted(named.item)}"
    return f"{name}/{named.repeat}" if named.repeat else name
