"""Needle: one fact hidden at a set depth of a set length, up to a million tokens.

Method: the "needle in a haystack" test (Kamradt 2023) with RULER's number needle (arXiv 2404.06654, appendix B). A task
is a length; its items go through the depths: their names begin with it in thousandths (d0250-00).

All prompts of a language begin with the same words and the same haystack, up to the needle. The deepest needles of a
length are asked first: they leave the longest prefix in the cache of a server that keeps prefixes, for all others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from harness.contract.chat import Messages, Tokenizer
from harness.contract.samples import Item, Role, Sample
from harness.endpoint.client import Completion
from suites.base import LengthsConfig, LengthsSuite, make_item
from suites.materials.fitting import WITHIN, fit, user
from suites.materials.haystack import Haystack, noise, running_text, topped_up
from suites.materials.needle_phrases import PHRASES, draw_other
from suites.readings.scripts import Language
from suites.ruler.suite import matched_sample

COUNTED = 32768
"""Longer prompts are not counted one by one, since a million tokens take seconds: one prompt of each length is."""
NARROWER = (0.992, 0.998)
"""Shares of the length between which that one prompt lies. The others have another name and place for the needle, which
is a matter of ten tokens."""


class NeedleConfig(LengthsConfig):
    """`needle` in a policy. `limit` keeps the deepest needles of each length: they are asked first."""

    depths: tuple[float, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Where the needle lies: 0 is the beginning of the haystack, 1 its end."""
    per_cell: int = Field(1, ge=1)
    """Items for each length and depth."""
    language: Language = "en"
    haystack: Literal["noise", "text"] = "noise"
    """Repeated sentences, or running text ($QUANTGATE_DATA/text_<language>, else the essays of this project)."""

    @field_validator("depths")
    @classmethod
    def _in_the_text(cls, depths: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= depth <= 1 for depth in depths) or len({_name(depth) for depth in depths}) < len(depths):
            raise ValueError("depths are numbers between 0 and 1, each once")
        return depths


class Cell(NamedTuple):
    """One item before its haystack: where its needle lies and what it says."""

    item: str
    depth: float
    key: str
    value: str


class Needle(LengthsSuite):
    """The suite."""

    name = "needle"
    keeps_order = True

    _config: NeedleConfig

    @property
    def tasks(self) -> Sequence[str]:
        return list(map(str, self._config.lengths))

    def items(self, tokenizer: Tokenizer) -> Iterator[Item]:
        """Prompts of at most the asked number of tokens and at least 99 % of it, from the seed alone, one by one.

        Raises:
            TooShort: a length too small for the question.
        """
        language = self._config.language
        haystack = noise(language) if self._config.haystack == "noise" else running_text(language)
        for length in self._config.lengths:
            # An item of no cell, so that the others do not depend on which cells there are.
            build = partial(_prompt, self._cell(length, 0.5, -1, haystack), haystack, language)
            usual = fit(build, length, tokenizer, "needle", within=NARROWER if length > COUNTED else WITHIN)
            for cell in islice(self._cells(length, haystack), self._config.limit):
                build = partial(_prompt, cell, haystack, language)
                filling = fit(build, length, tokenizer, "needle", usual.units) if length <= COUNTED else usual
                prompt = build(*filling)
                item = make_item(str(length), cell.item, prompt, target=[cell.value], depth=cell.depth)
                item.data.update(haystack=haystack.name, haystack_sha256=haystack.sha256)
                yield item

    def _cells(self, length: int, haystack: Haystack) -> Iterator[Cell]:
        """The items of a length, the deepest first."""
        for depth in sorted(self._config.depths, reverse=True):
            for index in range(self._config.per_cell):
                yield self._cell(length, depth, index, haystack)

    def _cell(self, length: int, depth: float, index: int, haystack: Haystack) -> Cell:
        rng = random.Random(f"{self._config.seed}/{length}/{_name(depth)}/{index}")
        key = draw_other("word", rng, self._config.language, (), haystack.holds)
        value = draw_other("number", rng, self._config.language, (), haystack.holds)
        return Cell(f"{_name(depth)}-{index:02d}", depth, key, value)

    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        return matched_sample(self.name, item, role, completion)


def _name(depth: float) -> str:
    return f"d{round(1000 * depth):04d}"


def _prompt(cell: Cell, haystack: Haystack, language: Language, units: int, extra: int = 0) -> Messages:
    phrases = PHRASES[language]
    thing = phrases.things["number"]
    needle = phrases.needle[0].format(thing=thing, key=cell.key, value=cell.value)
    text = topped_up(haystack.text(units, [(cell.depth, needle)]), extra, language)
    question = phrases.question[0].format(thing=thing, keys=cell.key)
    return user(f"{phrases.intro[0].format(thing=thing)}\n\n{text}\n\n{question}")
