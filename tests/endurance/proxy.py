"""A proxy on loopback that spoils answers: which request meets which fault follows from a seed and the request."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing resets the connection."""
DOWN_SECONDS = 0.15


@dataclass(frozen=True)
class Answer:
    """A whole answer of the server behind."""

    head: bytes
    body: bytes

    def whole(self) -> bytes:
        return self.head + self.body


def reply(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def page(body: Any) -> bytes:
    return reply("200 OK", body if isinstance(body, bytes) else json.dumps(body).encode())


def status(code: str, *headers: str) -> Callable[[Answer], bytes]:
    return lambda answer: reply(code, b'{"error": {"message": "not now"}}', "retry-after-ms: 20", *headers)


def changed(answer: Answer, **choice: Any) -> bytes:
    """The answer with its choice, or all of it, changed."""
    data = json.loads(answer.body)
    data["choices"][0] |= choice
    return page(data)


def less(answer: Answer, key: str) -> bytes:
    data = json.loads(answer.body)
    data.pop(key, None)
    return page(data)


def of_choices(answer: Answer, change: Callable[[list[Any]], list[Any]]) -> bytes:
    data = json.loads(answer.body)
    return page(data | {"choices": change(data["choices"])})


def of_another(answer: Answer) -> bytes:
    """The right text under the id of another request."""
    data = json.loads(answer.body)
    return page(data | {"id": "chatcmpl-quantgate-" + "0" * 32})


CONNECTION = ("refused", "reset before", "reset in the middle", "closed in the middle", "late", "dripping")
STATUSES: dict[str, Callable[[Answer], bytes]] = {
    "408": status("408 Request Timeout"),
    "429": status("429 Too Many Requests"),
    "429, retry after": status("429 Too Many Requests", "retry-after: 1"),
    "500": status("500 Internal Server Error"),
    "502": lambda answer: reply("502 Bad Gateway", b"<html>", "retry-after-ms: 20"),
    "503": status("503 Service Unavailable"),
    "504": status("504 Gateway Timeout"),
}
BYTES: dict[str, Callable[[Answer], bytes]] = {
    "truncated JSON": lambda answer: page(answer.body[: len(answer.body) // 2]),
    "a page in its place": lambda answer: page(b"<html>busy</html>"),
    "an empty body": lambda answer: page(b""),
    "no HTTP": lambda answer: b"\x00\xffSSH-2.0\r\n\r\n" + answer.body[:50],
    "broken gzip": lambda answer: reply("200 OK", b"\x1f\x8b\x08nothing", "content-encoding: gzip"),
    "an error under 200": lambda answer: page({"error": {"message": "out of memory"}}),
}
ANSWERS: dict[str, Callable[[Answer], bytes]] = {
    "empty choices": lambda answer: of_choices(answer, lambda choices: []),
    "two choices": lambda answer: of_choices(answer, lambda choices: choices * 2),
    "null choice": lambda answer: of_choices(answer, lambda choices: [None]),
    "no usage": lambda answer: less(answer, "usage"),
    "aborted": lambda answer: changed(answer, finish_reason="abort"),
    "wrong id": of_another,
}
STRANGERS = ("an earlier answer", "answered twice")
KINDS = (*CONNECTION, *STATUSES, *BYTES, *ANSWERS, *STRANGERS)
PAGES = (*CONNECTION, *STATUSES)
"""What a GET meets."""
HANG = "hanging"
"""No answer ever: of its own, since it takes the whole timeout."""


@dataclass(frozen=True)
class Plan:
    """Which requests are spoiled: a share of them, each by one kind, up to `most` times one after the other."""

    seed: int
    rate: float
    kinds: Sequence[str] = KINDS
    most: int = 2

    def fault(self, key: bytes, tries: int, get: bool) -> str | None:
        """What the request `key` meets when it is made for the `tries`-th time (0 is the first)."""
        digest = hashlib.sha256(b"%d %b" % (self.seed, key)).digest()
        kinds = [kind for kind in self.kinds if not get or kind in PAGES or kind == HANG]
        # A page is made for the first time whenever it is asked for: half as often, so that a gate can come through.
        rate = self.rate / 2 if get else self.rate
        if not kinds or int.from_bytes(digest[:4], "big") >= rate * 2**32 or tries > digest[8] % self.most:
            return None
        return kinds[int.from_bytes(digest[4:8], "big") % len(kinds)]


class FaultProxy:
    """Hands requests on to a server on loopback, and its answers back, spoiled where the plan says so."""

    def __init__(self, upstream: str, plan: Plan) -> None:
        self.plan = plan
        self.met: Counter[str] = Counter()
        self.requests = 0
        self._upstream = int(upstream.rpartition(":")[2])
        self._tries: Counter[bytes] = Counter()
        self._earlier: dict[str, tuple[bytes, bytes]] = {}
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._port = self._socket.getsockname()[1]
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        started = threading.Event()

        async def listen() -> None:
            self._listener = await asyncio.start_server(self._serve, sock=self._socket)
            started.set()

        self._loop.create_task(listen())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._down(None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _down(self, seconds: float | None) -> None:
        """Refuse connections, and drop those that are open; for so long, or for good."""
        if self._listener is None or not self._listener.is_serving():
            return
        self._listener.close()
        for writer in list(self._open):
            reset(writer)
        if seconds is not None:
            await asyncio.sleep(seconds)
            self._listener = await asyncio.start_server(
                self._serve, "127.0.0.1", self._port, backlog=256, reuse_address=True
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):  # a client, or a server, that has gone away
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request of a connection. Returns whether a further one may come on it."""
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(length_of(head))
        method, path = head.split(b" ", 2)[:2]
        self.requests += 1
        base = method + b" " + path + b" " + body
        tries = self._tries[base]
        self._tries[base] += 1
        get = method == b"GET"
        # The same page is asked for often: each time is a request of its own. A question is asked again when it failed.
        kind = self.plan.fault(base + b" %d" % tries, 0, get) if get else self.plan.fault(base, tries, get)
        if kind == "reset before":
            self.met[kind] += 1
            reset(writer)
            return False
        if kind == "refused":
            self.met[kind] += 1
            self._loop.create_task(self._down(DOWN_SECONDS))
            return False
        if kind == HANG:
            self.met[kind] += 1
            await reader.read()  # until the client gives up
            return False
        answer = await self._ask(head, body)
        return await self._hand_back(kind, path.decode(), base, answer, writer)

    async def _ask(self, head: bytes, body: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=1 << 26)
        try:
            writer.write(head + body)
            said = await reader.readuntil(b"\r\n\r\n")
            return Answer(said, await reader.readexactly(length_of(said)))
        finally:
            writer.close()

    async def _hand_back(
        self, kind: str | None, path: str, key: bytes, answer: Answer, writer: asyncio.StreamWriter
    ) -> bool:
        whole, good = answer.whole(), answer.head.startswith(b"HTTP/1.1 200")
        earlier = self._earlier.get(path, (key, b""))
        if good:
            self._earlier[path] = (key, whole)
        makes = STATUSES | (BYTES | ANSWERS if good else {})
        sent = makes[kind](answer) if kind in makes else whole
        if kind == "an earlier answer":
            if earlier[0] == key or not earlier[1]:
                kind = None
            else:
                sent = earlier[1]
        if kind == "answered twice":
            sent = whole * 2
        if kind is not None and (good or kind not in (*BYTES, *ANSWERS)):
            self.met[kind] += 1
        if kind in ("reset in the middle", "closed in the middle"):
            writer.write(sent[: len(answer.head) + len(answer.body) // 2])
            await writer.drain()
            await asyncio.sleep(0.01)
            if kind == "reset in the middle":
                reset(writer)
            return False
        if kind == "late":
            await asyncio.sleep(0.3)
        if kind == "dripping":
            step = len(sent) // 10 + 1
            for start in range(0, len(sent), step):
                writer.write(sent[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.02)
        else:
            writer.write(sent)
            await writer.drain()
        return kind != "no HTTP"


def length_of(head: bytes) -> int:
    """content-length of a request or an answer."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a crash does."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
