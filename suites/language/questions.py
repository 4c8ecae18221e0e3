"""The questions of the language suite: arithmetic and facts in English, Japanese and Chinese.

An item is made from the seed, its task and its own name alone. Every question asks for a whole sentence, since a bare
number or name is in no language.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import permutations
from random import Random

from harness.contract.chat import Messages
from harness.contract.samples import Item
from suites.base import make_item
from suites.materials.multistep import Wordings, draw, make_problem
from suites.readings.accepted_answers import numbers
from suites.readings.scripts import LANGUAGES, Language

ARITHMETIC, CROSS_ARITHMETIC, THINKING = 40, 24, 24
"""Items of each task: of a language; of all pairs of languages together; of a language to think in."""
SEEDS = (("multiply", 127, 8), ("multiply", 269, 6))
"""The first two of the arithmetic questions."""
PAIRS: tuple[tuple[Language, Language], ...] = tuple(permutations(LANGUAGES, 2))
"""(language of the question, language asked for)."""
THINKING_LANGUAGES: tuple[Language, ...] = ("ja", "zh")

IN_A_SENTENCE: dict[tuple[Language, Language], str] = {
    ("en", "en"): " Answer in one full sentence.",
    ("ja", "ja"): "一つの完全な文で答えてください。",
    ("zh", "zh"): "请用一句完整的话回答。",
    ("en", "ja"): " Answer in one full sentence in Japanese.",
    ("en", "zh"): " Answer in one full sentence in Chinese.",
    ("ja", "en"): "英語の一つの完全な文で答えてください。",
    ("ja", "zh"): "中国語の一つの完全な文で答えてください。",
    ("zh", "en"): "请用一句完整的英语回答。",
    ("zh", "ja"): "请用一句完整的日语回答。",
}
"""By language of the question and of the answer."""
NOT_AN_EQUATION: Wordings = {
    "en": " Do not write an equation alone.",
    "ja": "式だけの答えにはしないでください。",
    "zh": "不要只写算式。",
}


@dataclass(frozen=True)
class Question:
    """One question in all languages, with what is accepted in each."""

    name: str
    text: Wordings
    answers: dict[Language, list[str]]

    @property
    def accepted(self) -> list[str]:
        """Accepted answers of all languages: whether it is right and in which language it is are two questions."""
        return list(dict.fromkeys(answer for language in LANGUAGES for answer in self.answers[language]))


@cache
def facts() -> tuple[Question, ...]:
    """Well-known facts that do not change, written for this project."""
    lines = (resources.files("suites") / "data" / "facts.jsonl").read_text("utf-8").splitlines()
    return tuple(Question(row["id"], row["question"], row["answer"]) for row in map(json.loads, lines))


def arithmetic(index: int, seed: int = 0) -> Question:
    """Arithmetic question `index`: the two fixed ones, then drawn. The result is none of the numbers given."""
    if index < len(SEEDS):
        kind, a, b = SEEDS[index]
        text, result = OPERATIONS[kind](a, b)
    else:
        rng, kind = Random(f"{seed}/arithmetic/{index}"), list(RANGES)[index % len(RANGES)]
        while True:
            text, result = OPERATIONS[kind](*(draw(rng, low, high) for low, high in RANGES[kind]))
            if str(result) not in {number for asked in text.values() for number in numbers(asked)}:
                break
    return Question(f"{index:04d}", text, {language: [str(result)] for language in LANGUAGES})


Operation = Callable[[int, int], tuple[Wordings, int]]


def plain(sign: str, result: Callable[[int, int], int]) -> Operation:
    def ask(a: int, b: int) -> tuple[Wordings, int]:
        ja, zh = f"{a}{sign}{b}はいくつですか。", f"{a}{sign}{b}等于多少？"
        return {"en": f"What is {a} {sign} {b}?", "ja": ja, "zh": zh}, result(a, b)

    return ask


def divide(a: int, b: int) -> tuple[Wordings, int]:
    asked, _ = plain("÷", lambda x, y: x // y)(a * b, b)
    return asked, a


def percent(a: int, b: int) -> tuple[Wordings, int]:
    """5a % of 20b: always a whole number."""
    share, whole = 5 * a, 20 * b
    ja, zh = f"{whole}の{share}%はいくつですか。", f"{whole}的{share}%是多少？"
    return {"en": f"What is {share}% of {whole}?", "ja": ja, "zh": zh}, a * b


def unit(factor: int, en: str, ja: str, zh: str) -> Operation:
    """`en`, `ja`, `zh`: the question, with {} for the number."""

    def ask(a: int, b: int) -> tuple[Wordings, int]:
        return {"en": en.format(a), "ja": ja.format(a), "zh": zh.format(a)}, a * factor

    return ask


OPERATIONS: dict[str, Operation] = {
    "multiply": plain("×", lambda a, b: a * b),
    "add": plain("+", lambda a, b: a + b),
    "subtract": plain("−", lambda a, b: a - b),
    "divide": divide,
    "percent": percent,
    "hours": unit(60, "How many minutes are {} hours?", "{}時間は何分ですか。", "{}小时等于多少分钟？"),
    "weeks": unit(7, "How many days are {} weeks?", "{}週間は何日ですか。", "{}个星期有多少天？"),
    "kilometres": unit(
        1000,
        "How many metres are {} kilometres?",
        "{}キロメートルは何メートルですか。",
        "{}千米等于多少米？",
    ),
}
RANGES: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "multiply": ((103, 298), (3, 19)),
    "add": ((120, 899), (120, 899)),
    "subtract": ((700, 999), (120, 599)),
    "divide": ((23, 178), (3, 19)),
    "percent": ((3, 19), (4, 45)),
    "hours": ((3, 40), (0, 0)),
    "weeks": ((6, 60), (0, 0)),
    "kilometres": ((2, 98), (0, 0)),
}
"""What the two numbers of each operation are drawn from. Never reordered: the kinds take turns by index."""


def question_items(task: str, questions: Sequence[Question], pair: tuple[Language, Language]) -> Iterator[Item]:
    """Items that are asked in the first language of `pair` and to be answered in the second."""
    asked, wanted = pair
    for question in questions:
        equation = NOT_AN_EQUATION[asked] if question.name.isdigit() else ""
        text = question.text[asked] + IN_A_SENTENCE[pair] + equation
        messages = [{"role": "user", "content": text}]
        yield make_item(task, question.name, messages, target=question.accepted, asked=asked, language=wanted)


def cross_questions(pair: tuple[Language, Language], seed: int = 0) -> list[Question]:
    """The questions of one pair of languages: a sixth of them all, each in the same pair whatever others there are."""
    turn = PAIRS.index(pair)
    drawn = [arithmetic(index, seed) for index in range(ARITHMETIC, ARITHMETIC + CROSS_ARITHMETIC)]
    return [
        *(q for q in drawn if int(q.name) % len(PAIRS) == turn),
        *(q for q in facts() if hashlib.sha256(q.name.encode()).digest()[0] % len(PAIRS) == turn),
    ]


def thinking_prompt(language: Language) -> str:
    """The system prompt that asks for thinking in a language; one for Japanese and one for Chinese ship."""
    return (resources.files("suites") / "data" / f"think_{language}.txt").read_text("utf-8").strip()


def thinking_items(language: Language, seed: int = 0) -> Iterator[Item]:
    """Problems of many steps, asked in the three languages in turn, to be thought about and answered in one."""
    for index in range(THINKING):
        problem, asked = make_problem("medium", index, seed), LANGUAGES[index % len(LANGUAGES)]
        messages: Messages = [
            {"role": "system", "content": thinking_prompt(language)},
            {"role": "user", "content": problem.question[asked]},
        ]
        yield make_item(
            f"thinking-{language}",
            f"{index:04d}",
            messages,
            target=[str(problem.answer)],
            asked=asked,
            language=language,
            thinking=language,
        )
