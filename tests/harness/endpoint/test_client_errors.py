"""The client calls what is no good answer by its name: no answer is ever invented."""

import socket
import threading
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply
from scripted_chats import HELLO, chat, failure

from harness.endpoint.client import Endpoint, EndpointError

# -- answers that the server ended too early -----------------------------------------------------------------


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


@pytest.mark.slow
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
