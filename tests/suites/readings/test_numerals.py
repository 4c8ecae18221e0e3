"""Every number is read to its end, in every notation, and quickly."""

import itertools
from fractions import Fraction

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st

from suites.readings.characters import normalised
from suites.readings.numerals import find_numbers, find_words, plain_form, plain_number

READ = [
    ("18 × 10^3", "18000"),
    ("18*10³", "18000"),
    ("18/7", "18/7"),
    ("18 ÷ 4", "4.5"),
    (r"\frac{18}{5}", "3.6"),
    (r"\dfrac12", "0.5"),
    ("18k", "18000"),
    ("18K", "18000"),
    ("18 million", "18000000"),
    ("1.5 billion", "1500000000"),
    ("18億", "1800000000"),
    ("18亿", "1800000000"),
    ("18千", "18000"),
    ("3万5000", "35000"),
    ("3万5千", "35000"),
    ("1億2000万", "120000000"),
    ("–18", "-18"),
    ("−18", "-18"),
    ("‑18", "-18"),
    ("－１８", "-18"),
    ("minus 18", "-18"),
    ("マイナス18", "-18"),
    ("负18", "-18"),
    ("-$18", "-18"),
    ("18 000", "18000"),
    ("18\u2009000", "18000"),
    ("18\u202f000", "18000"),
    ("18，000", "18000"),
    ("1.234.567", "1234567"),
    ("1.234,50", "1234.5"),
    ("12,34,567", "1234567"),
    ("1'234'567", "1234567"),
    ("18,5", "18.5"),
    ("1{,}234", "1234"),
    (r"1\,234", "1234"),
    ("1.8e1", "18"),
    (r"1.8 \times 10^{1}", "18"),
    ("10^{-3}", "0.001"),
    ("18²", "324"),
    ("18½", "18.5"),
    ("18 3/4", "18.75"),
    ("18.00", "18"),
    ("٣٤", "34"),
    ("१८", "18"),
    ("18%", "18"),
    (r"18\%", "18"),
    ("$18.00", "18"),
    ("€18", "18"),
    ("16 - 3 + 5", "18"),
    ("2 * (3 + 4)", "14"),
    ("6乘3", "18"),
    (".5", "0.5"),
    ("-0", "0"),
    ("007", "7"),
]
NONE = ["18x", "18π", "18_{16}", r"18\sqrt{2}", "1/0", "", "eighteen", "1,2,3", "3 4", "18 pens", "9" * 1000, "9^9999"]


@pytest.mark.parametrize(("written", "plain"), READ)
def test_a_number_is_read_to_its_end(written: str, plain: str) -> None:
    assert plain_number(written) == plain


@pytest.mark.parametrize("written", NONE)
def test_what_is_no_one_number_has_no_value(written: str) -> None:
    assert plain_number(written) == ""


def values(text: str, **how: bool) -> list[str]:
    found = find_numbers(normalised(text), **how)
    return [plain_form(number.value) for number in found if number.value is not None]


def test_numbers_inside_a_text() -> None:
    assert values("18 km^2 in H2O, room A4, 5千米") == ["18", "5"]
    assert values("1,2,3 and 3,1016") == ["1", "2", "3", "3", "1016"]
    assert values("127 × 8", arithmetic=False) == ["127", "8"]
    assert values("1.2 × 10^3 or 16-3", arithmetic=False) == ["1200", "16", "3"]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("sixty thousand", 60000),
        ("one thousand and sixteen", 1016),
        ("twenty-one", 21),
        ("two hundred five", 205),
        ("六万", 60000),
        ("一千零一十六", 1016),
        ("千十六", 1016),
        ("二〇二四", 2024),
        ("二百五十", 250),
        ("十八", 18),
    ],
)
def test_words_are_numbers_too(words: str, value: int) -> None:
    assert [found.value for found in find_words(words)] == [Fraction(value)]


@given(st.fractions(max_denominator=10**4).filter(lambda value: abs(value) < 10**12))
def test_a_plain_form_is_read_back(value: Fraction) -> None:
    assert plain_number(plain_form(value)) == plain_form(value)


@given(st.text(alphabet="0123456789.,- '×/()^{}\\frac千万kx+%$", max_size=60))
def test_any_text_is_read(text: str) -> None:
    plain = normalised(text)
    found = list(find_numbers(plain))
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert all(0 <= number.start < number.end <= len(plain) for number in found)


@pytest.mark.parametrize("unit", ["9", "9,", "9万", "-", "(1", "1 ", "1/", r"\frac{1}", "1 111", "twenty ", "一"])
def test_a_hostile_text_takes_no_time(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    with no_hang():
        assert len(list(find_numbers(normalised(text)))) + len(list(find_words(text))) <= len(text)
