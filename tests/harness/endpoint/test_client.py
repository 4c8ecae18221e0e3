"""The client keeps what a good server says, and calls everything else by its name: no answer is ever invented."""

import asyncio
import math
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
from fake_server import FakeServer, Reply, ask, chat_reply, score_reply

from harness.contract.policy import Sampling
from harness.endpoint.client import Asked, Completion, Endpoint, EndpointError, Scores

HELLO = [{"role": "user", "content": "Hello"}]


def chat(server: FakeServer, **more: Any) -> Completion:
    budget = more.pop("max_tokens", None)
    return ask(server.url, lambda e: e.chat(HELLO, budget), **more)


def failure(server: FakeServer, **more: Any) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        chat(server, **more)
    return caught.value


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


def test_an_answer_that_the_server_cut_earlier_is_an_error(server: FakeServer) -> None:
    server.script(chat_reply(finish="length", completion_tokens=63))
    error = failure(server, max_tokens=64)
    assert error.kind == "budget" and "3 prompt + 63 answer tokens" in str(error)


@pytest.mark.parametrize("finish", ["abort", "error", "stopped", ""])
def test_an_answer_that_the_server_ended_is_an_error_and_no_wrong_answer(server: FakeServer, finish: str) -> None:
    """vLLM sends `abort` and what it had when it shuts down or is paused."""
    server.script(chat_reply("the answer is", finish=finish))
    error = failure(server)
    assert error.kind == "server" and f"finish_reason {finish!r}" in str(error)


# -- a bad server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [Reply({}, 500), Reply(b"busy", 503), Reply({}, 429), None])
def test_a_request_that_failed_is_tried_again_and_gives_one_answer(server: FakeServer, bad: Reply | None) -> None:
    server.script(bad, chat_reply("second", completion_tokens=5), chat_reply("third"))
    answer = chat(server, retries=2)
    assert (answer.text, answer.completion_tokens) == ("second", 5)
    assert len(server.posts) == 2 and server.posts[0] == server.posts[1]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_retries_end(server: FakeServer, retries: int) -> None:
    server.script(Reply({"error": "out of memory"}, 500))
    assert failure(server, retries=retries).kind == "server"
    assert len(server.posts) == 1 + retries


def test_a_request_that_the_server_refuses_is_not_tried_again(server: FakeServer) -> None:
    server.script(Reply({"error": {"message": "prompt is too long"}}, 400))
    error = failure(server, retries=2)
    assert error.kind == "refused" and "400" in str(error) and "prompt is too long" in str(error)
    assert len(server.posts) == 1


def without(path: list[Any]) -> dict[str, Any]:
    """A good answer less one thing in it."""
    reply: Any = chat_reply()
    *parents, last = path
    inner = reply
    for part in parents:
        inner = inner[part]
    del inner[last]
    return dict(reply)


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": [None]},
        {"choices": {"0": {}}},
        {},
        Reply([chat_reply()]),
        Reply(b"null"),
        Reply(b"<html>busy</html>"),
        Reply(b""),
        Reply(b'{"choices": [{"mess'),
        Reply(b"\xff\xfe\x00"),
        Reply(b"[" * 100_000),
        without(["usage"]),
        without(["usage", "completion_tokens"]),
        without(["choices", 0, "finish_reason"]),
        without(["choices", 0, "message"]),
        chat_reply() | {"usage": {"prompt_tokens": "3", "completion_tokens": 2.5}},
        chat_reply(finish=None),
    ],
)
def test_an_answer_that_breaks_the_promise_of_the_api_is_garbage(server: FakeServer, reply: Any) -> None:
    server.script(reply)
    error = failure(server)
    assert error.kind == "garbage" and "\n" not in str(error)
    assert len(server.posts) == 1


def test_no_server_is_unreachable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(EndpointError) as caught:
            ask(url, lambda e: e.chat(HELLO))
        assert caught.value.kind == "unreachable" and url in str(caught.value)
        assert ask(url, lambda e: e.healthy()) is False
        with pytest.raises(EndpointError, match="unreachable"):
            ask(url, lambda e: e.metrics())


def test_a_server_that_is_silent_is_a_timeout(server: FakeServer) -> None:
    answering = threading.Event()
    server.handler = lambda path, body: answering.wait(30) and chat_reply()
    try:
        # 120 s + 100 tokens / -0.84 tokens a second is about one second.
        assert failure(server, max_tokens=100, min_tokens_per_second=-0.84).kind == "timeout"
    finally:
        answering.set()


