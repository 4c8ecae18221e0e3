"""Texts of pairs beside the page: scripts that hand JSON to it when a reader opens a pair, or a few inlined.

A page that was opened from disk may not fetch files, but may load scripts that lie beside it. Each of these calls one
function with one JSON value; the page only ever shows it as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json

from harness.contract.errors import BadInput
from harness.contract.items import ItemRef, item_at
from harness.contract.samples import Item, Key, PairKey, Role, Sample
from harness.contract.whole_files import write_whole
from harness.runs.folder import RunFolder
from reports.samples.index import PairsView, path_of
from reports.text import number, shorten, visible

FOLDER = "samples"
CALL = "quantgateTexts"
"""The page's function that side files call."""

FILE_PAIRS, FILE_CHARACTERS = 200, 2_000_000
"""A side file ends with the pair that reaches one of these."""

FIELD_LIMIT = 500

Offsets = dict[Key, int]
"""Bytes before the first sample of each key, in the file of its suite."""

ENDS = {"limit": "a limit of steps, time or cost"}
"""Finish reasons that are not a server's word, in ours."""


@dataclass(frozen=True)
class TextLimits:
    """The most characters of a text that a report holds; the rest is said to be left out."""

    text: int
    reasoning: int
    prompt: int


BESIDE = TextLimits(text=24_000, reasoning=24_000, prompt=6000)
INLINED = TextLimits(text=4000, reasoning=2000, prompt=3000)
INLINED_PAIRS = 300
"""Pairs that have their texts in a report of a single file: those most worth a look."""


class AnswerText(NamedTuple):
    """One role's answer as it is shown: shortened and visible."""

    text: str
    reasoning: str
    facts: list[tuple[str, str]]
    metrics: list[tuple[str, str]]


class PairText(NamedTuple):
    """The texts of one pair."""

    path: str
    """The pair's permalink: the page shows no text of another pair, should files of two renderings be mixed."""
    target: str | None
    prompt: str | None
    """None where it is not stored. Side files have prompts of their own."""
    reference: AnswerText | None
    candidate: AnswerText | None

    @property
    def characters(self) -> int:
        answers = [answer for answer in (self.reference, self.candidate) if answer]
        return sum(len(answer.text) + len(answer.reasoning) for answer in answers)

    def record(self, with_prompt: bool = False) -> dict[str, object]:
        """As the page's script reads it."""
        found = self._asdict()
        for role, answer in (("reference", self.reference), ("candidate", self.candidate)):
            found[role] = answer._asdict() if answer else None
        if not with_prompt:
            del found["prompt"]
        return found


@dataclass(frozen=True)
class Texts:
    """Where the texts of an index are."""

    starts: list[int] = field(default_factory=list)
    """Of each side file the place of its first pair in the index."""
    inlined: list[PairText] | None = None
    """In a report of a single file the texts of its first pairs."""


def write_texts(folder: RunFolder, pairs: PairsView, offsets: Offsets) -> Texts:
    """Write the texts of every pair into side files, one file in memory at a time; those of an earlier render go.

    Raises:
        OSError: they cannot be written.
    """
    target = folder.report_path / FOLDER
    starts: list[int] = []
    written: set[str] = set()
    place = 0
    with StoredTexts(folder, pairs.keys, offsets) as stored:
        for part in _files(stored.pair(key, BESIDE) for key in pairs.keys):
            for name, values in (
                (f"{len(starts)}", [pair.record() for pair in part]),
                (f"{len(starts)}-prompts", [[pair.path, pair.prompt] for pair in part]),
            ):
                write_whole(target / f"{name}.js", f"{CALL}({json.dumps(name)},{inert_json(values)});\n", durable=False)
                written.add(f"{name}.js")
            starts.append(place)
            place += len(part)
    remove_others(target, written)
    return Texts(starts)


def inline_texts(folder: RunFolder, pairs: PairsView, offsets: Offsets) -> Texts:
    """The texts that a report of a single file holds; side files of an earlier render go."""
    remove_others(folder.report_path / FOLDER, set())
    keys = pairs.keys[:INLINED_PAIRS]
    with StoredTexts(folder, keys, offsets) as stored:
        return Texts(inlined=[stored.pair(key, INLINED) for key in keys])


def remove_others(target: Path, written: set[str]) -> None:
    """Remove scripts that this render did not write, and the folder when nothing is left in it."""
    for path in target.glob("*.js"):
        if path.name not in written:
            path.unlink()
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()


