"""Language: is the answer, and is the thinking, in the language asked for?

Arithmetic and well-known facts are asked in English, Japanese and Chinese, to be answered in the same or in another
language; problems of many steps are asked with a system prompt that wants the thinking in Japanese or Chinese. Whether
an answer is right and in which language it is are two measurements: an answer in the wrong language can be right.

Tasks: arithmetic-L, facts-L, cross-L-M (asked in L, answered in M), thinking-L.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from harness.contract.chat import Tokenizer
from harness.contract.samples import Item, Role, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Completion
from suites.base import AnswerConfig, ChatSuite, Distinct, make_sample
from suites.language.questions import (
    ARITHMETIC,
    PAIRS,
    THINKING_LANGUAGES,
    Question,
    arithmetic,
    cross_questions,
    facts,
    question_items,
    thinking_items,
)
from suites.readings.accepted_answers import first_accepted
from suites.readings.endings import apart, unterminated
from suites.readings.scripts import LANGUAGES, Language, broken_characters, fits, mixed_words, script_shares

QuestionGroup = Literal["arithmetic", "facts", "cross", "thinking"]
GROUPS: tuple[QuestionGroup, ...] = ("arithmetic", "facts", "cross", "thinking")

PROMPT_TOKENS = 1536
"""No prompt has more bytes, chat template included; byte-level tokenizers make at most one token of a byte."""

LANGUAGE_METRICS = {
    "wrong_language": "1 when the answer is in another language than asked for; absent where there is no answer",
    "wrong_reasoning_language": "the same of the thinking; absent where none was asked for or the model did not think",
    "no_language": "1 when the answer is of no language (a number, a formula, a name): it is then not in a wrong one",
    "answer_kana": "share of the answer's letters; so too han, latin, hangul, cyrillic, arabic, other; absent without",
    "reasoning_kana": "share of the thinking's letters, and so on",
    "mixed_words": "words whose letters do not belong together, in thinking and answer (suites/readings/scripts.py)",
    "broken_characters": "U+FFFD and lone surrogates in thinking and answer, but for one that the budget cut",
    "garbled": "1 when there is a mixed word or a broken character",
}
"""Metrics of a sample, in addition to those of suites/readings/endings.py."""


class LanguageConfig(AnswerConfig):
    """`language` in a policy."""

    groups: Distinct[QuestionGroup] = GROUPS
    """Leave `thinking` out for a model that does not think: nothing can be said of what is not there."""
    languages: Distinct[Language] = LANGUAGES
    """Of questions, answers and thinking."""
    seed: int = 0


class LanguageSuite(ChatSuite):
    """The suite."""

    name = "language"

    def __init__(self, config: LanguageConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self.max_tokens = config.max_tokens or sampling.max_tokens

    @property
    def context_needed(self) -> int:
        return self.max_tokens + PROMPT_TOKENS

    def items(self, tokenizer: Tokenizer | None) -> Iterator[Item]:
        """Questions of each group and language, the first ones of each task where there is a limit."""
        for items in self._tasks():
            yield from islice(items, self._config.limit)

    def _tasks(self) -> Iterator[Iterator[Item]]:
        groups, languages, seed = self._config.groups, self._config.languages, self._config.seed
        same: dict[QuestionGroup, Sequence[Question]] = {
            "arithmetic": [arithmetic(index, seed) for index in range(ARITHMETIC)],
            "facts": facts(),
        }
        for group, questions in same.items():
            if group in groups:
                for language in languages:
                    yield question_items(f"{group}-{language}", questions, (language, language))
        if "cross" in groups:
            for pair in PAIRS:
                if set(pair) <= set(languages):
                    yield question_items(f"cross-{pair[0]}-{pair[1]}", cross_questions(pair, seed), pair)
        if "thinking" in groups:
            for language in THINKING_LANGUAGES:
                if language in languages:
                    yield thinking_items(language, seed)

    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        """1 when the answer holds an accepted one, in any language."""
        completion = apart(completion)
        found = None if unterminated(completion) else first_accepted(completion.text, item.target)
        metrics = language_metrics(completion, item.data["language"], item.data.get("thinking"))
        answer = found or completion.text.strip()[:200]
        return make_sample(
            self.name, item, role, completion, score=float(found is not None), answer=answer, metrics=metrics
        )


def language_metrics(completion: Completion, answer: Language, thinking: Language | None = None) -> dict[str, float]:
    """Metrics of one answer that was asked for in the language `answer`, with thinking in the language `thinking`."""
    metrics: dict[str, float] = {}
    asked = (("wrong_language", completion.text, answer), ("wrong_reasoning_language", completion.reasoning, thinking))
    for name, text, language in asked:
        if language is not None and text.strip():
            metrics[name] = float(fits(text, language) is False)
    if completion.text.strip():
        metrics["no_language"] = float(fits(completion.text, answer) is None)
    for part, text in (("answer", completion.text), ("reasoning", completion.reasoning)):
        metrics |= {f"{part}_{script}": share for script, share in script_shares(text).items()}
    text = "\n".join(filter(None, (completion.reasoning, completion.text)))
    if completion.finish_reason == "length":  # the budget may end inside a character
        text = text.removesuffix("\ufffd")
    mixed, broken = mixed_words(text), broken_characters(text)
    return metrics | {
        "mixed_words": float(mixed),
        "broken_characters": float(broken),
        "garbled": float(mixed + broken > 0),
    }
