"""The client keeps what a good server says, asks no more at once than allowed, and remembers what it asked."""

import asyncio
import threading
import time
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply, score_reply
from scripted_chats import HELLO, chat, entry

from harness.endpoint.client import Asked, Completion, Endpoint, EndpointError

# -- a good server -------------------------------------------------------------------------------------------


def test_an_answer_keeps_all_that_the_server_says(server: FakeServer) -> None:
    server.script(chat_reply("72", reasoning="8*9", prompt_ids=[4, 5], token_ids=[6], completion_tokens=1))
    answer = chat(server)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("72", "8*9", "stop")
    assert (answer.prompt_ids, answer.token_ids) == ([4, 5], [6])
    assert (answer.prompt_tokens, answer.completion_tokens, answer.fingerprint) == (3, 1, "vllm-tp1")
    assert 0 < answer.seconds < 60


def test_older_servers_call_the_reasoning_by_another_name(server: FakeServer) -> None:
    server.script(chat_reply("72", reasoning_content="8*9"))
    assert chat(server).reasoning == "8*9"


def test_a_server_that_tells_no_ids_is_read_all_the_same(server: FakeServer) -> None:
    reply = chat_reply()
    del reply["prompt_token_ids"], reply["choices"][0]["token_ids"], reply["system_fingerprint"]
    server.script(reply)
    answer = chat(server)
    assert (answer.prompt_ids, answer.token_ids, answer.fingerprint) == ([], [], None)


def test_every_sampling_setting_is_sent_and_none_left_to_the_server(server: FakeServer) -> None:
    chat(server, temperature=0.6, top_p=0.95, seed=3, max_tokens=100)
    path, body = server.posts[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "quantgate",
        "messages": HELLO,
        "return_token_ids": True,
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 3,
        "max_tokens": 100,
    }


def test_null_content_is_an_empty_answer(server: FakeServer) -> None:
    server.script(chat_reply(None, reasoning="thought until the end"))
    answer = chat(server)
    assert (answer.text, answer.reasoning) == ("", "thought until the end")


def test_lone_surrogates_become_valid_text(server: FakeServer) -> None:
    server.script(chat_reply("a\ud800b 日本 👩", reasoning="\udfff"))
    answer = chat(server)
    assert (answer.text, answer.reasoning) == ("a�b 日本 👩", "�")
    answer.text.encode("utf-8")


def test_an_answer_of_the_full_budget_is_truncated_and_no_error(server: FakeServer) -> None:
    server.script(chat_reply(finish="length", completion_tokens=64))
    assert chat(server, max_tokens=64).finish_reason == "length"


# -- limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_are_in_flight_than_allowed(server: FakeServer, limit: int) -> None:
    full = threading.Event()

    def handler(path: str, body: dict[str, Any]) -> Any:
        if server.most_in_flight >= limit:
            full.set()
        full.wait(10)  # every slot is used before the first request is answered
        time.sleep(0.02)  # room for one too many to show
        return chat_reply()

    server.handler = handler

    async def run(endpoint: Endpoint) -> list[Completion]:
        return await asyncio.gather(*(endpoint.chat(HELLO) for _ in range(9)))

    assert len(ask(server.url, run, concurrency=limit)) == 9
    assert server.most_in_flight == limit and len(server.posts) == 9


def test_scoring_counts_as_a_request_too(server: FakeServer) -> None:
    def handler(path: str, body: dict[str, Any]) -> Any:
        time.sleep(0.02)
        return score_reply([None, entry({5: -0.1})]) if path == "/v1/completions" else chat_reply()

    server.handler = handler

    async def run(endpoint: Endpoint) -> None:
        both = [endpoint.chat(HELLO), endpoint.score([4, 5], 1, 1)]
        await asyncio.gather(*both, endpoint.chat(HELLO), endpoint.score([4, 5], 1, 1))

    ask(server.url, run, concurrency=1)
    assert server.most_in_flight == 1


# -- what is remembered of a run -----------------------------------------------------------------------------


def test_requests_that_were_answered_are_counted_with_their_budgets(server: FakeServer) -> None:
    replies = {50: chat_reply(), 60: Reply({}, 400), 70: Reply({}, 500), 80: Reply(b"<html>"), 90: {"choices": []}}
    server.handler = lambda path, body: (
        score_reply([None, entry({5: -0.1})]) if path == "/v1/completions" else replies[body["max_tokens"]]
    )

    async def run(endpoint: Endpoint) -> Asked:
        await endpoint.score([4, 5], 1, 1)
        await endpoint.chat(HELLO, 50)
        for budget in (60, 70, 80, 90):
            with pytest.raises(EndpointError):
                await endpoint.chat(HELLO, budget)
        return endpoint.asked

    # An answer that cannot be read was answered all the same: the server has counted it.
    assert ask(server.url, run) == Asked(requests=4, budget=1 + 50 + 80 + 90, longest=53)


@pytest.mark.parametrize("usage", [None, 7, {}, {"prompt_tokens": None}, {"prompt_tokens": "3"}])
def test_an_answer_without_usage_takes_no_room(server: FakeServer, usage: Any) -> None:
    server.script(chat_reply(prompt_ids=[1]) | {"usage": usage})

    async def run(endpoint: Endpoint) -> Asked:
        await endpoint.render(HELLO)
        return endpoint.asked

    assert ask(server.url, run) == Asked(requests=1, budget=1, longest=0)


def test_every_distinct_fingerprint_is_kept(server: FakeServer) -> None:
    replies = [chat_reply() | {"system_fingerprint": name} for name in ("a", "b", None, 7, "a", "\ud800")]
    server.handler = lambda path, body: replies.pop(0)

    async def run(endpoint: Endpoint) -> set[str]:
        for _ in range(6):
            await endpoint.chat(HELLO, 5)
        return endpoint.fingerprints

    assert ask(server.url, run) == {"a", "b", "�"}


def test_a_proxy_from_the_environment_is_not_asked_for_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert chat(server).text == "ok"
