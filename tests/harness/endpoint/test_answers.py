"""What is thinking and what is answer, what is neither, and that nothing of a model's text is lost or invented."""

from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from hypothesis import given
from hypothesis import strategies as st

from harness.endpoint.answers import END_THINK, THINK, message_fields, split_thinking

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
    ("<think>a</think>b</think>c", False, "a", "b</think>c"),
    ("", False, "", ""),
    ("", True, "", ""),
]


@pytest.mark.parametrize(("text", "opened", "thinking", "answer"), TEXTS)
def test_tags_divide_thinking_from_answer(text: str, opened: bool, thinking: str, answer: str) -> None:
    assert split_thinking(text, opened) == (thinking, answer)


@given(st.text(), st.text(), st.booleans())
def test_what_was_put_together_comes_apart(thinking: str, answer: str, told: bool) -> None:
    if END_THINK in thinking or thinking.lstrip().startswith(THINK):
        return
    text = f"{thinking}{END_THINK}{answer}" if told else f"{THINK}{thinking}{END_THINK}{answer}"
    assert split_thinking(text, told) == (thinking.strip(), answer.lstrip())


@given(st.text(), st.booleans())
def test_no_text_is_lost(text: str, opened: bool) -> None:
    thinking, answer = split_thinking(text, opened)
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
    ({"content": "<think>7", "reasoning": "so"}, {"text": "<think>7", "reasoning": "so"}),  # the server's word counts
    ({"content": None, "tool_calls": [{"function": {"name": "f"}}]}, {"null": False, "text": ""}),
    ({"content": "7", "tool_calls": "garbage"}, {"tool_calls": [], "text": "7"}),
    ({"content": "7", "tool_calls": [1, None]}, {"tool_calls": []}),
    ({"content": 7}, {"text": "", "null": False}),
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
