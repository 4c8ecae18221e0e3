"""needle: the grid, its lengths and where the needle lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from harness.policy import Sampling, validate
from suites.base import count_tokens
from suites.needle import Needle, NeedleConfig


class Words:
    """A tokenizer of words, four of which the chat template adds."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> list[int]:
        return [0] * (4 + sum(len(message["content"].split()) for message in conversation))


def suite(**settings: Any) -> Needle:
    return Needle(NeedleConfig(**settings), Sampling(max_tokens=64), Path("unused"))


def test_every_prompt_is_within_one_percent_of_its_length_and_never_above() -> None:
    items = suite(lengths=(400, 2000, 200_000), per_cell=2).items(Words())
    assert len(items) == 3 * 5 * 2
    for item in items:
        assert 0.99 * int(item.task) <= count_tokens(Words(), item.prompt) <= int(item.task)


def test_the_needle_lies_at_its_depth_and_is_the_target() -> None:
    for item in suite(lengths=(4000,), depths=(0.0, 0.25, 1.0)).items(Words()):
        text = item.prompt[0]["content"].split("\n\n")[1]
        at = text.index(item.target[0]) / len(text)
        assert at == pytest.approx(item.data["depth"], abs=0.02)
        assert text.count(item.target[0]) == 1


def test_items_are_the_same_every_time_and_have_names_of_their_own() -> None:
    one, two = (suite(lengths=(400, 800)).items(Words()) for _ in range(2))
    assert [i.prompt_sha256 for i in one] == [i.prompt_sha256 for i in two]
    assert len({(i.task, i.item) for i in one}) == len(one)


def test_a_length_that_cannot_hold_the_question_is_refused() -> None:
    with pytest.raises(BadInput, match="30 tokens is too short"):
        suite(lengths=(30,)).items(Words())


@pytest.mark.parametrize("depths", [(-0.1,), (1.5,), (0.5, 0.5)])
def test_depths_are_shares_of_the_text(depths: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        validate(NeedleConfig, {"lengths": [400], "depths": list(depths)}, "policy")


def test_the_context_holds_prompt_and_answer() -> None:
    assert suite(lengths=(400, 800)).context_needed == 864
