"""Prompts of a set number of tokens: how much filling fits, found with few counts."""

from __future__ import annotations

from collections.abc import Callable

from harness.endpoint import Messages
from harness.errors import BadInput
from suites.base import Tokenizer, count_tokens

WITHIN = (0.99, 1.0)
"""Shares of the asked tokens between which a prompt is as long as asked."""
FIRST = 64
"""Units of the first attempt where nothing is known."""
INTERPOLATIONS = 6
"""Attempts by interpolation; then the interval is halved, since tokens may grow in steps."""

Builder = Callable[[int], Messages]
"""Makes the messages with so many units of filling (sentences, words); more units are more tokens."""


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
) -> int:
    """Units of filling with which `build` has at most `length` tokens, chat template counted, and at least 99 % of it.

    Counting is slow for long prompts (half a second for 131,072 tokens), so the next number of units is interpolated
    between the two counts nearest to the aim. Where units are too coarse for 99 %, it is the largest number that fits.

    Args:
        guess: units to try first: what an item of the same kind needed.
        within: the shares of `length` to stay between.

    Raises:
        BadInput: not even the prompt without filling fits, or filling does not make the prompt longer.
    """
    least, most = within[0] * length, within[1] * length
    low, fits = 0, count_tokens(tokenizer, build(0))
    if fits > most:
        raise BadInput(f"a prompt of {length} tokens is too short for {what}, which needs {fits}; use a larger length")
    high = above = 0  # units known to be too many and their tokens; none yet
    aim = (least + most) / 2
    units, attempts = max(1, guess), 0
    while not high or high - low > 1:
        tokens = count_tokens(tokenizer, build(units))
        if least <= tokens <= most:
            return units
        if tokens <= most:
            if units > 16 * length:
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
    return low
