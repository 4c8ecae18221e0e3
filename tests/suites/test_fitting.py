"""How much filling fits: the longest prompt or one within one percent, in few counts, whatever a unit costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from suites.fitting import fit, user


class WordCounter:
    """A tokenizer for which a token is a word. It keeps what it counted."""

    def __init__(self) -> None:
        self.counted: list[int] = []

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        assert options == {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        words = conversation[0]["content"].split()
        self.counted.append(len(words))
        return words


@given(
    fixed=st.integers(1, 40),
    each=st.integers(1, 9),
    length=st.integers(1, 3000),
    guess=st.integers(1, 5000),
)
def test_the_prompt_is_close_or_the_longest_that_fits(fixed: int, each: int, length: int, guess: int) -> None:
    def build(units: int) -> list[dict[str, Any]]:
        return user("w " * (fixed + each * units))

    if fixed > length:
        with pytest.raises(BadInput, match=f"{length} tokens is too short for this task, which needs {fixed}"):
            fit(build, length, WordCounter(), guess=guess)
        return
    units = fit(build, length, WordCounter(), guess=guess)
    tokens = fixed + each * units
    assert tokens <= length and (tokens >= 0.99 * length or units == (length - fixed) // each)


@given(costs=st.lists(st.integers(1, 60), min_size=300, max_size=300), length=st.integers(200, 8000))
def test_units_of_any_cost_are_fitted(costs: list[int], length: int) -> None:
    def tokens(units: int) -> int:
        return sum(costs[:units]) + max(0, units - len(costs)) * 20

    units = fit(lambda n: user("w " * (tokens(n) + 1)), length, WordCounter())
    assert tokens(units) < length and (tokens(units) + 1 >= 0.99 * length or tokens(units + 1) + 1 > length)


def test_an_even_filling_takes_four_counts_and_one_with_a_good_guess() -> None:
    def build(units: int) -> list[dict[str, Any]]:
        return user("w " * (30 + 7 * units))

    tokenizer = WordCounter()
    units = fit(build, 100_000, tokenizer)
    assert len(tokenizer.counted) <= 4 and sum(tokenizer.counted) < 1.01 * 100_000
    tokenizer = WordCounter()
    assert fit(build, 100_000, tokenizer, guess=units) == units
    assert len(tokenizer.counted) == 2  # without filling, and with it


def test_a_narrower_aim_is_kept() -> None:
    units = fit(lambda n: user("w " * (1 + n)), 10_000, WordCounter(), within=(0.992, 0.998))
    assert 9920 <= 1 + units <= 9980


def test_filling_that_costs_nothing_ends_in_an_error() -> None:
    with pytest.raises(BadInput, match="are only 1 tokens; is this the tokenizer"):
        fit(lambda n: user("w"), 100, WordCounter())
