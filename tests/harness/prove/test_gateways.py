"""What a gateway makes of a request on its way, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from harness.prove.gateways import BUDGET, CHAT, DROPPED, STOP, AddStop, CutBudget, DropSome, Gateway


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    assert request.headers["content-length"] == str(len(body))
    return JSONResponse(await request.json())


def client(gateway: type[Gateway]) -> TestClient:
    routes = [Route(path, echo, methods=["POST"]) for path in (CHAT, f"{CHAT}/render")]
    app = Starlette(routes=routes)
    app.add_middleware(gateway)
    return TestClient(app)


@pytest.mark.parametrize(
    ("gateway", "asked", "arrives"),
    [
        (CutBudget, {"max_tokens": 500}, {"max_tokens": BUDGET}),
        (CutBudget, {"max_completion_tokens": 500, "n": 1}, {"max_completion_tokens": BUDGET, "n": 1}),
        (CutBudget, {"max_tokens": 1}, {"max_tokens": 1}),
        (AddStop, {"max_tokens": 500, "text": "日本"}, {"max_tokens": 500, "text": "日本", "stop": [STOP]}),
    ],
)
def test_a_chat_is_changed_and_what_is_read_back_is_not(
    gateway: type[Gateway], asked: dict[str, Any], arrives: dict[str, Any]
) -> None:
    with client(gateway) as server:
        assert server.post(CHAT, json=asked).json() == arrives
        assert server.post(f"{CHAT}/render", json=asked).json() == asked


def test_one_in_a_hundred_is_refused() -> None:
    with client(DropSome) as server:
        found = [server.post(CHAT, json={"n": n}).status_code for n in range(2 * DROPPED)]
    assert [n for n, status in enumerate(found) if status == 400] == [DROPPED // 2 - 1, DROPPED + DROPPED // 2 - 1]
    assert found.count(200) == 2 * DROPPED - 2
