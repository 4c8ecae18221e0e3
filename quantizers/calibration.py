"""Calibration tokens: texts of many kinds, cut into equal sequences, the same ones every time.

Each source gives the share of sequences that its weight asks for. A text that ships with quantgate and runs out leaves
its turns to the others, as nobody can lengthen it; files, data sets and traces that are too short are an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import torch

from quantizers.calibration_sources import shuffled_documents
from quantizers.checkpoint import one_line
from quantizers.errors import QuantizeError
from quantizers.recipe import Calibration, Source


class Tokenizer(Protocol):
    """What we need of a transformers tokenizer; `chat_template` and `apply_chat_template` only for conversations."""

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


def calibration_tokens(tokenizer: Tokenizer, settings: Calibration) -> torch.Tensor:
    """Token ids [samples, length], int64; see `calibration_sequences`."""
    return calibration_sequences(tokenizer, settings)[0]


def calibration_sequences(tokenizer: Tokenizer, settings: Calibration) -> tuple[torch.Tensor, list[Source]]:
    """Token ids [samples, length], int64, and the source of each sequence.

    The same settings, texts and tokenizer always give the same tokens.

    Documents of a source are shuffled, joined with the end-of-text token and cut; if the tokenizer begins
    texts with a begin token, every sequence begins with it. No token is used twice: a document that two sources
    name belongs to the first of them. Sources take turns, as often as their weights say.

    Raises:
        QuantizeError: a text that cannot be had or read, or too little text, with the amount that is needed.
    """
    bos = tokenizer.bos_token_id
    begin = [bos] if bos is not None and tokenizer.encode("a", add_special_tokens=True)[:1] == [bos] else []
    body = settings.length - len(begin)
    sources = settings.drawn_on
    weights = [source.weight for source in sources]
    used: set[tuple[int, ...]] = set()

    def cut(source: Source, most: int) -> list[list[int]]:
        stream = _stream(tokenizer, source, settings.seed, most * body, begin, used)
        return [begin + stream[i : i + body] for i in range(0, len(stream) - body + 1, body)][:most]

    piles = [cut(source, settings.samples) if source.shipped else [] for source in sources]
    asked = shares(
        settings.samples, weights, [len(p) if s.shipped else None for s, p in zip(sources, piles, strict=True)]
    )
    if sum(asked) < settings.samples:
        raise _too_short(
            settings, settings.samples, f"the shipped text ({', '.join(s.label for s in sources)})", sum(asked)
        )
    for i, source in enumerate(sources):
        if not source.shipped:
            piles[i] = cut(source, asked[i])
            if not asked[i]:
                raise QuantizeError(
                    f"calibration source {source.label} gives none of {settings.samples} sequences, so small is its "
                    "weight: raise it or the samples, or leave it out"
                )
            if len(piles[i]) < asked[i]:
                raise _too_short(settings, asked[i], source.label, len(piles[i]))
    turns = sorted((k / weights[i], i, k) for i, count in enumerate(asked) for k in range(count))
    tokens = torch.tensor([piles[i][k] for _, i, k in turns], dtype=torch.int64)
    return tokens, [sources[i] for _, i, _ in turns]


def shares(samples: int, weights: Sequence[float], held: Sequence[int | None]) -> list[int]:
    """How many of `samples` each source gives, by largest remainder (of equal ones the first).

    No source gives more than it holds (None: no limit): what it lacks goes to the others, by their weights.
    """
    given = [0] * len(weights)
    open_ = list(range(len(weights)))
    left = samples
    while left and open_:
        total = sum(Fraction(weights[i]) for i in open_)
        exact = {i: left * Fraction(weights[i]) / total for i in open_}
        parts = {i: int(exact[i]) for i in open_}
        for i in sorted(open_, key=lambda i: (parts[i] - exact[i], i))[: left - sum(parts.values())]:
            parts[i] += 1
        short = {i: most for i in open_ if (most := held[i]) is not None and most < parts[i]}
        for i, count in (short or parts).items():
            given[i] = count
            left -= count
        open_ = [i for i in open_ if i not in short]
    return given


def _stream(
    tokenizer: Tokenizer, source: Source, seed: int, enough: int, begin: list[int], used: set[tuple[int, ...]]
) -> list[int]:
    """Ids of the documents of `source` that are not `used` yet, each ended by the end-of-text token; at least
    `enough` of them, if there are."""
    stream: list[int] = []
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for document in shuffled_documents(source, seed) if enough else ():
        # More of one source than its samples could use would only cost time.
        if len(stream) >= enough:
            break
        ids = document.ids(tokenizer)
        if tuple(ids) not in used:
            used.add(tuple(ids))
            if document.is_ids:
                stream += ids[len(begin) :] if begin and ids[: len(begin)] == begin else ids
            else:
                stream += _once(ids, begin, end) if document.row else ids + end
    return stream


def _once(ids: list[int], begin: list[int], end: list[int]) -> list[int]:
    """A document without `begin` and with one `end`, whether or not a chat template has put them there already."""
    if begin and ids[:1] == begin:
        ids = ids[1:]
    return ids if end and ids[-1:] == end else ids + end


def _too_short(settings: Calibration, count: int, what: str, there: int) -> QuantizeError:
    less = "lower its weight, samples or length" if len(settings.sources) > 1 else "lower samples or length"
    return QuantizeError(
        f"calibration needs {count} x {settings.length} tokens, but {what} holds {there} x {settings.length}: "
        f"give a longer text, or {less}"
    )