def test_the_slowest_answer_that_the_policy_allows_is_waited_for(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def post(path: str, *, options: dict[str, Any], **_: Any) -> Any:
        asked.append(options["timeout"].read)
        raise EndpointError("server", "seen")

    async def run(endpoint: Endpoint) -> None:
        monkeypatch.setattr(endpoint._client, "post", post)
        for budget in (1000, 16384):
            with pytest.raises(EndpointError):
                await endpoint.chat(HELLO, budget)

    ask(server.url, run, min_tokens_per_second=2.0)
    assert asked == [120 + 500, 120 + 8192]


def test_what_an_error_says_is_one_line_of_valid_text(server: FakeServer) -> None:
    server.script(Reply(b'{"error": {"message": "bad \\ud800\\n\\n text ' + b"x" * 5000 + b'"}}', 400))
    message = str(failure(server))
    assert "\n" not in message and len(message) < 400
    message.encode("utf-8")


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


# -- log-probabilities ---------------------------------------------------------------------------------------


def entry(logprobs: dict[int, Any]) -> dict[str, Any]:
    return {str(token): {"logprob": value, "rank": 1, "decoded_token": "x"} for token, value in logprobs.items()}


def score(server: FakeServer, entries: list[Any], ids: list[int], start: int, top: int) -> Scores:
    server.script(score_reply(entries))
    return ask(server.url, lambda e: e.score(ids, start, top))


def test_log_probabilities_come_in_order_of_rank(server: FakeServer) -> None:
    entries = [None, entry({9: -9.0}), entry({3: -2.0, 5: -0.5, 4: -1.5}), entry({7: -0.1, 3: -5.0})]
    scores = score(server, entries, [1, 9, 5, 7], start=2, top=2)
    assert scores.token_ids.tolist() == [5, 7] and scores.token_ids.dtype == np.int32
    assert scores.logprobs.tolist() == pytest.approx([-0.5, -0.1])
    assert scores.top_ids.tolist() == [[5, 4], [7, 3]]
    assert scores.top_logprobs == pytest.approx(np.array([[-0.5, -1.5], [-0.1, -5.0]]))
    path, body = server.posts[0]
    assert path == "/v1/completions"
    assert body == {
        "model": "quantgate",
        "prompt": [1, 9, 5, 7],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 2,
    }


def test_a_token_outside_the_likeliest_keeps_its_own_log_probability(server: FakeServer) -> None:
    # vLLM sends the k likeliest and the token that is there, k + 1 in all.
    scores = score(server, [None, entry({8: -12.0, 2: -0.3, 6: -1.6})], [1, 8], start=1, top=2)
    assert scores.logprobs.tolist() == pytest.approx([-12.0])
    assert scores.top_ids.tolist() == [[2, 6]]
    assert scores.top_logprobs.tolist() == [pytest.approx([-0.3, -1.6])]


@pytest.mark.parametrize(
    "entries",
    [
        [entry({8: -1.0, 2: -2.0})],  # one position too few
        [None, entry({8: -1.0, 2: -2.0}), entry({8: -1.0, 2: -2.0})],  # one too many
        [None, None],
        [None, {}],
        [None, entry({8: -1.0})],  # fewer than asked for
        [None, entry({2: -1.0, 3: -2.0})],  # not the token that was sent
        [None, entry({8: math.nan, 2: -1.0})],
        [None, entry({8: -1.0, 2: math.nan})],
        [None, entry({8: -math.inf, 2: -1.0})],
        [None, entry({8: -1.0, 2: -math.inf})],
        [None, entry({8: math.inf, 2: -1.0})],
        [None, entry({8: 0.0, 2: 0.0})],  # probabilities that sum to two
        [None, entry({8: 1.0, 2: -1.0})],
        [None, entry({8: None, 2: -1.0})],
        [None, entry({8: "low", 2: -1.0})],
        [None, {"8": -1.0, "2": -2.0}],
        [None, {"8": {"logprob": -1.0}, "two": {"logprob": -2.0}}],
        [None, entry({8: -1.0, 99_999_999_999: -2.0})],
        [None, [-1.0, -2.0]],
    ],
)
def test_log_probabilities_that_cannot_be_are_garbage(server: FakeServer, entries: list[Any]) -> None:
    with pytest.raises(EndpointError) as caught:
        score(server, entries, [1, 8], start=1, top=2)
    assert caught.value.kind == "garbage"


@pytest.mark.parametrize("reply", [{"choices": [{"text": "x"}]}, score_reply([]), {"choices": []}, {}])
def test_a_server_without_prompt_logprobs_is_garbage(server: FakeServer, reply: dict[str, Any]) -> None:
    server.script(reply)
    with pytest.raises(EndpointError, match="garbage"):
        ask(server.url, lambda e: e.score([1, 2], 1, 1))


# -- reading back --------------------------------------------------------------------------------------------


def test_rendered_ids_are_those_of_the_server(server: FakeServer) -> None:
    server.script(chat_reply(prompt_ids=[11, 12, 13]))
    assert ask(server.url, lambda e: e.render(HELLO)) == [11, 12, 13]
    assert server.posts[0][1]["max_tokens"] == 1


@pytest.mark.parametrize("ids", [[], "1 2 3", [1, "2"], [1.5]])
def test_a_server_that_tells_no_prompt_ids_cannot_be_compared(server: FakeServer, ids: Any) -> None:
    server.script(chat_reply() | {"prompt_token_ids": ids})
    with pytest.raises(EndpointError, match="does not return prompt_token_ids"):
        ask(server.url, lambda e: e.render(HELLO))


def test_tools_are_sent_with_a_choice_that_every_server_takes(server: FakeServer) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    ask(server.url, lambda e: e.render(HELLO, tools=tools))
    assert server.posts[0][1].items() >= {"max_tokens": 1, "tool_choice": "none"}.items()
    assert server.posts[0][1]["tools"] == tools
    ask(server.url, lambda e: e.render(HELLO))
    assert not {"tools", "tool_choice"} & set(server.posts[1][1])


def test_a_rendered_request_carries_the_policys_sampling_when_asked_to(server: FakeServer) -> None:
    server.script({"sampling_params": {}})
    ask(server.url, lambda e: e.rendered_request(HELLO), temperature=0.6)
    ask(server.url, lambda e: e.rendered_request(HELLO, 77), temperature=0.6)
    (_, silent), (_, full) = server.posts
    assert silent == {"model": "quantgate", "messages": HELLO, "max_tokens": 1}
    assert full == silent | Sampling(temperature=0.6, max_tokens=77).model_dump()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "reply", [Reply({}, 404), Reply({}, 500), Reply(b"<html>"), Reply([1]), Reply(b"[" * 100_000), Reply(b"")]
)
def test_a_page_that_need_not_be_there(server: FakeServer, reply: Reply) -> None:
    server.script(reply)
    assert ask(server.url, lambda e: e.find_json("/server_info")) is None
    server.script({"a": 1})
    assert ask(server.url, lambda e: e.find_json("/server_info")) == {"a": 1}
    server.script(None)
    with pytest.raises(EndpointError, match="unreachable"):
        ask(server.url, lambda e: e.find_json("/server_info"))


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


