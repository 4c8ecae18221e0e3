"""RULER: retrieval, tracing and aggregation at a set context length.

Method: Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?" (arXiv 2404.06654).
The wording of the prompts is ours, so scores compare two roles here and not with published tables. Scoring is that
of NVIDIA/RULER: case-insensitive substring, mean over the references.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from pydantic import Field, field_validator
from wonderwords import RandomWord

from harness.endpoint import Endpoint, Messages
from harness.errors import BadInput
from harness.policy import Sampling
from harness.samples import Item, Role, Sample
from suites.base import SuiteConfig, Tokenizer, count_tokens, make_item, make_sample

NOISE = (
    "The morning train is late.",
    "A gull sits on the wall.",
    "Rain falls over the harbour.",
    "The baker opens the door.",
    "Someone waters the plants.",
)
SHORT = 4096
"""Below this many tokens the word lists of cwe are thinned, since the full ones do not fit."""


class RulerConfig(SuiteConfig):
    """`ruler` in a policy."""

    lengths: tuple[int, ...] = Field(min_length=1)
    """Prompt lengths in tokens, chat template included."""
    tasks: tuple[str, ...] = ("niah_single_1", "vt", "cwe")
    per_task: int = Field(50, ge=1)
    """Items for each task and length."""
    max_tokens: int | None = Field(None, ge=1)
    """Budget of one answer; the policy's sampling.max_tokens when absent."""
    seed: int = 42

    @field_validator("lengths", "tasks")
    @classmethod
    def _named_once(cls, values: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a value is there twice")
        return values


class Ruler:
    """The suite."""

    name = "ruler"
    reference_first = False

    def __init__(self, config: RulerConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._max_tokens = config.max_tokens or sampling.max_tokens

    @property
    def context_needed(self) -> int:
        return max(self._config.lengths) + self._max_tokens

    def items(self, tokenizer: Tokenizer) -> Sequence[Item]:
        """Prompts of at most the asked number of tokens, from the seed alone.

        Raises:
            BadInput: unknown task, or a length too small for it.
        """
        made: list[Item] = []
        for task in self._config.tasks:
            if task not in TASKS:
                raise BadInput(f"ruler task {task} is unknown; known: {', '.join(TASKS)}")
            for length in self._config.lengths:
                for index in range(self._config.per_task):
                    # A text as seed: the same on every machine and Python, unlike hash().
                    rng = random.Random(f"{self._config.seed}/{task}/{length}/{index}")
                    build, references = TASKS[task](rng, length)
                    messages = fit(build, length, tokenizer, what=task)
                    made.append(make_item(f"{task}@{length}", f"{index:04d}", messages, target=references))
        return made

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        completion = await endpoint.chat(item.prompt, self._max_tokens)
        score = match_all(completion.text, item.target)
        return make_sample(self.name, item, role, completion, score=score, answer=completion.text.strip()[:200])


def match_all(answer: str, references: Sequence[str]) -> float:
    """Share of references that occur in the answer, letter case ignored (RULER's `string_match_all`)."""
    return sum(reference.lower() in answer.lower() for reference in references) / len(references)


Builder = Callable[[int], Messages]
"""Makes the messages with so many units of filling; more units are more tokens."""


def fit(build: Builder, length: int, tokenizer: Tokenizer, what: str = "this task") -> Messages:
    """The longest prompt of `build` with at most `length` tokens, found by bisection over the filling.

    Raises:
        BadInput: not even the prompt without filling fits.
    """
    if count_tokens(tokenizer, build(0)) > length:
        raise BadInput(f"ruler: a prompt of {length} tokens is too short for {what}; use a larger length")
    low, high = 0, 64
    while count_tokens(tokenizer, build(high)) <= length:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_tokens(tokenizer, build(middle)) <= length else (low, middle)
    return build(low)


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _scatter(rng: random.Random, needles: list[str]) -> Callable[[int], str]:
    """Noise sentences with the needles among them, in order, each at a depth drawn once."""
    depths = sorted(rng.random() for _ in needles)

    def text(units: int) -> str:
        lines = [NOISE[i % len(NOISE)] for i in range(units)]
        for depth, needle in reversed(list(zip(depths, needles, strict=True))):
            lines.insert(int(depth * (units + 1)), needle)
        return " ".join(lines)

    return text


def niah_single_1(rng: random.Random, length: int) -> tuple[Builder, list[str]]:
    """One number hidden in repeated noise (RULER appendix B, single NIAH)."""
    key, value = "-".join(rng.sample(_nouns(), 2)), str(rng.randint(1_000_000, 9_999_999))
    text = _scatter(rng, [f"The locker number of {key} is {value}."])
    question = f"What is the locker number of {key} given in the text? Answer with the number."

    def build(units: int) -> Messages:
        intro = "A locker number is hidden in the text below. Remember it, you will be asked for it."
        return _user(f"{intro}\n\n{text(units)}\n\n{question}")

    return build, [value]


def vt(rng: random.Random, length: int) -> tuple[Builder, list[str]]:
    """Variable tracking: one chain of four hops; every name that holds the value is asked for."""
    names = ["".join(rng.sample("ABCDEFGHJKLMNPQRSTUVWXYZ", 4)) for _ in range(5)]
    value = str(rng.randint(10_000, 99_999))
    chain = [f"VAR {names[0]} = {value}."]
    chain += [f"VAR {after} = VAR {before}." for before, after in pairwise(names)]
    text = _scatter(rng, chain)
    question = f"Which variables hold the value {value}? There are five; list their names."

    def build(units: int) -> Messages:
        intro = "The text below assigns values to variables. Follow the assignments."
        return _user(f"{intro}\n\n{text(units)}\n\n{question}")

    return build, names


def cwe(rng: random.Random, length: int) -> tuple[Builder, list[str]]:
    """Common words: ten words occur often, all others seldom; the ten are asked for."""
    often, seldom = (30, 3) if length >= SHORT else (10, 1)
    words = rng.sample(_nouns(), len(_nouns()))
    common, others = words[:10], words[10:]
    order = rng.random()

    def build(units: int) -> Messages:
        filling = [others[i % len(others)] for i in range(units) for _ in range(seldom)]
        listed = common * often + filling
        random.Random(order).shuffle(listed)
        numbered = " ".join(f"{i}. {word}" for i, word in enumerate(listed, start=1))
        question = "Which ten words occur most often in the list? Answer with the ten words."
        intro = "Below is a numbered list of words. Some occur far more often than others."
        return _user(f"{intro}\n\n{numbered}\n\n{question}")

    return build, common


TASKS: dict[str, Callable[[random.Random, int], tuple[Builder, list[str]]]] = {
    "niah_single_1": niah_single_1,
    "vt": vt,
    "cwe": cwe,
}


@cache
def _nouns() -> list[str]:
    """Plain English nouns that the package wonderwords ships, in a fixed order."""
    return sorted(w for w in RandomWord().filter(include_categories=["noun"]) if w.isalpha() and len(w) > 2)
