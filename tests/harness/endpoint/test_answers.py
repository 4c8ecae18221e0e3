"""What is thinking and what is answer, what is neither, and that nothing of a model's text is lost or invented."""

from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from hypothesis import given
from hypothesis import strategies as st

from harness.endpoint.answers import EndpointError, message_fields, read_prompt_logprobs
from harness.endpoint.thinking_tags import END_THINK, TAGS, THINK, split_thinking

HELLO = [{"role": "user", "content": "Hello"}]
TEXTS = [
    # text, opened by the template, thinking, answer
    ("7", False, "", "7"),
    ("<think>4 + 3</think>7", False, "4 + 3", "7"),
    ("\n<think>\n4 + 3\n</think>\n\n7", False, "4 + 3", "7"),
    ("4 + 3\n</think>\n\n7", True, "4 + 3", "7"),
    ("4 + 3\n</think>\n\n7", False, "4 + 3", "7"),  # opened by a template that nobody told us of
    ("<think>4 + 3</think>7", True, "4 + 3", "7"),  # opened twice
    ("<think>4 + 3", False, "4 + 3", ""),
    ("4 + 3", True, "4 + 3", ""),
    ("<think></think>7", False, "", "7"),
    ("The tag <think> opens it.", False, "", "The tag <think> opens it."),
    ("```html\n<think>b</think>\n```\n7", False, "", "```html\n<think>b</think>\n```\n7"),
    ("<think>a\n```\nb</think>7\n```\nc\n```", False, "a\n```\nb", "7\n```\nc\n```"),
    ("<think>a</think>b</think>c", False, "a\nb", "c"),
    ("<think>a</think>b<think>c</think>d", False, "a\nc", "bd"),
    ("<think>a</think><think>b", False, "a\nb", ""),
    ("</think></think></think>7", False, "", "7"),
    ("<think>a<think>b</think>7", False, "a\nb", "7"),
    ("The tag `</think>` closes it.", False, "", "The tag `</think>` closes it."),
    ("7<|end|>", False, "", "7<|end|>"),
    (
        "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>7",
        False,
        "so",
        "7",
    ),
    ("", False, "", ""),
    ("", True, "", ""),
]


@pytest.mark.parametrize(("text", "opened", "thinking", "answer"), TEXTS)
def test_tags_divide_thinking_from_answer(text: str, opened: bool, thinking: str, answer: str) -> None:
    assert split_thinking(text, opened)[:2] == (thinking, answer)


@pytest.mark.parametrize(("opening", "closing"), [*TAGS, ("<pondering>", "</pondering>")])
def test_every_family_of_tags_divides_and_others_can_be_named(opening: str, closing: str) -> None:
    more = [("<pondering>", "</pondering>")]
    assert split_thinking(f"{opening}4 + 3{closing}7", more=more) == ("4 + 3", "7", True)
    assert split_thinking(f"{opening}4 + 3", more=more) == ("4 + 3", "", False)
    assert split_thinking(f"{opening}a{closing}{opening}b", more=more) == ("a\nb", "", False)
    if opening == "<pondering>":
        assert split_thinking(f"{opening}4 + 3{closing}7") == ("", f"{opening}4 + 3{closing}7", None)


@pytest.mark.parametrize("field", ["content", "reasoning", "reasoning_content"])
@pytest.mark.parametrize("value", [7, ["a"], {"text": "a"}, True])
def test_what_is_no_string_is_an_error(field: str, value: Any) -> None:
    with pytest.raises(EndpointError, match="is no string, but"):
        message_fields({"content": "7"} | {field: value})


@given(st.text(), st.text(), st.booleans())
def test_what_was_put_together_comes_apart(thinking: str, answer: str, told: bool) -> None:
    if END_THINK in thinking or thinking.lstrip().startswith(THINK):
        return
    text = f"{thinking}{END_THINK}{answer}" if told else f"{THINK}{thinking}{END_THINK}{answer}"
    assert split_thinking(text, told)[:2] == (thinking.strip(), answer.lstrip())


