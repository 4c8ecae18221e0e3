"""Termination: whether thinking closes and what was reached becomes the answer, from the sample alone."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from hypothesis import given
from hypothesis import strategies as st
from language_cases import completion

from harness.contract.errors import BadInput
from harness.contract.samples import Item, Sample
from harness.contract.settings import Sampling
from harness.contract.validation import validate
from suites.readings.endings import endings
from suites.readings.markers import count_markers
from suites.readings.scripts import LANGUAGES, fits
from suites.readings.thinking import BUDGETS, THINKING_METRICS
from suites.termination import INSTRUCTION, PROMPT_TOKENS, Termination, TerminationConfig

SAMPLED = Sampling(temperature=0.6, max_tokens=16384)


def make(sampling: Sampling = SAMPLED, **settings: Any) -> Termination:
    return Termination(validate(TerminationConfig, settings, "termination"), sampling, Path())


def items(**settings: Any) -> list[Item]:
    return list(make(**settings).items(None))


ITEM = items(limit=1)[0].model_copy(update={"target": "444"})


def score(text: str = "", reasoning: str = "", finish: str = "stop", tokens: int = 100, **settings: Any) -> Sample:
    return make(**settings).score(ITEM, "candidate", completion(text, reasoning, finish, tokens))


# -- items ---------------------------------------------------------------------------------------------------


def test_every_level_is_asked_in_every_language() -> None:
    made = items()
    tasks = list(dict.fromkeys(item.task for item in made))
    assert tasks == [f"{level}-{language}" for level in ("easy", "medium", "hard") for language in LANGUAGES]
    assert len(made) == 9 * 24 == len({(item.task, item.item) for item in made}) == len({i.prompt_sha256 for i in made})
    for item in made:
        question = item.prompt[0]["content"]
        assert len(item.prompt) == 1 and item.prompt[0]["role"] == "user"
        assert item.task.endswith(item.data["language"]) and question.endswith(INSTRUCTION[item.data["language"]])
        assert fits(question, item.data["language"]) is True
        assert len(question.encode()) < PROMPT_TOKENS - 256  # the chat template has room


def test_an_item_is_the_same_whatever_else_is_asked() -> None:
    whole = {(item.task, item.item): item for item in items()}
    for settings in ({"limit": 3}, {"per_task": 5}, {"levels": ["hard"]}, {"languages": ["zh"], "limit": 2}):
        some = items(**settings)
        assert some and all(whole[item.task, item.item] == item for item in some)
    assert [item.item for item in items(limit=3, levels=["easy"], languages=["ja"])] == ["0000", "0001", "0002"]
    assert len(items(limit=40, per_task=2)) == 9 * 2


def test_repeats_ask_the_same_again() -> None:
    made = items(limit=2, repeats=3, levels=["easy"], languages=["en"])
    assert [(item.item, item.repeat) for item in made] == [(f"{i:04d}", r) for i in (0, 1) for r in (0, 1, 2)]
    assert len({item.prompt_sha256 for item in made}) == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"levels": []}, "levels"),
        ({"levels": ["harder"]}, "levels.0"),
        ({"languages": ["ja", "ja"]}, "a value is there twice"),
        ({"languages": ["fr"]}, "languages.0"),
        ({"limit": 0}, "limit"),
        ({"repeats": 0}, "repeats"),
        ({"max_token": 5}, "did you mean 'max_tokens'?"),
    ],
)
def test_a_wrong_configuration_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make(**settings)


def test_the_context_holds_prompt_and_answer() -> None:
    assert make().context_needed == 16384 + PROMPT_TOKENS
    assert make(max_tokens=100).context_needed == 100 + PROMPT_TOKENS


# -- scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{444}", 1.0),
        ("The answer is $\\boxed{444}$.", 1.0),
        ("答えは444です。", 1.0),
        ("so 440 + 4 = 444", 1.0),
        ("\\boxed{443}, not 444", 0.0),
        ("4440", 0.0),
        ("", 0.0),
        ("I do not know.", 0.0),
    ],
)
def test_the_final_number_is_scored(text: str, expected: float) -> None:
    assert score(text).score == expected
    assert score(text, "let us see").metrics["closed"] == float(bool(text))


@pytest.mark.parametrize("text", ["\\boxed{{{}}}", "答えは{}です。", "答案是{}。", "The answer is {}."])
def test_the_gold_answer_of_every_item_is_right(text: str) -> None:
    suite = make()
    for item in suite.items(None):
        assert suite.score(item, "candidate", completion(text.format(item.target))).score == 1.0
        assert suite.score(item, "candidate", completion(text.format(int(item.target) + 1))).score == 0.0


# (text, thinking, finish_reason) -> score, uncommitted, answered, closed
ENDS = {
    "right": ("\\boxed{444}", "it is 444", "stop", 1.0, 0.0, 1.0, 1.0),
    "right, never seen in the thinking": ("\\boxed{444}", "hm", "stop", 1.0, 0.0, 1.0, 1.0),
    "reached, another answer given": ("\\boxed{445}", "444. No, 445.", "stop", 0.0, 1.0, 1.0, 1.0),
    "reached, nothing given": ("I am not sure.", "it is 444", "stop", 0.0, 1.0, 0.0, 1.0),
    "reached, cut while thinking": ("", "it is 444, but", "length", 0.0, 1.0, 0.0, 0.0),
    "reached, cut in the answer": ("The solution: first", "it is 444", "length", 0.0, 1.0, 0.0, 1.0),
    "given, then cut": ("\\boxed{444} since", "it is 444", "length", 1.0, 0.0, 1.0, 1.0),
    "never reached": ("\\boxed{445}", "it is 445", "stop", 0.0, 0.0, 1.0, 1.0),
    "a longer number": ("\\boxed{445}", "4440 and 1444", "stop", 0.0, 0.0, 1.0, 1.0),
    "with a comma": ("\\boxed{445}", "the result 4,44 or 444.0", "stop", 0.0, 1.0, 1.0, 1.0),
    "thinking stopped by itself": ("", "it is 444", "stop", None, 1.0, 0.0, 0.0),
    "no thinking, right": ("444", "", "stop", 1.0, 0.0, 1.0, None),
    "no thinking, taken back": ("444. No: \\boxed{445}", "", "stop", 0.0, 1.0, 1.0, None),
    "no thinking, cut": ("440 + 4 = 444, and then 12", "", "length", 0.0, 1.0, 1.0, None),
    "an open tag": ("<think>it is 444", "", "length", 0.0, 1.0, 0.0, 0.0),
    "nothing": ("", "", "stop", 0.0, 0.0, 0.0, None),
}


@pytest.mark.parametrize("name", ENDS)
def test_uncommitted_is_what_was_reached_and_not_given(name: str) -> None:
    text, thinking, finish, expected, uncommitted, answered, closed = ENDS[name]
    sample = score(text, thinking, finish)
    assert (sample.score, sample.metrics["uncommitted"], sample.metrics["answered"]) == (
        expected,
        uncommitted,
        answered,
    )
    assert sample.metrics.get("closed") == closed
    if closed is not None:
        assert closed == 1 - sample.metrics["unterminated"]


def test_nothing_at_all_is_no_wrong_answer() -> None:
    sample = make().score(ITEM, "candidate", completion(null=True))
    assert sample.score is None and sample.metrics["null"] == 1.0 and not any("@" in key for key in sample.metrics)


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["stop", "length", "repetition"]))
def test_committed_and_uncommitted_exclude_each_other(reached: bool, said: bool, cut: bool, finish: str) -> None:
    sample = score("" if cut else f"\\boxed{{{444 if said else 445}}}", "444" if reached else "12", finish)
    assert sample.metrics["uncommitted"] == float(reached and (cut or not said))


# -- budgets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "within"),
    [(1, (1, 1, 1)), (4096, (1, 1, 1)), (4097, (0, 1, 1)), (8192, (0, 1, 1)), (8193, (0, 0, 1)), (16384, (0, 0, 1))],
)
def test_the_score_within_smaller_budgets(tokens: int, within: tuple[float, ...]) -> None:
    right, wrong = score("\\boxed{444}", tokens=tokens), score("\\boxed{445}", tokens=tokens)
    assert tuple(right.metrics[f"score@{budget}"] for budget in BUDGETS) == within
    assert all(wrong.metrics[f"score@{budget}"] == 0 for budget in BUDGETS)
    assert right.metrics["score@16384"] == right.score


@pytest.mark.parametrize(("budget", "known"), [(4095, []), (4096, [4096]), (10_000, [4096, 8192]), (32768, [*BUDGETS])])
def test_a_budget_that_nobody_had_has_no_score(budget: int, known: list[int]) -> None:
    metrics = score("\\boxed{444}", max_tokens=budget).metrics
    assert [key for key in metrics if "@" in key] == [f"score@{b}" for b in known]


def test_unknown_tokens_leave_out_what_counts_them() -> None:
    metrics = score("\\boxed{444}", "wait, 444", tokens=0).metrics
    assert metrics["markers"] == 1 and not metrics.keys() & {"thinking_tokens", "markers_per_1k_tokens", "score@4096"}


# -- thinking in numbers -------------------------------------------------------------------------------------


def test_markers_are_counted_in_the_thinking() -> None:
    thinking = "Wait, but no. でも、もう一度。等等，不对。 440 + 4 = 444"
    sample = score("Wait: 444", thinking, tokens=200)
    assert sample.metrics["markers"] == count_markers(thinking) == 6
    tokens = 200 * len(thinking) / (len(thinking) + len("Wait: 444"))
    assert sample.metrics["thinking_chars"] == len(thinking)
    assert sample.metrics["thinking_tokens"] == pytest.approx(tokens)
    assert sample.metrics["markers_per_1k_tokens"] == pytest.approx(6 * 1000 / tokens)


def test_a_model_that_does_not_think_apart_is_searched_in_its_answer() -> None:
    metrics = score("Wait, it is 444", tokens=500).metrics
    assert metrics["thinking_tokens"] == 0 == metrics["thinking_chars"]
    assert (metrics["markers"], metrics["markers_per_1k_tokens"]) == (1, 2.0)


def test_greedy_sampling_is_allowed_and_told() -> None:
    assert "greedy" not in score("444").metrics
    greedy = make(Sampling(temperature=0.0, max_tokens=100))
    assert greedy.score(ITEM, "reference", completion("444")).metrics["greedy"] == 1.0


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(TEXT, TEXT, st.sampled_from(["stop", "length", "tool_calls", "repetition", "abort"]), st.integers(0, 20_000))
def test_whatever_a_model_writes_has_documented_metrics(text: str, thinking: str, finish: str, tokens: int) -> None:
    sample = score(text, thinking, finish, tokens)
    ended = endings(completion(text, thinking, finish)).keys() | {"no_answer"}
    assert sample.metrics.keys() <= THINKING_METRICS.keys() | ended
    assert Sample.model_validate_json(sample.model_dump_json()) == sample  # finite, and valid Unicode


# -- asking --------------------------------------------------------------------------------------------------


def test_an_answer_is_asked_with_the_policys_budget_and_a_seed_for_each_repeat(server: FakeServer) -> None:
    def replies() -> Iterator[Any]:
        while True:
            yield chat_reply("\\boxed{444}", reasoning="Wait, 444.")

    for reply, _ in zip(replies(), range(2), strict=False):
        server.script(reply)
    suite = make(max_tokens=5000)
    for repeat in (0, 1):
        item = ITEM.model_copy(update={"repeat": repeat})
        sample = ask(server.url, partial(suite.answer, item, "candidate"))
        assert (sample.score, sample.repeat, sample.metrics["markers"]) == (1.0, repeat, 1.0)
    bodies = [body for _, body in server.posts]
    assert [body["max_tokens"] for body in bodies] == [5000, 5000]
    assert bodies[1]["seed"] == bodies[0]["seed"] + 1
