"""How much filling fits: a prompt within one percent or a refusal, in few counts, whatever a unit costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.errors import BadInput
from suites.materials.fitting import Builder, Filling, TooShort, fit, user


class WordCounter:
    """A tokenizer for which a token is a word. It keeps what it counted."""

    def __init__(self) -> None:
        self.counted: list[int] = []

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        assert options == {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        words = conversation[0]["content"].split()
        self.counted.append(len(words))
        return words


def words(fixed: int, each: int, grain: int = 1) -> Builder:
    """Prompts of `fixed` words, `each` more for a unit and `grain` for an extra one."""
    return lambda units, extra=0: user("w " * (fixed + each * units + grain * extra))


@given(
    fixed=st.integers(1, 40),
    each=st.integers(1, 90),
    grain=st.integers(1, 4),
    length=st.integers(1, 3000),
    guess=st.integers(1, 5000),
)
def test_the_prompt_is_within_one_percent_or_the_length_is_refused(
    fixed: int, each: int, grain: int, length: int, guess: int
) -> None:
    build = words(fixed, each, grain)

    def tokens(length: int) -> int:
        units, extra = fit(build, length, WordCounter(), guess=guess)
        assert grain * extra < each
        return fixed + each * units + grain * extra

    try:
        found = tokens(length)
    except TooShort as refused:
        assert f"{length} tokens is too short for this task, which needs {refused.needs};" in str(refused)
        assert refused.needs == fixed > length or (length < 100 * grain and refused.needs == 100 * min(grain, each))
        assert 0.99 * refused.needs <= tokens(refused.needs) <= refused.needs
    else:
        assert 0.99 * length <= found <= length


@given(costs=st.lists(st.integers(1, 60), min_size=300, max_size=300), length=st.integers(200, 8000))
def test_units_of_any_cost_are_fitted(costs: list[int], length: int) -> None:
    def tokens(units: int) -> int:
        return sum(costs[:units]) + max(0, units - len(costs)) * 20

    units, extra = fit(lambda n, extra=0: user("w " * (1 + tokens(n) + extra)), length, WordCounter())
    assert 0.99 * length <= 1 + tokens(units) + extra <= length
    assert not extra or 1 + tokens(units + 1) > length


def test_an_even_filling_takes_four_counts_and_one_with_a_good_guess() -> None:
    tokenizer = WordCounter()
    found = fit(words(30, 7), 100_000, tokenizer)
    assert len(tokenizer.counted) <= 4 and sum(tokenizer.counted) < 1.01 * 100_000
    tokenizer = WordCounter()
    assert fit(words(30, 7), 100_000, tokenizer, guess=found.units) == found
    assert len(tokenizer.counted) == 2  # without filling, and with it
    assert found.extra == 0


def test_what_coarse_units_leave_is_made_up_with_one_count_more() -> None:
    tokenizer = WordCounter()
    assert fit(words(30, 90), 1000, tokenizer, guess=10) == Filling(10, 65)
    assert tokenizer.counted == [30, 930, 1020, 995]


def test_a_narrower_aim_is_kept() -> None:
    units, extra = fit(words(1, 1), 10_000, WordCounter(), within=(0.992, 0.998))
    assert 9920 <= 1 + units <= 9980 and not extra


def test_filling_that_costs_nothing_ends_in_an_error() -> None:
    with pytest.raises(BadInput, match="are only 1 tokens; is this the tokenizer"):
        fit(lambda units, extra=0: user("w"), 100, WordCounter())
