"""What RULER's generated tasks hide: the published numbers of keys, values, hops and words, each so often."""

import math
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruler_tasks import body_of, made, question_of, text_of

from suites.materials.haystack import noise, running_text
from suites.materials.needle_phrases import ADJECTIVES, NOUNS, PHRASES, draw_other
from suites.readings.scripts import Language
from suites.ruler.niah import NIAH
from suites.ruler.words import SHORT

SEEDS = st.integers(0, 2**32)
NUMBER = r"\d{7}"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
WORDS = r"[^\W\d_]+-[^\W\d_]+"


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTGATE_DATA", raising=False)


# Appendix B of the paper: haystack, key, value, keys in the text, values of each, keys asked for.
PUBLISHED = {
    "niah_single_1": ("noise", WORDS, NUMBER, 1, 1, 1),
    "niah_single_2": ("essay", WORDS, NUMBER, 1, 1, 1),
    "niah_single_3": ("essay", WORDS, UUID, 1, 1, 1),
    "niah_multikey_1": ("essay", WORDS, NUMBER, 4, 1, 1),
    "niah_multikey_2": ("needles", WORDS, NUMBER, 1, 1, 1),
    "niah_multikey_3": ("needles", UUID, UUID, 1, 1, 1),
    "niah_multivalue": ("essay", WORDS, NUMBER, 1, 4, 1),
    "niah_multiquery": ("essay", WORDS, NUMBER, 4, 1, 4),
}


@pytest.mark.parametrize("task", PUBLISHED)
@settings(max_examples=15)
@given(seed=SEEDS, units=st.integers(0, 400))
def test_english_needles_are_those_of_the_paper(task: str, seed: int, units: int) -> None:
    kind, key, value, n_keys, n_values, n_queries = PUBLISHED[task]
    item = made(task, seed=seed)
    text = text_of(item.build(units))
    body, question = body_of(text), question_of(text)
    needle = re.compile(rf"(?:The|One of the) locker (?:number|code)s? of ({key}) is ({value})\.")
    found = needle.findall(body)
    distractors = units if kind == "needles" else 0
    assert len(found) == n_keys * n_values + distractors
    asked = [name for name in dict.fromkeys(name for name, _ in found) if re.search(rf"\b{name}\b", question)]
    assert len(asked) == n_queries
    assert sorted(v for name, v in found if name in asked) == sorted(item.references)
    assert len(item.references) == n_queries * n_values
    assert all(text.count(reference) == 1 for reference in item.references)
    assert len({v for _, v in found}) == len(found)  # distractors differ, from each other and from what is asked for
    assert len({name for name, _ in found}) == n_keys + distractors
    rest = " ".join(needle.sub("", body).split())
    if kind == "needles":
        assert not rest
    else:
        assert rest == " ".join((noise() if kind == "noise" else running_text("en")).text(units).split())


NEEDLES = {
    "ja": r"([^。は「」、？！]{2,12})の(ロッカー番号|合言葉)は「([^」]+)」です。",
    "zh": r"([^。，是“”？！：]{2,12}?)的(储物柜号码|口令)是“([^”]+)”。",
}


@pytest.mark.parametrize("task", [task for task in NIAH if task.endswith(("_ja", "_zh"))])
@settings(max_examples=15)
@given(seed=SEEDS, units=st.integers(0, 3000))
def test_needles_in_japanese_and_chinese(task: str, seed: int, units: int) -> None:
    language: Language = "ja" if task.endswith("ja") else "zh"
    item = made(task, seed=seed)
    text = text_of(item.build(units))
    found = re.findall(NEEDLES[language], body_of(text))
    assert len(found) == (4 if "multikey" in task else 1)
    (value,) = item.references
    (key,) = (name for name, _, hidden in found if hidden == value)
    assert key in question_of(text) and text.count(value) == 1
    assert bool(re.fullmatch(NUMBER, value)) != ("word" in task)
    assert len({name for name, _, _ in found}) == len({hidden for _, _, hidden in found}) == len(found)
    rest = re.sub(NEEDLES[language], "", body_of(text))
    assert rest == running_text(language).text(units)
    assert not re.search(r"[a-zA-Z]{2,}", text)


