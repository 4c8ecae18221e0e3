"""needle: the grid, its lengths, where the needle lies, and the prefixes that prompts share."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruler_tasks import body_of, length_of, text_of

from harness.contract.errors import BadInput
from harness.contract.samples import Item
from harness.contract.settings import Sampling
from harness.contract.validation import validate
from harness.endpoint.client import Completion
from suites.base import count_tokens
from suites.materials import fitting
from suites.needle import COUNTED, Needle, NeedleConfig


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTGATE_DATA", raising=False)


class Words:
    """A tokenizer of words, four of which the chat template adds."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> list[int]:
        return [0] * (4 + sum(len(message["content"].split()) for message in conversation))


def suite(**settings: Any) -> Needle:
    return Needle(NeedleConfig(**settings), Sampling(max_tokens=64), Path("unused"))


def texts(items: list[Item]) -> list[str]:
    return [text_of(item.prompt) for item in items]


def test_every_prompt_is_within_one_percent_of_its_length_and_never_above() -> None:
    items = list(suite(lengths=(600, 2000, 32_768, 200_000), per_cell=2).items(Words()))
    assert len(items) == 4 * 5 * 2
    for item in items:
        assert 0.99 * int(item.task) <= count_tokens(Words(), item.prompt) <= int(item.task)


@pytest.mark.parametrize("haystack", ["noise", "text"])
@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_so_it_is_with_a_real_tokenizer(tokenizer: Any, language: str, haystack: str) -> None:
    settings: dict[str, Any] = {"language": language, "haystack": haystack}
    items = list(suite(lengths=(512, 1000, 4096), per_cell=2, **settings).items(tokenizer))
    if (language, haystack) in {("en", "text"), ("zh", "noise")}:  # not counted one by one
        items += suite(lengths=(COUNTED + 1,), depths=(0.0, 0.4, 1.0), **settings).items(tokenizer)
    for item in items:
        assert 0.99 * int(item.task) <= length_of(tokenizer, item) <= int(item.task), item.task


def test_a_million_tokens_are_made_with_a_handful_of_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(tokenizer: Any, messages: Any) -> int:
        counted.append(count_tokens(tokenizer, messages))
        return counted[-1]

    monkeypatch.setattr(fitting, "count_tokens", count)
    items = suite(lengths=(1_000_000,), per_cell=3).items(Words())
    first = next(iter(items))
    assert 990_000 <= count_tokens(Words(), first.prompt) <= 1_000_000
    assert sum(tokens > 100_000 for tokens in counted) <= 3


@pytest.mark.parametrize("haystack", ["noise", "text"])
@pytest.mark.parametrize("language", ["en", "ja", "zh"])
def test_the_needle_lies_at_its_depth_and_is_the_target(language: str, haystack: str) -> None:
    made = suite(lengths=(12_000,), depths=(0.0, 0.25, 1.0), language=language, haystack=haystack)
    for item in made.items(Letters()):
        text = body_of(text_of(item.prompt))
        at = text.index(item.target[0]) / len(text)
        assert at == pytest.approx(item.data["depth"], abs=0.03)
        assert text_of(item.prompt).count(item.target[0]) == 1
        assert item.data["haystack"] == (f"noise {language}" if haystack == "noise" else f"essay_{language}.txt")


class Letters:
    """A tokenizer of characters."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        return "".join(message["content"] for message in conversation)


def test_items_are_the_same_every_time_whatever_else_is_asked() -> None:
    settings: dict[str, Any] = {"lengths": (600, 800, 50_000), "per_cell": 2}
    one, two = (list(suite(**settings).items(Words())) for _ in range(2))
    assert one == two and len({(i.task, i.item) for i in one}) == len(one) == len({i.prompt_sha256 for i in one})
    for changes in ({"limit": 3}, {"per_cell": 1}, {"depths": (0.25, 0.75)}, {"lengths": (50_000,)}):
        fewer = list(suite(**settings | changes).items(Words()))
        assert all(item in one for item in fewer) and len(fewer) < len(one)
    assert [i.item for i in suite(lengths=(600,), limit=3).items(Words())] == ["d1000-00", "d0750-00", "d0500-00"]
    assert not {i.prompt_sha256 for i in suite(**settings, seed=1).items(Words())} & {i.prompt_sha256 for i in one}
    assert len({i.target[0] for i in one}) == len(one)  # every cell has a needle of its own


def shared(one: str, two: str) -> int:
    """Characters with which both begin."""
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def test_prompts_of_a_length_are_asked_in_the_order_that_reuses_most() -> None:
    assert Needle.keeps_order
    made = texts(list(suite(lengths=(5000,), per_cell=2).items(Words())))

    def reused(order: list[str]) -> int:
        """Characters that a cache of prefixes has already, all that was asked before being kept."""
        return sum(max(shared(text, before) for before in order[:i]) for i, text in enumerate(order) if i)

    shuffled = (random.Random(seed).sample(made, len(made)) for seed in range(30))
    assert reused(made) >= max(map(reused, [*shuffled, made[::-1]]))
    depths = [1.0] * 2 + [0.75] * 2 + [0.5] * 2 + [0.25] * 2 + [0.0] * 2
    for depth, (before, after) in zip(depths[1:], pairwise(made), strict=True):
        assert shared(before, after) >= (depth - 0.01) * len(after)


def test_longer_prompts_begin_with_the_shorter_ones() -> None:
    short, long = texts(list(suite(lengths=(5000, 60_000), depths=(1.0,)).items(Words())))
    assert shared(short, long) > 0.98 * len(short)


def test_items_come_one_by_one() -> None:
    items = iter(suite(lengths=(600,), per_cell=10**9).items(Words()))
    assert [next(items).item for _ in range(2)] == ["d1000-00", "d1000-01"]


def test_an_answer_is_scored_by_its_number() -> None:
    item = next(iter(suite(lengths=(600,)).items(Words())))
    (value,) = item.target

    def score(text: str, reasoning: str = "", finish: str = "stop") -> float | None:
        completion = Completion(text, reasoning, finish, 3, 2, [], [], 0.1, None)
        return suite(lengths=(600,)).score(item, "reference", completion).score

    assert (score(f"It is {value}."), score("It is 12."), score("", "", "length")) == (1.0, 0.0, 0.0)
    assert score("I do not know.", reasoning=value) == 0.0


def test_a_length_that_cannot_hold_the_question_is_refused() -> None:
    with pytest.raises(BadInput, match="30 tokens is too short for needle, which needs"):
        list(suite(lengths=(30,)).items(Words()))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"depths": [-0.1]}, "between 0 and 1"),
        ({"depths": [1.5]}, "between 0 and 1"),
        ({"depths": [0.5, 0.5]}, "between 0 and 1"),
        ({"depths": [float("nan")]}, "depths"),
        ({"lengths": [400, 400]}, "twice"),
        ({"language": "fr"}, "language"),
        ({"haystack": "essay"}, "haystack"),
        ({"limit": 0}, "limit"),
    ],
)
def test_a_wrong_configuration_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        validate(NeedleConfig, {"lengths": [400]} | settings, "policy")


def test_the_context_holds_prompt_and_answer() -> None:
    assert suite(lengths=(400, 800)).context_needed == 864
