"""Loops of any length are found and nothing else is, on a corpus of 400 texts, half of which loop."""

from collections import Counter

import pytest
from hangs import no_hang
from loop_texts import looping, not_looping

from suites.readings.loops import LEAST_LOOP, looped, repeated_unit

LOOPS, OTHERS = list(looping()), list(not_looping())


def test_the_corpus_is_large_and_half_of_it_loops() -> None:
    texts = [text for _, text in (*LOOPS, *OTHERS)]
    assert len(set(texts)) == len(texts) == 400 and len(LOOPS) == len(OTHERS) == 200


def test_every_loop_is_found() -> None:
    """Hits: 200 of 200."""
    missed = Counter(kind for kind, text in LOOPS if not looped(text))
    assert not missed


def test_nothing_else_is_called_a_loop() -> None:
    """False alarms: 0 of 200."""
    alarms = Counter(kind for kind, text in OTHERS if looped(text))
    assert not alarms


def test_a_long_page_thirty_times_is_a_loop() -> None:
    page = "".join(f"Sentence {i} of a page says something else. " for i in range(70))[:2600]
    assert looped(page * 30) and repeated_unit(page * 30) == 2600


@pytest.mark.parametrize("size", [1, 7, 200, 201, 2600, 15_000])
def test_a_unit_of_any_length_is_measured(size: int) -> None:
    unit = "".join(chr(0x4E00 + i) for i in range(size))
    times = max(5, -(-LEAST_LOOP // size))
    assert repeated_unit("before" + unit * times) == size
    assert repeated_unit("before" + unit * 2) is None


@pytest.mark.parametrize("between", [" ", "\n", "\n\n"])
def test_the_last_unit_need_not_end_with_what_stands_between(between: str) -> None:
    page = "".join(f"Sentence {i} of a page says something else. " for i in range(70))[:2600].strip() + between
    assert looped(page * 3) and not looped(page * 2)


def test_two_million_characters_take_no_time() -> None:
    with no_hang():
        assert looped(("x" * 499 + "y") * 4000) and not looped("".join(map(str, range(300_000))))
