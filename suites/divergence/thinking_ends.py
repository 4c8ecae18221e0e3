"""Where an answer closed its thinking, and how likely each model was to close it there.

An example: the reference wrote "… so it is 12.</think>12". Before `</think>` it gave that token 0.93, the candidate,
which read the very same text, 0.55: it would have gone on thinking. Endless thinking shows here in a forward pass, at
the places where it would begin, and needs no long answers of the candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.endpoint.thinking_tags import thinking_marks

_LOADING = Lock()


class Place(NamedTuple):
    """Tokens of an answer that make one closing tag: positions from `first` to before `end`."""

    first: int
    end: int


def closing_places(pieces: Sequence[str], opened: bool = False, more: Iterable[tuple[str, str]] = ()) -> list[Place]:
    """Every place where thinking was closed, of an answer's tokens as texts.

    A tag may be one token or several, and share one with the text beside it. `opened`, `more`: as in `split_thinking`.
    """
    ends = list(accumulate(map(len, pieces)))
    places = []
    for mark in thinking_marks("".join(pieces), opened, more):
        if mark.closes:
            first, last = np.searchsorted(ends, [mark.start, mark.end - 1], side="right").tolist()
            places.append(Place(first, last + 1))
    return places


def closing_probability(places: Sequence[Place], logprobs: NDArray[np.float32]) -> float:
    """Probability of the closing tag, a mean over the places, from log-probabilities [n] of the answer's tokens.

    That of a tag of several tokens is their product: each was read with those before it.
    """
    found = [np.exp(logprobs[place.first : place.end].astype(np.float64).sum()) for place in places]
    return float(np.clip(np.mean(found), 0.0, 1.0))


def token_pieces(tokenizer_path: str, token_ids: Sequence[int]) -> list[str]:
    """Each token as the text it stands for, tags too. Code in the tokenizer's folder is never run."""
    with _LOADING:  # answers are read by many threads; the first loads it for all
        tokenizer = _tokenizer(tokenizer_path)
    found: list[str] = tokenizer.batch_decode(
        [[token] for token in token_ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return found


@cache
def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer  # slow to import

    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
