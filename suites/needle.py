"""Needle: one fact hidden at a set depth of a set length, up to a million tokens.

Method: the "needle in a haystack" test (Kamradt 2023) with RULER's number needle and noise haystack (arXiv 2404.06654,
appendix B). A task is a length; its items go through the depths.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator

from harness.endpoint import Endpoint, Messages
from harness.errors import BadInput
from harness.policy import Sampling
from harness.samples import Item, Role, Sample
from suites.base import SuiteConfig, Tokenizer, count_tokens, make_item, make_sample
from suites.ruler import NOISE, match_all


class NeedleConfig(SuiteConfig):
    """`needle` in a policy."""

    lengths: tuple[int, ...] = Field(min_length=1)
    """Prompt lengths in tokens, chat template included."""
    depths: tuple[float, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Where the needle lies: 0 is the beginning of the haystack, 1 its end."""
    per_cell: int = Field(1, ge=1)
    """Items for each length and depth."""
    max_tokens: int | None = Field(None, ge=1)
    """Budget of one answer; the policy's sampling.max_tokens when absent."""
    seed: int = 42

    @field_validator("depths")
    @classmethod
    def _in_the_text(cls, depths: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= depth <= 1 for depth in depths) or len({_name(depth) for depth in depths}) < len(depths):
            raise ValueError("depths are numbers between 0 and 1, each once")
        return depths


class Needle:
    """The suite."""

    name = "needle"
    reference_first = False

    def __init__(self, config: NeedleConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._max_tokens = config.max_tokens or sampling.max_tokens

    @property
    def context_needed(self) -> int:
        return max(self._config.lengths) + self._max_tokens

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """Prompts of at most the asked number of tokens and at least 99 % of it, from the seed alone.

        Raises:
            BadInput: a length too small for the question.
        """
        made: list[Item] = []
        for length in self._config.lengths:
            units = _units(tokenizer, length)
            for depth in self._config.depths:
                for index in range(self._config.per_cell):
                    rng = random.Random(f"{self._config.seed}/{length}/{_name(depth)}/{index}")
                    name = f"{rng.choice(PLACES)} {rng.randint(100, 999)}"
                    value = str(rng.randint(1_000_000, 9_999_999))
                    messages, cell_units = _prompt(name, value, depth, units), units
                    while count_tokens(tokenizer, messages) > length:  # numbers differ in tokens
                        cell_units -= 1
                        messages = _prompt(name, value, depth, cell_units)
                    item = make_item(str(length), f"{_name(depth)}-{index:02d}", messages, target=[value], depth=depth)
                    made.append(item)
        return made

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        completion = await endpoint.chat(item.prompt, self._max_tokens)
        score = match_all(completion.text, item.target)
        return make_sample(self.name, item, role, completion, score=score, answer=completion.text.strip()[:200])


PLACES = ("harbour", "station", "library", "theatre", "garden", "workshop")


def _name(depth: float) -> str:
    return f"d{round(1000 * depth):04d}"


def _prompt(name: str, value: str, depth: float, units: int) -> Messages:
    lines = [NOISE[i % len(NOISE)] for i in range(units)]
    lines.insert(round(depth * units), f"The locker number of {name} is {value}.")
    intro = "A locker number is hidden in the text below. Remember it, you will be asked for it."
    question = f"What is the locker number of {name} given in the text? Answer with the number."
    return [{"role": "user", "content": f"{intro}\n\n{' '.join(lines)}\n\n{question}"}]


def _units(tokenizer: Tokenizer, length: int) -> int:
    """Sentences of haystack that fit: by interpolation, since a million tokens take seconds to count.

    Raises:
        BadInput: not even the question fits.
    """

    def tokens(units: int) -> int:
        return count_tokens(tokenizer, _prompt("workshop 100", "1000000", 0.5, units))

    empty, some = tokens(0), tokens(100)
    if empty > length:
        raise BadInput(f"needle: a prompt of {length} tokens is too short for the question; use a larger length")
    units = int((length - empty) / max((some - empty) / 100, 0.01))
    for _ in range(8):
        found = tokens(units)
        if 0.995 * length <= found <= length:
            return units
        step = (length - found) * units / max(found - empty, 1)
        units = max(0, units + (int(step) if abs(step) >= 1 else (1 if step > 0 else -1)))
    while units > 0 and tokens(units) > length:
        units -= 1
    return units
