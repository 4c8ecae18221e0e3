"""Prompts of a set number of tokens: how much filling fits, found with few counts."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple, Protocol

from harness.contract.chat import Messages, Tokenizer
from harness.contract.errors import BadInput
from suites.base import count_tokens

WITHIN = (0.99, 1.0)
"""Shares of the asked tokens between which a prompt is as long as asked."""
FIRST = 64
"""Units of the first attempt where nothing is known."""
INTERPOLATIONS = 6
"""Attempts by interpolation; then the interval is halved, since tokens may grow in steps."""


class Filling(NamedTuple):
    """How much a prompt is filled."""

    units: int
    """What the task is made of: sentences, words, documents."""
    extra: int = 0
    """Words that mean nothing, where units are too coarse for the length: fewer tokens than one more unit would be."""


class Builder(Protocol):
    """Makes the messages with so much filling; more of it is more tokens."""

    def __call__(self, units: int, extra: int = 0) -> Messages: ...


class TooShort(BadInput):
    """A length that a task does not fit."""

    def __init__(self, length: int, what: str, needs: int) -> None:
        asked = f"a prompt of {length} tokens is too short for {what}"
        super().__init__(f"{asked}, which needs {needs}; use a larger length")
        self.what, self.needs = what, needs


def user(text: str) -> Messages:
    """One question and nothing else."""
    return [{"role": "user", "content": text}]


def fit(
    build: Builder,
    length: int,
    tokenizer: Tokenizer,
    what: str = "this task",
    guess: int = FIRST,
    within: tuple[float, float] = WITHIN,
) -> Filling:
    """Filling with which `build` has at most `length` tokens, chat template counted, and at least 99 % of it.

    Args:
        guess: units to try first: what an item of the same kind needed.
        within: the shares of `length` to stay between.

    Raises:
        TooShort: not even the prompt without filling fits, or even single words are too coarse for so short a prompt.
        BadInput: filling does not make the prompt longer.
    """
    least, most = within[0] * length, within[1] * length
    tokens = count_tokens(tokenizer, build(0))
    if tokens > most:
        raise TooShort(length, what, math.ceil(tokens / within[1]))
    units, tokens, _ = _most_that_fits(build, tokens, (least, most), tokenizer, what, guess)
    if tokens >= least:
        return Filling(units)
    build, missing = partial(build, units), round((least + most) / 2 - tokens)
    extra, tokens, step = _most_that_fits(build, tokens, (least, most), tokenizer, what, missing)
    if tokens >= least:
        return Filling(units, extra)
    raise TooShort(length, what, math.ceil(step / (within[1] - within[0])))


def _most_that_fits(
    build: Builder, empty: int, between: tuple[float, float], tokenizer: Tokenizer, what: str, guess: int
) -> tuple[int, int, int]:
    """(units with which the tokens are in the interval, else the most below it; those tokens; how many more the next
    unit would be).

    Counting is slow for long prompts (half a second for 131,072 tokens), so the next number of units is interpolated
    between the two counts nearest to the aim.

    Args:
        empty: tokens without any units.
    """
    least, most = between
    low, fits = 0, empty
    high = above = 0  # units known to be too many and their tokens; none yet
    aim = (least + most) / 2
    units, attempts = max(1, guess), 0
    while not high or high - low > 1:
        tokens = count_tokens(tokenizer, build(units))
        if least <= tokens <= most:
            return units, tokens, 0
        if tokens <= most:
            if units > 16 * most:
                raise BadInput(f"{what}: {units} units of filling are only {tokens} tokens; is this the tokenizer?")
            previous, low, fits = (low, fits), units, tokens
        else:
            previous, high, above = (high, above) if high else (low, fits), units, tokens
        attempts += 1
        if high:
            slope = (above - fits) / (high - low)
            step = (high - low) // 2 if attempts > INTERPOLATIONS else round((aim - fits) / slope)
            units = min(max(low + step, low + 1), high - 1)
        else:
            slope = max((fits - previous[1]) / (low - previous[0]), 0.1)
            units = low + max(1, round((aim - fits) / slope))
    return low, fits, above - fits
