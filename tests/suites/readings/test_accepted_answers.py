"""Accepted answers are found in every usual spelling, and nowhere else."""

import unicodedata

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st
from language_cases import HOSTILE

from suites.readings.accepted_answers import first_accepted, folded, numbers


@pytest.mark.parametrize(
    ("text", "accepted", "found"),
    [
        ("127 × 8 = 1016.", ["1016"], True),
        ("１，０１６です", ["1016"], True),
        ("1,016", ["1016"], True),
        ("1{,}016 or 1\\,016", ["1016"], True),
        ("答えは1016個。", ["1016"], True),
        ("1016.00", ["1016"], True),
        ("01016", ["1016"], True),
        ("x=1016!", ["1016"], True),
        ("\\boxed{1016}", ["1016"], True),
        ("21016", ["1016"], False),
        ("the 1016th", ["1016"], False),
        ("10160", ["1016"], False),
        ("1016.5", ["1016"], False),
        ("0.1016", ["1016"], False),
        ("3,1016", ["1016"], True),  # a list
        ("31,016", ["1016"], False),
        ("1,016,000", ["1016"], False),
        ("-1016", ["1016"], False),
        ("−1016", ["1016"], False),
        ("2032-1016", ["1016"], True),
        ("room A1016", ["1016"], False),
        ("CO2", ["2"], False),
        ("5² = 25", ["52"], False),
        ("42.195 km", ["42.195"], True),
        ("It is Paris.", ["Paris"], True),
        ("PARIS", ["paris"], True),
        ("ＰＡＲＩＳ", ["Paris"], True),
        ("a comparison", ["Paris"], False),
        ("Parisian", ["Paris"], False),
        ("Paris's", ["Paris"], True),
        ("Brasília", ["Brasilia"], True),
        ("Brasi\u0301lia", ["Brasilia"], True),
        ("Kita-dake", ["Kita"], True),
        ("Kitadake", ["Kita"], False),
        ("Wu Cheng\u2019en", ["Wu Cheng'en"], True),
        ("首都はパリです", ["パリ"], True),
        ("首都はﾊﾟﾘです", ["パリ"], True),
        ("首都はハリです", ["パリ"], False),
        ("CO₂です", ["CO2"], True),
        ("K2峰", ["K2"], True),
        ("K20", ["K2"], False),
        ("日本第二高的山是北岳", ["Kita-dake", "北岳"], True),
        ("", ["Paris"], False),
    ],
)
def test_an_accepted_answer_is_found(text: str, accepted: list[str], found: bool) -> None:
    assert first_accepted(text, accepted) == (accepted[-1] if found else None)


def test_the_first_accepted_answer_is_named() -> None:
    assert first_accepted("Peking or Beijing", ["Beijing", "Peking"]) == "Beijing"


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=6), st.sampled_from(["{}", "{:,}", "{}.0", "\\boxed{{{}}}"])
)
def test_numbers_are_read_back(values: list[int], form: str) -> None:
    assert numbers(" and ".join(form.format(value) for value in values)) == [str(value) for value in values]


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_number_is_in_no_other(said: int, wanted: int) -> None:
    assert (first_accepted(f"答えは{said}です。", [str(wanted)]) is not None) == (said == wanted)


@given(
    st.text(st.characters(exclude_categories=()), max_size=60), st.lists(st.text(min_size=1, max_size=9), max_size=3)
)
def test_any_text_can_be_searched(text: str, accepted: list[str]) -> None:
    assert first_accepted(text, accepted) in (None, *accepted)


@given(st.text(max_size=60))
def test_folding_is_the_same_for_every_form_of_a_text(text: str) -> None:
    assert folded(text) == folded(unicodedata.normalize("NFD", text))


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text_and_no_faster(name: str) -> None:
    with no_hang():
        first_accepted(HOSTILE[name], ["1016", "Paris", "北岳"])