def inert_json(value: object) -> str:
    """JSON that is also JavaScript, and in which nothing can begin or end an HTML element."""
    data = to_json(value).decode("utf-8")
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


class StoredTexts:
    """Reads single samples and items of a run by their places, so that no text need be kept.

    Both roles' samples of a pair can be far apart in a file.
    """

    def __init__(self, folder: RunFolder, keys: Iterable[PairKey], offsets: Offsets) -> None:
        self.folder = folder
        self._files = ExitStack()
        self._samples: dict[str, BinaryIO] = {}
        self._offsets = offsets
        self._item_files: dict[str, tuple[Path, BinaryIO]] = {}
        self._items: dict[PairKey, ItemRef] = {}
        wanted = set(keys)
        for suite in sorted({suite for suite, *_ in wanted}):
            with suppress(BadInput, OSError, ValueError):  # said by whoever read the run before
                self._samples[suite] = self._files.enter_context(folder.samples_path(suite).open("rb"))
            self._find_items(suite, wanted)

    def __enter__(self) -> StoredTexts:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def pair(self, key: PairKey, limits: TextLimits) -> PairText:
        item = self._item(key)
        reference, candidate = self._sample(key, "reference"), self._sample(key, "candidate")
        return PairText(
            path=path_of(key),
            target=_target(item.target) if item else None,
            prompt=_prompt(item, limits.prompt) if item else None,
            reference=_answer(reference, limits) if reference else None,
            candidate=_answer(candidate, limits) if candidate else None,
        )

    def _find_items(self, suite: str, wanted: set[PairKey]) -> None:
        try:
            refs = self.folder.items(suite)
            path = self.folder.items_path(suite)
            self._item_files[suite] = path, self._files.enter_context(path.open("rb"))
        except (BadInput, OSError, ValueError):
            return  # said by whoever read the run before
        for ref in refs:
            key = ref.pair(suite)
            if key in wanted:
                self._items.setdefault(key, ref)

    def _sample(self, key: PairKey, role: Role) -> Sample | None:
        """None when it is not stored, or no longer: a run that goes on may be rendered."""
        offset, file = self._offsets.get(Key(*key, role)), self._samples.get(key[0])
        if offset is None or file is None:
            return None
        file.seek(offset)
        try:
            found = Sample.model_validate_json(file.readline())
        except ValidationError:
            return None
        return found if found.key == (*key, role) else None

    def _item(self, key: PairKey) -> Item | None:
        ref = self._items.get(key)
        if ref is None:
            return None
        path, file = self._item_files[key[0]]
        try:
            return item_at(file, path, ref)
        except (BadInput, OSError):
            return None


def _files(pairs: Iterable[PairText]) -> Iterator[list[PairText]]:
    part: list[PairText] = []
    characters = 0
    for pair in pairs:
        part.append(pair)
        characters += pair.characters
        if len(part) >= FILE_PAIRS or characters >= FILE_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def _answer(sample: Sample, limits: TextLimits) -> AnswerText:
    facts = {
        "score": None if sample.score is None else f"{sample.score:g}",
        "answer": sample.answer,
        "finish reason": ENDS.get(sample.finish_reason or "", sample.finish_reason),
        "tokens": None if sample.completion_tokens is None else number(sample.completion_tokens),
        "prompt tokens": None if sample.prompt_tokens is None else number(sample.prompt_tokens),
        "seconds": f"{sample.seconds:.1f}",
        "error": sample.error,
    }
    return AnswerText(
        text=visible(shorten(sample.text, limits.text)),
        reasoning=visible(shorten(sample.reasoning, limits.reasoning)),
        facts=[(name, visible(shorten(value, FIELD_LIMIT))) for name, value in facts.items() if value is not None],
        metrics=[(visible(shorten(name, FIELD_LIMIT)), f"{value:.6g}") for name, value in sample.metrics.items()],
    )


def _prompt(item: Item, limit: int) -> str:
    """Chat messages as one text; parts that are not text are named by their type."""
    blocks = []
    for message in item.prompt:
        content = message.get("content", "")
        if isinstance(content, list):
            content = "\n".join(
                str(part.get("text", f"[{part.get('type', 'part')}]")) if isinstance(part, dict) else str(part)
                for part in content
            )
        blocks.append(f"[{message.get('role', '?')}]\n{content}")
    return visible(shorten("\n\n".join(blocks), limit))


def _target(target: Any) -> str | None:
    if target is None:
        return None
    text = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False, default=str)
    return visible(shorten(text, FIELD_LIMIT))