def test_health_is_a_200(server: FakeServer) -> None:
    assert ask(server.url, lambda e: e.healthy()) is True
    server.health = 503
    assert ask(server.url, lambda e: e.healthy()) is False


METRICS = b"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="fp8",enable_prefix_caching="True"} 1.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="a \\"b\\" c"} 1.5e3
vllm:prompt_tokens_total{model_name="d"} 7
"""


def test_metrics_are_read_by_name_with_their_labels(server: FakeServer) -> None:
    server.script(Reply(METRICS, headers={"content-type": "text/plain"}))
    found = ask(server.url, lambda e: e.metrics())
    ((labels, value),) = found["vllm:cache_config_info"]
    assert (labels["cache_dtype"], labels["enable_prefix_caching"], value) == ("fp8", "True", 1.0)
    assert found["vllm:prompt_tokens_total"] == [({"model_name": 'a "b" c'}, 1500.0), ({"model_name": "d"}, 7.0)]


@pytest.mark.parametrize("text", [b"<html>", b'a{b="c" 1', b"a one\n", b'a{b="c", ="d"} 1\n'])
def test_metrics_that_are_none_are_garbage(server: FakeServer, text: bytes) -> None:
    server.script(Reply(text))
    with pytest.raises(EndpointError, match="garbage"):
        ask(server.url, lambda e: e.metrics())


def test_a_page_that_is_not_there_is_an_error(server: FakeServer) -> None:
    server.script(Reply({}, 404))
    with pytest.raises(EndpointError, match="/version answers 404"):
        ask(server.url, lambda e: e.get_json("/version"))
    assert ask(server.url, lambda e: e.rendered_request(HELLO)) is None
    server.script(Reply({"sampling_params": {"stop": []}}))
    assert ask(server.url, lambda e: e.rendered_request(HELLO)) == {"sampling_params": {"stop": []}}
    server.script(Reply([1]))
    with pytest.raises(EndpointError, match="expected a JSON object, found list"):
        ask(server.url, lambda e: e.get_json("/version"))


def test_a_proxy_from_the_environment_is_not_asked_for_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert chat(server).text == "ok"
