"""What every suite shares: an answer that is none has no score, and thinking that a template opens is known."""

from typing import Any

import pytest

from harness.endpoint.client import Completion
from suites.base import make_item, make_sample, opens_thinking

ITEM = make_item("t", "1", [{"role": "user", "content": "4 + 3?"}], repeat=2)
CALL = {"function": {"name": "add"}}
NO_ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "null": ({"null": True}, "null"),
    "a call of a tool": ({"tool_calls": [CALL]}, "tool_calls"),
    "thinking that stopped without an end": ({"reasoning": "4 + 3 is"}, "unterminated"),
}


def completion(text: str = "", reasoning: str = "", finish: str = "stop", tokens: int = 2, **more: Any) -> Completion:
    return Completion(text, reasoning, finish, 3, tokens, [], [], 0.1, None, **more)


@pytest.mark.parametrize("kind", NO_ANSWERS)
def test_what_is_no_answer_is_counted_as_what_it_is_and_never_as_a_wrong_one(kind: str) -> None:
    fields, metric = NO_ANSWERS[kind]
    sample = make_sample("s", ITEM, "candidate", completion(**fields), score=0.0, answer="")
    assert (sample.score, sample.answer, sample.error) == (None, None, None)
    assert sample.metrics[metric] == 1.0


@pytest.mark.parametrize("kind", [kind for kind in NO_ANSWERS if NO_ANSWERS[kind][1] != "unterminated"])
def test_nothing_and_a_call_of_a_tool_are_no_answer_at_the_budget_either(kind: str) -> None:
    cut = completion(**NO_ANSWERS[kind][0], finish="length")
    assert make_sample("s", ITEM, "candidate", cut, score=0.0, answer="").score is None


def test_thinking_cut_by_the_budget_did_not_answer_within_it() -> None:
    cut = completion(reasoning="4 + 3 is", finish="length")
    sample = make_sample("s", ITEM, "candidate", cut, score=0.0, answer="")
    assert sample.score == 0.0 and sample.metrics["unterminated"] == 1.0 and sample.finish_reason == "length"


def test_every_answer_says_how_many_of_its_tokens_it_thought() -> None:
    thought = completion("7", "4 + 3 = 7", tokens=100)
    sample = make_sample("s", ITEM, "candidate", thought, score=1.0, answer="7")
    assert sample.metrics["thinking_tokens"] == 90 and sample.score == 1.0
    own = make_sample("s", ITEM, "candidate", thought, score=1.0, answer="7", metrics={"thinking_tokens": 4.0})
    assert own.metrics["thinking_tokens"] == 4
    for without in (completion("7", tokens=100), completion("7", "4 + 3 = 7", tokens=0)):
        sample = make_sample("s", ITEM, "candidate", without, score=1.0, answer="7")
        assert "thinking_tokens" not in sample.metrics


def test_an_empty_answer_is_a_wrong_answer() -> None:
    sample = make_sample("s", ITEM, "candidate", completion(), score=0.0, answer="")
    assert sample.score == 0.0 and "null" not in sample.metrics


def test_a_sample_is_of_its_item_and_keeps_the_answer() -> None:
    sample = make_sample("s", ITEM, "noise", completion("7", "4 + 3"), score=1.0, answer="7", metrics={"x": 2.0})
    assert sample.key == ("s", "t", "1", 2, "noise") and sample.prompt_sha256 == ITEM.prompt_sha256
    assert (sample.text, sample.reasoning, sample.score, sample.metrics["x"]) == ("7", "4 + 3", 1.0, 2.0)


class Template:
    """A tokenizer whose template ends like this."""

    def __init__(self, end: str) -> None:
        self.end = end

    def apply_chat_template(self, conversation: Any, **options: Any) -> str:
        assert options == {"add_generation_prompt": True, "tokenize": False}
        return f"<|user|>{conversation[0]['content']}<|assistant|>{self.end}"


@pytest.mark.parametrize(("end", "opened"), [("", False), ("<think>\n", True), ("<think>\n\n</think>\n", False)])
def test_a_template_that_opens_the_thinking_is_known(end: str, opened: bool) -> None:
    assert opens_thinking(Template(end)) is opened
