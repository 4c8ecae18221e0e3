"""What goes wrong below HTTP is no timeout and no answer: the server was not reached, and is asked again later."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_server import ask, chat_reply
from scripted_chats import HELLO

from harness.endpoint.client import Endpoint, EndpointError

BODY = json.dumps(chat_reply()).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing resets the connection."""


@pytest.fixture
def raw() -> Iterator[Callable[..., str]]:
    """The URL of a server that sends these bytes to whoever asks, and closes the connection."""
    listeners: list[socket.socket] = []

    def start(sent: bytes, reset: bool = False) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # the test is over
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(sent)
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def failure(url: str) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        ask(url, lambda e: e.chat(HELLO), retries=0)
    return caught.value


@pytest.mark.parametrize("sent", [b"", WHOLE[:-5], b"SSH-2.0-OpenSSH\r\n\r\n", WHOLE[:40]])
def test_what_is_no_whole_answer_is_not_reached(raw: Callable[..., str], sent: bytes) -> None:
    url = raw(sent)
    assert failure(url).kind == "unreachable"
    with pytest.raises(EndpointError) as caught:
        ask(url, lambda e: e.find_json("/version"))  # None would say: such a page is not there
    assert caught.value.kind == "unreachable"


def test_a_connection_that_is_reset_is_not_reached(raw: Callable[..., str]) -> None:
    assert failure(raw(b"", reset=True)).kind == "unreachable"


def test_tls_where_none_is_spoken_is_not_reached(raw: Callable[..., str]) -> None:
    error = failure(raw(WHOLE).replace("http:", "https:"))
    assert error.kind == "unreachable" and "SSL" in str(error)


def test_a_name_that_is_not_known_is_not_reached() -> None:
    assert failure("http://quantgate.invalid").kind == "unreachable"


def test_a_connection_that_was_closed_while_idle_is_not_used_again(raw: Callable[..., str]) -> None:
    async def chats(endpoint: Endpoint) -> list[Any]:
        texts = []
        for _ in range(5):
            texts.append((await endpoint.chat(HELLO)).text)
            await asyncio.sleep(0.05)
        return texts

    assert ask(raw(WHOLE), chats, retries=0, concurrency=1) == ["ok"] * 5
