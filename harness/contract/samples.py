"""Samples: one item answered by one role, one JSON line each, appended and flushed as they arrive."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contract.errors import BadInput, first_error

Role = Literal["candidate", "reference", "noise"]
"""`noise` is the reference once more: what it scores against itself is the noise floor."""
ROLES: tuple[Role, Role] = ("reference", "candidate")
"""The two models that are compared."""

PairKey = tuple[str, str, str, int]
"""(suite, task, item, repeat): what names a pair."""


class Key(NamedTuple):
    """What names a sample: unique within a run."""

    suite: str
    task: str
    item: str
    repeat: int
    role: str

    @property
    def pair(self) -> PairKey:
        """The key without the role: equal for the two samples of a pair."""
        return self[:4]


class Sample(BaseModel):
    """One item answered by one role. `score` is None when it could not be scored; `error` then says why."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    suite: str
    task: str
    item: str
    repeat: int = 0
    role: Role
    prompt_sha256: str
    cluster: str | None = None
    """What several items of a task share, such as a passage that questions are about: they are not independent, and the
    bounds of a difference take that into account."""
    score: float | None = Field(default=None, ge=0.0, le=1.0)
    answer: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    text: str = ""
    reasoning: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    error: str | None = None

    @property
    def key(self) -> Key:
        return Key(self.suite, self.task, self.item, self.repeat, self.role)

    def without_texts(self, **instead: Any) -> Sample:
        """The same without text and reasoning, in as little memory as it takes: of large runs all are kept so."""
        bare: Sample = self.model_copy(update={"text": "", "reasoning": "", **instead})
        for name in ("suite", "task", "role"):
            bare.__dict__[name] = sys.intern(bare.__dict__[name])
        object.__setattr__(bare, "__pydantic_fields_set__", _FIELDS)
        return bare


_FIELDS = set(Sample.model_fields)
"""One for all samples that `without_texts` makes: a set of their own is larger than all that they hold."""


class Item(BaseModel):
    """What is asked: made once, stored in the run folder, and sent to both roles."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    item: str
    repeat: int = 0
    prompt: list[dict[str, Any]]
    """Chat messages."""
    prompt_sha256: str
    target: Any = None
    """What a right answer contains, in the form that the suite's scorer wants."""
    data: dict[str, Any] = Field(default_factory=dict)


class Named(Protocol):
    """An item, or the reference to one that stays on disk."""

    @property
    def task(self) -> str: ...
    @property
    def item(self) -> str: ...
    @property
    def repeat(self) -> int: ...
    @property
    def prompt_sha256(self) -> str: ...


def sample_of(suite: str, item: Named, role: Role, **fields: Any) -> Sample:
    """The sample of an item: its names, and whatever else is known of it."""
    return Sample(
        suite=suite,
        task=item.task,
        item=item.item,
        repeat=item.repeat,
        role=role,
        prompt_sha256=item.prompt_sha256,
        **fields,
    )


def sha256_of(value: Any) -> str:
    """sha256 of a JSON value in canonical form (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of one JSONL file.

    A last line without its newline is what a killed run leaves behind: it is passed over, since `SampleLog`
    cuts it off and the item is asked again. Anything else that is not a sample raises.

    Raises:
        BadInput: a line that is not a valid sample, with file and line number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Sample.model_validate_json(line)
            except ValidationError as error:
                raise BadInput(f"{path}:{number}: not a sample ({first_error(error, 'line')})") from None


class SampleLog:
    """The samples of one suite on disk. Append only; a key is never written twice.

    In memory are the keys alone, and errors: the texts of a large run would fill it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path`, cut off a half-written last line and learn which keys are there.

        Raises:
            BadInput: an unreadable line or a key that is there twice.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_half_line(path)
        self._errors: dict[Key, str | None] = {}
        if path.exists():
            for sample in read_samples(path):
                if sample.key in self._errors:
                    raise BadInput(f"{path}: key {'/'.join(map(str, sample.key))} is there twice")
                self._note(sample)
        self._file = path.open("ab", buffering=0)  # what the disk did not take must not wait here
        self._end = path.stat().st_size

    def __contains__(self, key: object) -> bool:
        return key in self._errors

    def __len__(self) -> int:
        return len(self._errors)

    def answered(self, key: Key) -> bool:
        """Whether a sample is there, and no error."""
        return self._errors.get(key, "absent") is None

    def samples(self) -> Iterator[Sample]:
        """All of them, read from disk."""
        return read_samples(self.path) if self._errors else iter(())

    def append(self, sample: Sample) -> None:
        """Write one sample and hand it to the operating system, so that a killed process loses nothing.

        A line that the disk took in part is taken back, so that no later one is joined to it.

        Raises:
            ValueError: the key was written before (a mistake of the caller, never of the input).
            OSError: the disk is full or gone.
        """
        if sample.key in self._errors:
            raise ValueError(f"sample {sample.key} written twice")
        line = sample.model_dump_json().encode() + b"\n"
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            os.truncate(self.path, self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._end += len(line)
        self._note(sample)

    def _note(self, sample: Sample) -> None:
        suite, task, item, repeat, role = sample.key
        key = Key(sys.intern(suite), sys.intern(task), item, repeat, sys.intern(role))
        self._errors[key] = sample.error

    def close(self) -> None:
        self._file.close()


def _cut_half_line(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        data_end = file.seek(0, os.SEEK_END)
        position = data_end
        while position > 0:
            step = min(65536, position)
            position -= step
            file.seek(position)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                position += newline + 1
                break
        if position < data_end:
            file.truncate(position)
