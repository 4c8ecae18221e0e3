"""Results made elsewhere: what their readers share. Files are hostile text: bounded, never believed, never executed."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.items import ItemRef
from harness.contract.samples import PairKey, Role, Sample, sample_of
from harness.contract.whole_files import parse_object

MAX_BYTES = 64 * 2**20
"""The longest line and the largest JSON file that is read: a prompt of a million tokens takes a tenth of it."""
ROUNDING = 1e-9
"""Scores this near to 0 or 1 are 0 or 1: means of thirds and sums of floats end there."""
MAX_NAME = 200
"""The longest name (of a task, a metric, an item)."""


class Results(NamedTuple):
    """The results of both sides as samples, and the pairs that were to be made.

    The prompts' hashes in `planned` are None: what was asked is known from the two sides alone, which must agree.
    """

    samples: list[Sample]
    planned: dict[PairKey, str | None]
    pooled: Mapping[str, Literal["items", "tasks"]] = MappingProxyType({})
    """Suites whose tasks are judged together, and of what their number is a mean."""
    groups: Mapping[str, frozenset[str]] = MappingProxyType({})
    """Tasks of lm-eval's groups, also of those that are judged task by task."""
    notes: tuple[str, ...] = ()
    """What a reader must be told: what is not judged, and what does not fit together. One line each."""
    prompts: Mapping[PairKey, str] = MappingProxyType({})
    """For the report, where they were asked for."""
    models: tuple[str, str] | None = None
    """What the results call reference and candidate; None: nothing but their path."""


def shown(value: object) -> str:
    """A value of a file as it may stand in a message: one line, printable, short."""
    if not isinstance(value, str):
        return reprlib.repr(value)
    return "'" + "".join(c if c.isprintable() else " " for c in value[:60]) + ("…'" if len(value) > 60 else "'")


def plain_name(value: object, what: str) -> str:
    """`value` as a name that is printed, matched with wildcards and used as a key.

    Raises:
        BadInput: no text, empty, too long, or with characters that a terminal or a wildcard would interpret. It is
            refused and not mended, since two mended names could become one.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME:
        raise BadInput(f"{what} {shown(value)} is no text of 1 to {MAX_NAME} characters")
    if not value.isprintable() or set(value) & set("[]*?\\"):
        raise BadInput(f"{what} {shown(value)} has a character that no name may have (control, or one of [ ] * ? \\)")
    return value


def score_in_unit_interval(value: object, what: str) -> float:
    """A score as a number in [0, 1]; true and false are 1 and 0. What is out by a rounding error is at the end.

    Raises:
        BadInput: anything else (null, NaN, text, a list, a perplexity).
    """
    if not isinstance(value, int | float) or not -ROUNDING <= value <= 1 + ROUNDING:  # NaN compares false
        raise BadInput(f"{what} is {shown(value)}; a score is a number from 0 to 1")
    return 0.0 if value <= ROUNDING else 1.0 if value >= 1 - ROUNDING else float(value)


def numbered_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of JSON lines; empty lines are passed over. `path` is what errors name.

    Raises:
        BadInput: a line that is too long or no JSON object, with file and line number.
    """
    number = 0
    while line := file.readline(MAX_BYTES + 1):
        number += 1
        if line.strip() or len(line) > MAX_BYTES:
            yield number, parse_object(line, f"{path}:{number}", MAX_BYTES)


def result_sample(
    role: Role, suite: str, task: str, item: str, prompt_sha256: str, score: float | None, **more: Any
) -> Sample:
    """A sample of a result made elsewhere. `more`: further fields of it (error, text, cluster)."""
    return sample_of(suite, ItemRef(task, item, 0, prompt_sha256, 0), role, score=score, **more)
