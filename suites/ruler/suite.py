"""RULER: retrieval, tracing, aggregation and questions at a set context length.

Method: Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?" (arXiv 2404.06654):
its thirteen tasks with their parameters, and needle tasks in Japanese and Chinese. The wording of the prompts is ours,
so scores compare two roles here and not with published tables. An answer has to say whole numbers and words;
the score of NVIDIA/RULER, by substring, is kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from pydantic import Field, field_validator

from harness.contract.chat import Tokenizer
from harness.contract.samples import Item, Role, Sample
from harness.endpoint.client import Completion
from suites.base import Distinct, LengthsConfig, LengthsSuite, make_item, make_sample
from suites.materials.fitting import FIRST, TooShort, fit
from suites.readings.accepted_answers import first_accepted, share_said
from suites.readings.endings import apart
from suites.ruler.niah import NIAH, niah
from suites.ruler.qa import qa
from suites.ruler.task import Place, Task
from suites.ruler.words import cwe, fwe, vt

PUBLISHED: dict[str, Task] = {
    "niah_single_1": niah,
    "niah_single_2": niah,
    "niah_single_3": niah,
    "niah_multikey_1": niah,
    "niah_multikey_2": niah,
    "niah_multikey_3": niah,
    "niah_multivalue": niah,
    "niah_multiquery": niah,
    "vt": vt,
    "cwe": cwe,
    "fwe": fwe,
    "qa_1": qa,
    "qa_2": qa,
}
"""The thirteen tasks, under their names."""
TASKS: dict[str, Task] = PUBLISHED | dict.fromkeys(NIAH, niah)
ANY_REFERENCE = ("qa_1", "qa_2")
"""Tasks of which one reference is enough."""
TRIED = 100
"""Items that must fit the length that a refusal names."""


class RulerConfig(LengthsConfig):
    """`ruler` in a policy."""

    tasks: Distinct[str] = tuple(PUBLISHED)
    """The thirteen tasks; also niah_single_, niah_word_ and niah_multikey_ with ja or zh."""
    per_task: int = Field(50, ge=1)
    """Items for each task and length."""

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [task for task in tasks if task not in TASKS]:
            raise ValueError(f"{unknown[0]} is unknown; known: {', '.join(TASKS)}")
        return tasks


class Ruler(LengthsSuite):
    """The suite."""

    name = "ruler"

    _config: RulerConfig

    @property
    def tasks(self) -> Sequence[str]:
        return [f"{task}@{length}" for task in self._config.tasks for length in self._config.lengths]

    def items(self, tokenizer: Tokenizer) -> Iterator[Item]:
        """Prompts of at most the asked number of tokens and at least 99 % of it, from the seed alone, one by one.

        Raises:
            TooShort: a length that a task does not fit; it names one that its items do.
            BadInput: a task whose data is missing.
        """
        for task in self._config.tasks:
            for length in self._config.lengths:
                try:
                    yield from self._items(task, length, tokenizer)
                except TooShort as error:
                    raise TooShort(length, error.what, self._long_enough(task, error.needs, tokenizer)) from None

    def _items(self, task: str, length: int, tokenizer: Tokenizer) -> Iterator[Item]:
        guess = FIRST
        for index in range(min(self._config.per_task, self._config.limit or self._config.per_task)):
            made = TASKS[task](Place(self._config.seed, task, length, index))
            filling = fit(made.build, length, tokenizer, f"ruler task {task}", guess)
            # The guess is the first item's alone, so that no item depends on how many there are.
            guess = filling.units if index == 0 else guess
            prompt, target = made.build(*filling), list(made.references)
            yield make_item(f"{task}@{length}", f"{index:04d}", prompt, target=target, **made.data)

    def _long_enough(self, task: str, length: int, tokenizer: Tokenizer) -> int:
        """The next length that the first items fit, all of them: each length draws other words."""
        while True:
            try:
                list(islice(self._items(task, length, tokenizer), TRIED))
                return length
            except TooShort as error:
                length = error.needs

    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        any_of_them = item.task.split("@")[0] in ANY_REFERENCE
        return matched_sample(self.name, item, role, completion, any_of_them=any_of_them)


def matched_sample(suite: str, item: Item, role: Role, completion: Completion, *, any_of_them: bool = False) -> Sample:
    """The sample of an answer that has to say the item's references: whole numbers and words, in any usual spelling.

    RULER's own score, by substring, is in the metric `substring`: it lets a number with a doubled digit pass.
    """
    completion = apart(completion)
    answer, references = completion.text, item.target
    if any_of_them:
        score, published = float(first_accepted(answer, references) is not None), match_any(answer, references)
    else:
        score, published = share_said(answer, references), match_all(answer, references)
    metrics = {"substring": published}
    return make_sample(suite, item, role, completion, score=score, answer=answer.strip()[:200], metrics=metrics)


def match_all(answer: str, references: Sequence[str]) -> float:
    """Share of references that occur in the answer, letter case ignored (RULER's `string_match_all`)."""
    answer = _plain(answer)
    return sum(reference.lower() in answer for reference in references) / len(references)


def match_any(answer: str, references: Sequence[str]) -> float:
    """1 where one of the references occurs in the answer, letter case ignored (RULER's `string_match_part`)."""
    answer = _plain(answer)
    return max(float(reference.lower() in answer) for reference in references)


def _plain(answer: str) -> str:
    """RULER takes control characters for line ends before it looks."""
    return re.sub(r"[\x00-\x1f]", "\n", answer.strip()).strip().lower()
