"""Documents of a calibration source: shipped texts, files, data sets of the hub, traces of the model itself.

The shipped texts lie in `quantizers/calibration_texts`: .txt files of documents separated by a line that is exactly
`%%`, and .jsonl files of conversations, one a line, with their language and kind.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from quantizers.checkpoint import one_line, reading
from quantizers.conversations import checked_messages, conversation_text
from quantizers.errors import QuantizeError
from quantizers.recipe import SHIPPED, Calibration, Source

SEPARATOR = "%%"
HEADER = "quantgate_traces"
"""Key of the first line of a file of traces, which says where they come from and is no document."""


@dataclass(frozen=True)
class Document:
    """A text, a conversation that becomes one by the model's chat template, or token ids of the model's own."""

    content: str | list[dict[str, str]] | list[int]
    where: str
    """For errors: file and line, or data set and row."""
    row: bool = True
    """Of a data set, where a chat template may have begun and ended it; no running text of a .txt file."""

    def ids(self, tokenizer: Any) -> list[int]:
        """Its token ids. Raises QuantizeError: no text, or the chat template refuses the conversation."""
        content: Any = self.content
        if isinstance(content, list) and isinstance(content[0], int):
            return content
        if isinstance(content, list):
            content = self._rendered(content, tokenizer)
        if not _is_text(content):
            raise QuantizeError(
                f"calibration {self.where} holds half of a surrogate pair, which is no character: mend or drop that row"
            )
        found: list[int] = tokenizer.encode(content, add_special_tokens=False)
        return found

    @property
    def is_ids(self) -> bool:
        """Are they token ids as they came, with whatever ends and begins them?"""
        return isinstance(self.content, list) and isinstance(self.content[0], int)

    def _rendered(self, messages: list[dict[str, str]], tokenizer: Any) -> str:
        try:
            return conversation_text(messages, tokenizer)
        except QuantizeError as error:
            raise QuantizeError(f"calibration {self.where}: {error}: mend or drop that row") from None


def shuffled_documents(source: Source, seed: int) -> Iterator[Document]:
    """The documents of `source` in an order that `seed` and its name decide.

    Raises:
        QuantizeError: a file or data set that cannot be had, is not in a form we read, or holds no fitting text.
    """
    if source.dataset is not None:
        return _of_dataset(source, seed)
    if source.shipped is not None:
        file = Path(str(files("quantizers") / "calibration_texts" / SHIPPED[source.shipped]))
        if not file.is_file():
            raise QuantizeError(f"the shipped calibration text {file.name} is missing: install quantgate again")
    elif source.file is not None:
        file = source.file
    else:
        raise QuantizeError(
            f"calibration source {source.label}: they are not made yet; `quantgate traces MODEL --out FILE` makes a "
            "file to name here"
        )
    documents = read_documents(file, source)
    random.Random(f"{seed} {file.name}").shuffle(documents)
    return iter(documents)


def read_documents(file: Path, source: Source) -> list[Document]:
    """The documents of a .txt or .jsonl file that fit the language and kind of `source`, in their order.

    Raises:
        QuantizeError: the file is missing, not UTF-8, not JSON lines with a "text", "messages" or "ids", or holds none.
    """
    if file.suffix not in (".txt", ".jsonl"):
        raise QuantizeError(f"calibration file {file} must end in .txt or .jsonl")
    if file.exists() and not file.is_file():  # a pipe would be waited for, a device never ends
        raise QuantizeError(f"calibration file {file} is no regular file: give a text")
    try:
        with reading(file):
            text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise QuantizeError(f"calibration file {file} is not UTF-8 text: convert it") from None
    if file.suffix == ".txt":
        documents = [Document(part, f"file {file}", row=False) for part in split_documents(text)]
    else:
        documents = [found for found in _rows(text, file, source) if found.content]
    if not documents:
        only = ", ".join(f"{key} {value}" for key in ("language", "kind") if (value := getattr(source, key)))
        fitting = f" of {only}: name what its rows name" if only else ": give it some documents"
        raise QuantizeError(f"calibration file {file} holds no text{fitting}")
    return documents


def split_documents(text: str) -> list[str]:
    """Documents of a .txt file: what lies between lines that are exactly `%%`."""
    documents: list[list[str]] = [[]]
    for line in text.splitlines():
        if line == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    return [joined for lines in documents if (joined := "\n".join(lines).strip())]


def trace_prompts() -> list[dict[str, str]]:
    """Prompts that a model is asked for traces of its own: id, language, kind and prompt, languages in turn."""
    text = (files("quantizers") / "calibration_texts" / "prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def files_digest(settings: Calibration) -> str:
    """A sha256 over the files that calibration reads: the part of a recipe that its own digest leaves out.

    Raises:
        QuantizeError: one cannot be read.
    """
    digest = hashlib.sha256()
    for file in settings.files:
        with reading(file):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _rows(text: str, file: Path, source: Source) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and HEADER in row:
            continue
        content = _content(row.get("text", row.get("messages", row.get("ids")))) if isinstance(row, dict) else None
        if content is None:
            what = 'not a JSON object with a "text", chat "messages" or token "ids"'
            raise QuantizeError(f"calibration file {file}, line {number}: {what}")
        if _fits(row, source):
            yield Document(content, f"file {file}, line {number}")


def _of_dataset(source: Source, seed: int) -> Iterator[Document]:
    from datasets import load_dataset

    name = source.dataset
    try:
        rows: Sequence[dict[str, Any]] = load_dataset(name, source.config, split=source.split, revision=source.revision)
        order = list(range(len(rows)))
    except Exception as error:  # the hub's clients raise anything here
        raise QuantizeError(
            f"calibration data set {source.label} cannot be had ({one_line(error)}): check its name, revision, config "
            "and split, or give its rows as a .jsonl file"
        ) from None
    random.Random(f"{seed} {name}").shuffle(order)
    for index in order:
        row = rows[index]
        content = _content(row.get(source.column))
        if content is None:
            raise QuantizeError(
                f'calibration data set {name}, row {index}: column "{source.column}" holds no text or messages: '
                f"name another column (it has {', '.join(map(str, row))[:200]})"
            )
        if content and _fits(row, source):
            yield Document(content, f"data set {name}, row {index}")


def _is_text(text: str) -> bool:
    """Whether it is made of characters: JSON may escape half of a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _content(value: Any) -> str | list[dict[str, str]] | list[int] | None:
    """A text without blanks at its ends, perhaps empty, messages or token ids; None for anything else."""
    if isinstance(value, list) and value and all(type(each) is int and 0 <= each < 1 << 31 for each in value):
        return value
    return value.strip() if isinstance(value, str) else checked_messages(value)


def _fits(row: dict[str, Any], source: Source) -> bool:
    return all(
        asked is None or row.get(key) in (None, asked)
        for key, asked in (("language", source.language), ("kind", source.kind))
    )