@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_names_are_listed_as_the_language_does(language: Language) -> None:
    listed = PHRASES[language].listed
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == {"en": "a, b and c", "ja": "a、bとc", "zh": "a、b和c"}[language]


@pytest.mark.parametrize("task", ["niah_single_1", "niah_single_2", "niah_multikey_2"])
def test_the_needle_is_not_always_in_the_same_place(task: str) -> None:
    depths = []
    for index in range(80):
        item = made(task, index=index)
        text = body_of(text_of(item.build(2800)))
        depths.append(text.index(item.references[0]) / len(text))
    assert min(depths) < 0.1 and max(depths) > 0.9 and 0.35 < sum(depths) / len(depths) < 0.65


@given(SEEDS, st.integers(0, 300))
def test_the_chain_of_variables_stands_once_and_in_order(seed: int, units: int) -> None:
    item = made("vt", seed=seed)
    text = text_of(item.build(units))
    found = re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?([A-Z]{5}|\d{5})\.", body_of(text))
    names, value = list(item.references), found[0][1]
    assert [name for name, _ in found] == names and value.isdigit() and len(set(names)) == 5
    assert [source for _, source in found] == [value, *names[:-1]]
    assert f"hold the value {value}?" in question_of(text)
    assert not any(name in question_of(text) for name in names)  # the answer is not in the question
    rest = re.sub(r"VAR \w+ = (VAR )?\w+\.", "", body_of(text))
    assert " ".join(rest.split()) == noise().text(units)


@pytest.mark.parametrize(("length", "often", "seldom"), [(SHORT // 2, 10, 1), (SHORT, 30, 3), (131072, 30, 3)])
@settings(max_examples=30)
@given(seed=SEEDS, units=st.integers(0, 300))
def test_the_common_words_are_far_more_common_than_the_others(
    length: int, often: int, seldom: int, seed: int, units: int
) -> None:
    item = made("cwe", length, seed=seed)
    entries = re.findall(r"(\d+)\. (\S+)", body_of(text_of(item.build(units))))
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    counts = Counter(word for _, word in entries)
    assert len(set(item.references)) == 10
    assert all(counts.pop(word) == often for word in item.references)
    assert len(counts) == units and set(counts.values()) <= {seldom}


def test_words_are_uncommon_at_any_length() -> None:
    item = made("cwe", 400_000)
    counts = Counter(re.findall(r"\d+\. (\S+)", body_of(text_of(item.build(20_000)))))
    assert len(counts) == 20_010 and all(counts.pop(word) == 30 for word in item.references)
    assert set(counts.values()) == {3} and sum("-" in word for word in counts) > 10_000


def test_what_is_taken_or_refused_is_not_drawn() -> None:
    every = [a + n for a in ADJECTIVES["ja"].split() for n in NOUNS["ja"].split()]
    taken, refused = set(every[:1000]), set(every[1001:])
    assert draw_other("word", random.Random(0), "ja", taken, refused.__contains__) == every[1000]


@settings(max_examples=20)
@given(seed=SEEDS, units=st.integers(0, 6000), length=st.sampled_from([1024, 8192, 65536]))
def test_coded_words_are_as_frequent_as_their_ranks(seed: int, units: int, length: int) -> None:
    item = made("fwe", length, seed=seed)
    counts = Counter(body_of(text_of(item.build(units))).split())
    words = units + 100
    ranked = counts.most_common()
    zeta = sum(k**-2 for k in range(1, 200_000)) + 1 / 200_000  # by its series
    assert ranked[0][0] == "..."
    assert {word for word, _ in ranked[1:4]} == set(item.references) and len(item.references) == 3
    assert ranked[3][1] > ranked[4][1]  # the three stand apart
    for rank, (_, count) in enumerate(ranked, start=1):
        assert count in {math.floor(words / zeta / rank**2), math.floor(words / zeta / rank**2 + 1e-6)}
    assert len(ranked) <= max(length // 50, 10) + 1
    assert all(re.fullmatch("[a-z]{6}", word) for word, _ in ranked[1:])
