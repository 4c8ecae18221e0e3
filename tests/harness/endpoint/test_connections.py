"""Many connections: spread evenly over small pools, kept, closed, and with httpx's own behaviour otherwise."""

import asyncio
import threading
from collections import Counter
from typing import Any

import httpx
import pytest
from fake_server import FakeServer, Reply

from harness.endpoint.connections import SMALL, SpreadClient


def test_requests_at_once_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[int] = Counter()

    async def send(pool: httpx.AsyncClient, request: httpx.Request, **_: Any) -> httpx.Response:
        used[id(pool)] += 1
        return httpx.Response(200, request=request)

    monkeypatch.setattr(httpx.AsyncClient, "send", send)

    async def run() -> None:
        async with SpreadClient(256) as client:
            await asyncio.gather(*(client.get("http://127.0.0.1/") for _ in range(256)))

    asyncio.run(run())
    assert len(used) == 256 // SMALL and set(used.values()) == {SMALL}


@pytest.mark.parametrize("connections", [1, SMALL, SMALL + 1, 32])
def test_as_many_requests_as_asked_for_are_in_flight(server: FakeServer, connections: int) -> None:
    full = threading.Event()

    def handler(path: str, body: dict[str, Any]) -> Any:
        if server.most_in_flight >= connections:
            full.set()
        return {"all": full.wait(10)}

    server.handler = handler

    async def run() -> list[Any]:
        async with SpreadClient(connections) as client:
            asked = (client.post(server.url, json={}) for _ in range(connections))
            return [response.json() for response in await asyncio.gather(*asked)]

    assert asyncio.run(run()) == [{"all": True}] * connections


def test_an_answer_is_whole_and_errors_are_those_of_httpx(server: FakeServer) -> None:
    server.script(Reply({"text": "x" * 300_000}), Reply({}, 503), None)

    async def run() -> None:
        async with SpreadClient(4) as client:
            assert len((await client.post(server.url, json={})).json()["text"]) == 300_000
            assert (await client.post(server.url, json={})).status_code == 503
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(server.url, json={})

    asyncio.run(run())


def test_closing_closes_every_pool() -> None:
    async def run() -> None:
        client = SpreadClient(9)
        await client.aclose()
        assert client.is_closed
        with pytest.raises(RuntimeError, match="closed"):
            await client.get("http://127.0.0.1:1/")
        for pool in client._pools:
            assert pool.is_closed

    asyncio.run(run())


@pytest.mark.parametrize("trusted", [True, False])
def test_a_proxy_of_the_environment_is_asked_when_it_is_trusted(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)

    async def run() -> Any:
        async with SpreadClient(2, trust_env=trusted) as client:
            return (await client.post("http://quantgate.invalid/x", json={})).status_code

    if trusted:
        assert asyncio.run(run()) == 200
        assert server.posts[0][0] == "http://quantgate.invalid/x"
    else:
        with pytest.raises(httpx.ConnectError):
            asyncio.run(run())
