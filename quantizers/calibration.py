"""Calibration tokens: many kinds of text, cut into equal sequences, the same ones every time.

The shipped texts lie in `quantizers/calibration_texts/*.txt`, one file per language or kind, documents separated
by a line that is exactly `%%`. Sequences are dealt in turn from all files, so that no language is left
uncalibrated; a file that runs out leaves its turns to the others.
"""

from __future__ import annotations

import json
import random
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import torch

from quantizers.checkpoint import one_line, reading
from quantizers.errors import QuantizeError
from quantizers.recipe import Calibration

SEPARATOR = "%%"


class Tokenizer(Protocol):
    """What we need of a transformers tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""


def own_tokenizer(folder: Path) -> Tokenizer:
    """The model's own tokenizer, from local files, without its code. Raises QuantizeError if it has none."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer.encode("probe", add_special_tokens=False)
    except Exception as error:  # every tokenizer backend has its own exceptions
        reason = one_line(error)
        raise QuantizeError(f"no usable tokenizer in {folder} ({reason}): add the model's tokenizer files") from None
    result: Tokenizer = tokenizer
    return result


def read_documents(file: Path | None) -> dict[str, list[str]]:
    """The documents of `file` (.txt or .jsonl) or, without one, of the shipped texts, by file name.

    Raises:
        QuantizeError: the file is missing, not UTF-8, not JSON lines with a "text", or without text.
    """
    if file is None:
        shipped = sorted((p for p in files("quantizers").joinpath("calibration_texts").iterdir()), key=lambda p: p.name)
        texts = {p.name: p.read_text(encoding="utf-8") for p in shipped if p.name.endswith(".txt")}
        if not texts:
            raise QuantizeError("the shipped calibration texts are missing: install quantgate again")
        return {name: _split(text) for name, text in texts.items()}
    if file.suffix not in (".txt", ".jsonl"):
        raise QuantizeError(f"calibration file {file} must end in .txt or .jsonl")
    try:
        with reading(file):
            text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise QuantizeError(f"calibration file {file} is not UTF-8 text: convert it") from None
    documents = _split(text) if file.suffix == ".txt" else _texts(text, file)
    if not documents:
        raise QuantizeError(f"calibration file {file} holds no text: give it some documents")
    return {file.name: documents}


def calibration_tokens(tokenizer: Tokenizer, settings: Calibration) -> torch.Tensor:
    """Token ids [samples, length], int64. The same settings, texts and tokenizer always give the same tokens.

    Documents of a file are shuffled, joined with the end-of-text token and cut; if the tokenizer begins
    texts with a begin token, every sequence begins with it. No token is used twice.

    Raises:
        QuantizeError: too little text, with the amount that is needed.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    begin = [bos] if bos is not None and tokenizer.encode("a", add_special_tokens=True)[:1] == [bos] else []
    body = settings.length - len(begin)
    piles: list[list[list[int]]] = []
    documents_by_file = read_documents(settings.file)
    for name, documents in documents_by_file.items():
        shuffled = list(documents)
        random.Random(f"{settings.seed} {name}").shuffle(shuffled)
        stream: list[int] = []
        for document in shuffled:
            # More of one file than all samples could use would only cost time.
            if len(stream) >= settings.samples * body:
                break
            stream += tokenizer.encode(document, add_special_tokens=False) + ([eos] if eos is not None else [])
        piles.append([begin + stream[i : i + body] for i in range(0, len(stream) - body + 1, body)])
    available = sum(map(len, piles))
    if available < settings.samples:
        source = settings.file or f"the shipped text ({', '.join(documents_by_file)})"
        raise QuantizeError(
            f"calibration needs {settings.samples} x {settings.length} tokens, but {source} holds "
            f"{available} x {settings.length}: give a longer calibration file, or lower samples or length"
        )
    dealt: list[list[int]] = []
    turn = 0
    while len(dealt) < settings.samples:
        dealt += [pile[turn] for pile in piles if turn < len(pile)]
        turn += 1
    return torch.tensor(dealt[: settings.samples], dtype=torch.int64)


def _split(text: str) -> list[str]:
    documents: list[list[str]] = [[]]
    for line in text.splitlines():
        if line == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    return [joined for lines in documents if (joined := "\n".join(lines).strip())]


def _texts(text: str, file: Path) -> list[str]:
    documents = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            document = None
        if not isinstance(document, str):
            raise QuantizeError(f'calibration file {file}, line {number}: not a JSON object with a "text"')
        if document.strip():
            documents.append(document.strip())
    return documents
