"""Language: every question has a right answer in each language, and another language than asked for is seen."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from language_cases import GOLD, completion

from harness.contract.errors import BadInput
from harness.contract.samples import Item, Sample
from harness.contract.settings import Sampling
from harness.contract.validation import validate
from suites.language.questions import (
    ARITHMETIC,
    CROSS_ARITHMETIC,
    PAIRS,
    Question,
    arithmetic,
    cross_questions,
    facts,
    thinking_prompt,
)
from suites.language.suite import LANGUAGE_METRICS, PROMPT_TOKENS, LanguageConfig, LanguageSuite, language_metrics
from suites.readings.accepted_answers import first_accepted
from suites.readings.endings import endings
from suites.readings.scripts import LANGUAGES, SCRIPTS, Language, fits


def make(**settings: Any) -> LanguageSuite:
    sampling = Sampling(max_tokens=1000)
    return LanguageSuite(validate(LanguageConfig, settings, "language"), sampling, Path())


def items(**settings: Any) -> list[Item]:
    return list(make(**settings).items(None))


ALL = items()
DRAWN = [arithmetic(index) for index in range(ARITHMETIC + CROSS_ARITHMETIC)]
QUESTIONS: list[Question] = [*DRAWN, *facts()]


def question(item: Item) -> Question:
    return next(q for q in QUESTIONS if q.name == item.item)


# -- questions -----------------------------------------------------------------------------------------------


def test_facts_are_whole_and_named_once() -> None:
    assert len(facts()) == len({fact.name for fact in facts()}) == 144
    for fact in facts():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", fact.name)
        for language in LANGUAGES:
            assert fact.text[language] and all(fact.answers[language]), fact.name
            assert fact.text[language].endswith("。" if language == "ja" else ("?", "？"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_question_tells_its_answer(language: Language) -> None:
    for q in QUESTIONS:
        assert first_accepted(q.text[language], q.accepted) is None, q
        assert fits(q.text[language], language) is not False


def test_no_question_is_asked_twice() -> None:
    for language in LANGUAGES:
        assert len({q.text[language] for q in QUESTIONS}) == len(QUESTIONS)


def test_the_issues_own_questions_are_there() -> None:
    assert [q.text["en"] for q in DRAWN[:2]] == ["What is 127 × 8?", "What is 269 × 6?"]
    assert [q.accepted for q in DRAWN[:2]] == [["1016"], ["1614"]]
    mountain = facts()[0]
    assert mountain.text["en"] == "What is the second-tallest mountain in Japan?"
    assert {"Kita-dake", "北岳"} <= set(mountain.accepted)


def test_arithmetic_is_right_and_all_languages_ask_the_same() -> None:
    factors = {"minutes": 60, "days": 7, "metres": 1000}
    kinds = Counter[str]()
    for q in DRAWN:
        text, (gold,) = q.text["en"], q.accepted
        if found := re.fullmatch(r"What is (\d+) ([×+−÷]) (\d+)\?", text):
            a, b = int(found[1]), int(found[3])
            exact = {"×": a * b, "+": a + b, "−": a - b, "÷": a / b}[found[2]]
        elif found := re.fullmatch(r"What is (\d+)% of (\d+)\?", text):
            exact = int(found[1]) * int(found[2]) / 100
        else:
            found = re.fullmatch(r"How many (\w+) are (\d+) \w+\?", text)
            assert found, text
            exact = int(found[2]) * factors[found[1]]
        assert exact == int(gold) > 0
        kinds[re.sub(r"\d+", "", text)] += 1
        numbers = Counter(re.findall(r"\d+", text))
        assert all(Counter(re.findall(r"\d+", q.text[language])) == numbers for language in LANGUAGES)
    assert len(kinds) == 8 and min(kinds.values()) >= 7


# -- items ---------------------------------------------------------------------------------------------------


def test_there_are_enough_items_each_with_a_name_of_its_own() -> None:
    assert len(ALL) == len({(item.task, item.item) for item in ALL}) == len({i.prompt_sha256 for i in ALL}) == 768
    count = Counter(item.task for item in ALL)
    assert {task: n for task, n in count.items() if not task.startswith("cross")} == {
        "arithmetic-en": 40,
        "arithmetic-ja": 40,
        "arithmetic-zh": 40,
        "facts-en": 144,
        "facts-ja": 144,
        "facts-zh": 144,
        "thinking-ja": 24,
        "thinking-zh": 24,
    }
    cross = {task: n for task, n in count.items() if task.startswith("cross")}
    assert len(cross) == 6 and min(cross.values()) >= 20 and sum(cross.values()) == 144 + 24


def test_an_item_is_the_same_whatever_else_is_asked() -> None:
    whole = {(item.task, item.item): item for item in ALL}
    for settings in ({"limit": 3}, {"groups": ["cross"]}, {"languages": ["zh", "en"], "limit": 9}):
        some = items(**settings)
        assert some and all(whole[item.task, item.item] == item for item in some)
    assert {item.task for item in items(languages=["ja"])} == {"arithmetic-ja", "facts-ja", "thinking-ja"}
    assert [item.item for item in items(limit=2, groups=["arithmetic"], languages=["en"])] == ["0000", "0001"]


def test_the_items_of_a_seed_stay_the_same() -> None:
    """Items keep names and prompts from version to version: a run can then be compared with an older one."""
    named = "\n".join(sorted(f"{item.task}/{item.item} {item.prompt_sha256}" for item in ALL))
    assert hashlib.sha256(named.encode()).hexdigest()[:16] == "c878a8d35e40f223"


def test_every_question_is_in_one_pair_of_languages() -> None:
    names = [q.name for pair in PAIRS for q in cross_questions(pair)]
    assert len(names) == len(set(names)) == 144 + 24


def test_other_seeds_draw_other_numbers() -> None:
    assert arithmetic(5, 1).text != arithmetic(5).text and arithmetic(1, 1).text == arithmetic(1).text


def test_questions_are_in_the_language_they_say() -> None:
    for item in ALL:
        content = item.prompt[-1]["content"]
        assert fits(content, item.data["asked"]) is True, content
        assert sum(len(message["content"].encode()) for message in item.prompt) < PROMPT_TOKENS - 512
        if item.task.startswith("thinking"):
            assert [message["role"] for message in item.prompt] == ["system", "user"]
            assert item.prompt[0]["content"] == thinking_prompt(item.data["thinking"])
        else:
            assert "thinking" not in item.data


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_the_thinking_prompts_are_in_their_language(language: Any) -> None:
    assert fits(thinking_prompt(language), language) is True
    asked = {item.data["asked"] for item in ALL if item.data.get("thinking") == language}
    assert asked == set(LANGUAGES)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"groups": []}, "groups"),
        ({"groups": ["fact"]}, "groups.0"),
        ({"groups": ["facts", "facts"]}, "a value is there twice"),
        ({"limit": 0}, "limit"),
        ({"language": ["ja"]}, "did you mean 'languages'?"),
    ],
)
def test_a_wrong_configuration_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make(**settings)


def test_the_context_holds_prompt_and_answer() -> None:
    assert make().context_needed == 1000 + PROMPT_TOKENS and make(max_tokens=9).context_needed == 9 + PROMPT_TOKENS


# -- scores and languages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("said_in", LANGUAGES)
@pytest.mark.parametrize("long", [0, 1])
def test_the_gold_sentence_is_right_and_its_language_is_seen(said_in: Any, long: int) -> None:
    suite = make()
    for item in ALL:
        known = [item.target[0]] if item.task.startswith("thinking") else question(item).answers[said_in]
        for gold in known:
            sample = suite.score(item, "candidate", completion(GOLD[said_in][long].format(gold)))
            assert sample.score == 1.0 and sample.answer in item.target, (item, gold)
            wrong = float(said_in != item.data["language"])
            assert sample.metrics["wrong_language"] == wrong, (item.data, sample.text)
            assert sample.metrics["garbled"] == 0, sample.text


def test_another_answer_is_wrong() -> None:
    suite = make()
    for item in ALL:
        language = item.data["language"]
        for other in ("123456789", {"en": "Springfield", "ja": "架空町", "zh": "虚构镇"}[language]):
            sample = suite.score(item, "candidate", completion(GOLD[language][0].format(other)))
            assert sample.score == 0.0 and sample.metrics["wrong_language"] == 0.0


ITEM = next(item for item in ALL if item.task == "thinking-ja")
JA, ZH, EN = (
    "まず、127に8を掛けます。100×8は800で、27×8は216なので、合計は1016になります。",
    "首先，把127乘以8。100×8是800，27×8是216，所以总和是1016。",
    "First, multiply 127 by 8. Since 100 × 8 is 800 and 27 × 8 is 216, the sum is 1016.",
)


@pytest.mark.parametrize(
    ("thinking", "text", "expected"),
    [
        (JA, "答えは1016です。", (0.0, 0.0)),
        (ZH, "答えは1016です。", (1.0, 0.0)),
        (EN, "答えは1016です。", (1.0, 0.0)),
        (JA, "The answer is 1016.", (0.0, 1.0)),
        (JA * 3 + EN, "答えは1016です。", (0.0, 0.0)),
        (JA + EN * 3, "答えは1016です。", (1.0, 0.0)),
        (JA + ZH, "答えは1016です。", (1.0, 0.0)),
        ("", "答えは1016です。", (None, 0.0)),  # no thinking is not thinking in the wrong language
        ("$127 \\times 8 = 1016$", "1016", (0.0, 0.0)),  # of no language, so not in a wrong one
        (JA, "", (0.0, None)),
    ],
)
def test_thinking_has_a_language_of_its_own(thinking: str, text: str, expected: tuple[float | None, ...]) -> None:
    metrics = make().score(ITEM, "candidate", completion(text, thinking, "length")).metrics
    assert (metrics.get("wrong_reasoning_language"), metrics.get("wrong_language")) == expected


def test_thinking_is_not_judged_where_none_was_asked_for() -> None:
    fact = next(item for item in ALL if item.task == "facts-ja")
    metrics = make().score(fact, "candidate", completion("答えは北岳です。", EN)).metrics
    assert "wrong_reasoning_language" not in metrics and metrics["reasoning_latin"] == 1.0


def test_histograms_of_answer_and_thinking() -> None:
    metrics = language_metrics(completion("北岳です", "北 ab Щ가"), "ja")
    assert {key: value for key, value in metrics.items() if value and key.startswith("answer")} == {
        "answer_kana": 0.5,
        "answer_han": 0.5,
    }
    expected = {"reasoning_han": 0.2, "reasoning_latin": 0.4, "reasoning_cyrillic": 0.2, "reasoning_hangul": 0.2}
    assert {key: value for key, value in metrics.items() if value and key.startswith("reasoning")} == expected
    assert not any(key.startswith("answer_") for key in language_metrics(completion("1016"), "ja"))


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("答えは1016です。", "stop", (0, 0, 0)),
        ("答え\ufffdは1016です。", "stop", (0, 1, 1)),
        ("答えはプロgラムです。", "stop", (1, 0, 1)),
        ("The аnswer\ufffd\ufffd", "stop", (1, 2, 1)),
        ("答えは\ufffd", "stop", (0, 1, 1)),
        ("答えは\ufffd", "length", (0, 0, 0)),  # the budget ended inside a character
    ],
)
def test_garbled_text_is_counted(text: str, finish: str, expected: tuple[int, int, int]) -> None:
    for said in (completion(text, finish=finish), completion("", text, finish=finish)):
        found = language_metrics(said, "ja")
        assert (found["mixed_words"], found["broken_characters"], found["garbled"]) == expected


KNOWN = {name for name in LANGUAGE_METRICS if "_kana" not in name}
KNOWN |= {f"{part}_{script}" for part in ("answer", "reasoning") for script in SCRIPTS}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(TEXT, TEXT, st.sampled_from(["stop", "length", "tool_calls", "repetition"]), st.sampled_from(ALL))
def test_whatever_a_model_writes_has_documented_metrics(text: str, thinking: str, finish: str, item: Item) -> None:
    said = completion(text, thinking, finish)
    sample = make().score(item, "candidate", said)
    assert sample.metrics.keys() <= KNOWN | endings(said).keys() | {"thinking_tokens", "no_answer"}
    assert Sample.model_validate_json(sample.model_dump_json()) == sample


def test_an_answer_inside_thinking_that_never_closed_is_none() -> None:
    sample = make().score(ITEM, "candidate", completion(f"<think>答えは{ITEM.target[0]}です。", finish="length"))
    assert sample.score == 0.0 and sample.metrics["unterminated"] == 1.0


def test_nothing_at_all_is_no_wrong_answer_and_in_no_language() -> None:
    sample = make().score(ITEM, "candidate", completion(null=True))
    assert sample.score is None and "wrong_language" not in sample.metrics


@pytest.mark.parametrize(
    ("text", "none"), [("1016", 1.0), ("答えは1016です。", 0.0), ("The answer is 1016.", 0.0), ("", None)]
)
def test_an_answer_of_no_language_is_counted_as_that(text: str, none: float | None) -> None:
    metrics = make().score(ITEM, "candidate", completion(text)).metrics
    assert metrics.get("no_language") == none