@given(st.text(), st.booleans())
def test_no_text_is_lost(text: str, opened: bool) -> None:
    thinking, answer, _ = split_thinking(text, opened)
    left = "".join(text.split())
    for tag in (THINK, END_THINK):
        left = left.replace(tag, "", 1)
    kept = "".join((thinking + answer).split())
    assert len(kept) >= len(left) - 15


MESSAGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"content": None}, {"null": True, "text": ""}),
    ({}, {"null": True}),
    ({"content": ""}, {"null": False, "text": ""}),  # an empty answer is an answer
    ({"content": None, "reasoning": "so"}, {"null": False, "reasoning": "so"}),
    ({"content": "<think>so</think>7"}, {"text": "7", "reasoning": "so"}),
    ({"content": "<think>7", "reasoning": "so"}, {"text": "", "reasoning": "so\n7", "closed": False}),
    ({"content": "<think>so</think>7", "reasoning": "so"}, {"text": "7", "reasoning": "so", "closed": True}),
    ({"content": "<think>so</think>"}, {"text": "", "reasoning": "so", "closed": True}),
    ({"content": None, "tool_calls": [{"function": {"name": "f"}}]}, {"null": False, "text": ""}),
    ({"content": "7", "tool_calls": "garbage"}, {"tool_calls": [], "text": "7"}),
    ({"content": "7", "tool_calls": [1, None]}, {"tool_calls": []}),
]


@pytest.mark.parametrize(("message", "expected"), MESSAGES)
def test_a_message_is_taken_for_what_it_is(message: dict[str, Any], expected: dict[str, Any]) -> None:
    found = message_fields(message)
    assert {key: found[key] for key in expected} == expected


def test_thinking_that_the_template_opened_is_thinking(server: FakeServer) -> None:
    async def opened(endpoint: Any) -> Any:
        endpoint.thinking_opened = True
        return await endpoint.chat(HELLO)

    server.script(chat_reply("4 + 3 </think> 7"), chat_reply("no end"))
    first, second = ask(server.url, opened), ask(server.url, opened)
    assert (first.reasoning, first.text) == ("4 + 3", "7")
    assert (second.reasoning, second.text) == ("no end", "")


def test_each_repeat_has_a_seed_of_its_own_and_greedy_leaves_nothing_to_chance(server: FakeServer) -> None:
    sampling: dict[str, Any] = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "seed": 5}
    ask(server.url, lambda e: e.chat(HELLO, 9, repeat=3), **sampling)
    ask(server.url, lambda e: e.chat(HELLO, 9, greedy=True), **sampling)
    (_, repeated), (_, greedy) = server.posts
    assert (repeated["seed"], repeated["temperature"]) == (8, 0.6)
    assert {key: greedy[key] for key in sampling} == {
        "temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "seed": 5,
    }  # fmt: skip


def test_a_log_probability_that_stands_for_none_is_no_value() -> None:
    entries = [{"5": {"logprob": -0.1}, "6": {"logprob": -9999.0}}]
    with pytest.raises(EndpointError, match="log-probabilities of -9999"):
        read_prompt_logprobs([5], entries, 1)
    with pytest.raises(EndpointError, match="log-probabilities of -9999"):
        read_prompt_logprobs([6], entries, 1)
    fine = [{"5": {"logprob": -0.1}, "6": {"logprob": -99.0}}]
    assert read_prompt_logprobs([6], fine, 1).logprobs.tolist() == [-99.0]


def test_tags_that_the_policy_names_divide_the_answers_of_a_server(server: FakeServer) -> None:
    server.script(chat_reply("<ponder>4 + 3</ponder>7"))

    async def run(endpoint: Any) -> Any:
        endpoint._requests = endpoint._requests.model_copy(update={"thinking_tags": (("<ponder>", "</ponder>"),)})
        return await endpoint.chat(HELLO)

    said = ask(server.url, run)
    assert (said.reasoning, said.text, said.closed) == ("4 + 3", "7", True)
