"""What is no answer is asked for again; what is another's is never taken; what only trickles in is not waited for."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply
from scripted_chats import HELLO, chat, failure

from harness.endpoint import client, tries
from harness.endpoint.client import Endpoint, EndpointError

FOREIGN = chat_reply("of another") | {"id": "chatcmpl-quantgate-" + "0" * 32}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "PAUSE_SECONDS", 0.001)


@pytest.mark.parametrize(
    "bad",
    [
        Reply(b'{"choices": [{"mess'),
        Reply(b"<html>busy</html>"),
        {"choices": []},
        chat_reply() | {"choices": chat_reply()["choices"] * 2},
        chat_reply(finish="abort"),
        Reply(FOREIGN),
    ],
)
def test_an_answer_that_is_none_is_asked_for_again(server: FakeServer, bad: Any) -> None:
    server.script(bad, bad, chat_reply("good"))
    assert chat(server, retries=2).text == "good" and len(server.posts) == 3
    server.script(bad)
    assert failure(server, retries=1).kind in ("garbage", "server") and len(server.posts) == 5


def test_of_two_choices_none_is_taken(server: FakeServer) -> None:
    server.script(chat_reply() | {"choices": chat_reply()["choices"] * 2})
    assert "the answer has 2 choices, one was asked for" in str(failure(server))


def test_the_answer_to_another_request_is_refused(server: FakeServer) -> None:
    server.script(Reply(FOREIGN))
    error = failure(server)
    assert error.kind == "server" and "the answer to another request ('chatcmpl-quantgate-000" in str(error)


@pytest.mark.parametrize("own", ["chatcmpl-1", "", None, 7, "chatcmpl-of-a-gateway"])
def test_an_id_that_is_not_made_of_ours_tells_nothing(server: FakeServer, own: Any) -> None:
    server.script(Reply(chat_reply("taken") | {"id": own}))
    assert chat(server).text == "taken"


def test_each_try_has_an_id_of_its_own(server: FakeServer) -> None:
    seen = []

    async def chats(endpoint: Endpoint) -> None:
        send = endpoint._http.send

        async def watch(request: Any, **options: Any) -> Any:
            response = await send(request, **options)
            seen.append((request.headers["x-request-id"], response.json().get("id")))
            return response

        endpoint._http.send = watch  # type: ignore[method-assign]
        await endpoint.chat(HELLO)

    server.script(Reply({}, 503), {"choices": [], "id": "x"}, chat_reply())
    ask(server.url, chats, retries=2)
    ids = [sent for sent, _ in seen]
    assert len(set(ids)) == 3 and [said for _, said in seen][1:] == [f"chatcmpl-{sent}" for sent in ids[1:]]


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 429, 500, 503])
def test_what_says_nothing_of_the_item_is_no_refusal_of_it(server: FakeServer, status: int) -> None:
    server.script(Reply({"error": {"message": "no"}}, status))
    error = failure(server)
    assert (error.kind, error.status) == ("server", status)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_said_of_the_item_is_one(server: FakeServer, status: int) -> None:
    server.script(Reply({"error": {"message": "too long"}}, status))
    assert failure(server).kind == "refused"


@pytest.mark.parametrize("bad", [Reply({}, 503), Reply({}, 429), Reply(b"{"), None])
def test_pages_are_tried_again_as_questions_are(server: FakeServer, bad: Any) -> None:
    for read in (Endpoint.get_json, Endpoint.find_json):
        server.script(bad, {"a": 1})
        assert ask(server.url, lambda e: read(e, "/page"), retries=1) == {"a": 1}  # noqa: B023
    server.script(bad, {"sampling_params": {}})
    assert ask(server.url, lambda e: e.rendered_request(HELLO), retries=1) == {"sampling_params": {}}


def test_a_rendered_request_that_is_none_is_asked_for_again(server: FakeServer) -> None:
    foreign = Reply({"request_id": FOREIGN["id"], "sampling_params": {}})
    others: list[Any] = [{"choices": []}, {"error": {"message": "busy"}}, foreign]
    for other in others:
        server.script(other, {"sampling_params": {"n": 1}})
        assert ask(server.url, lambda e: e.rendered_request(HELLO), retries=1) == {"sampling_params": {"n": 1}}
    server.script({"choices": []}, {"choices": []})
    assert ask(server.url, lambda e: e.rendered_request(HELLO), retries=1) is None


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_page_that_cannot_be_had_just_now_is_none_that_is_not_there(server: FakeServer, status: int) -> None:
    server.script(Reply({}, status))
    for page in (lambda e: e.find_json("/server_info"), lambda e: e.rendered_request(HELLO)):
        with pytest.raises(EndpointError, match=f"answers {status}"):
            ask(server.url, page)


def test_an_answer_that_trickles_in_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx's own timeout begins anew with every byte."""
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.5)
    listening, ports = threading.Event(), []

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.05)

    async def serve() -> None:
        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        listening.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    listening.wait()
    began = time.monotonic()
    with pytest.raises(EndpointError) as caught:
        ask(f"http://127.0.0.1:{ports[0]}", lambda e: e.chat(HELLO, 1), min_tokens_per_second=1000.0)
    assert caught.value.kind == "timeout" and time.monotonic() - began < 60  # 5,000 s without an end


def test_a_connection_whose_answers_are_others_is_not_used_again() -> None:
    """An answer that came twice stands before every later one of the connection."""
    ports, listening = [], threading.Event()

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times = 2
        while head := await reader.readuntil(b"\r\n\r\n"):
            names = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            asked = json.loads(await reader.readexactly(int(names[b"content-length"])))
            reply = chat_reply(asked["messages"][0]["content"])
            body = json.dumps(reply | {"id": "chatcmpl-" + names[b"x-request-id"].decode()}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body) * times)
            times = 1

    async def serve() -> None:
        server = await asyncio.start_server(twice, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        listening.set()
        await server.serve_forever()

    async def chats(endpoint: Endpoint) -> list[str]:
        return [(await endpoint.chat([{"role": "user", "content": f"{n}"}])).text for n in range(6)]

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    listening.wait()
    found = ask(f"http://127.0.0.1:{ports[0]}", chats, retries=3, concurrency=1)
    assert found == [f"{n}" for n in range(6)]
