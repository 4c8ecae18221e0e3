"""The route in the server: what it asks of vLLM's engine, what it sends, and who may ask it."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load

PATH = "/v1/quantgate/score"


class Engine:
    """vLLM's engine client, as far as the route knows it: flat log-probabilities of a model that is made up."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any, str]] = []
        self.waits = False
        self.aborted = False
        self.error: Exception | None = None

    async def generate(self, prompt: Any, sampling_params: Any, request_id: str) -> AsyncIterator[Any]:
        self.asked.append((prompt, sampling_params, request_id))
        if self.error:
            raise self.error
        try:
            await asyncio.sleep(60 if self.waits else 0)
        except asyncio.CancelledError:
            self.aborted = True
            raise
        yield SimpleNamespace(prompt_logprobs=flat(prompt, sampling_params["prompt_logprobs"]))


def flat(token_ids: list[int], top: int) -> Any:
    """vLLM's FlatLogprobs: nothing at the first position, then the token and the likeliest, 100, 101 and so on."""
    made = SimpleNamespace(start_indices=[0], token_ids=[], logprobs=[])
    for token in token_ids[1:]:
        made.start_indices.append(len(made.token_ids))
        made.token_ids += [token, *range(100, 100 + top)]
        made.logprobs += [-math.inf if token == 13 else -9.0, *(-1.0 - i for i in range(top))]
    return made


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    pytest.importorskip("starlette")  # vLLM's; a client needs neither
    from harness.endpoint import score_route

    monkeypatch.setattr(score_route, "_prompt", lambda token_ids: token_ids)
    monkeypatch.setattr(score_route, "_parameters", lambda top: {"prompt_logprobs": top})
    return Engine()


def call(engine: Any, action: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
    """Run `action` with a client of an application that has the middleware, and an API key below /v1 as vLLM does."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    from harness.endpoint.score_route import ScoreRoute

    class Key:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            denied = scope["path"].startswith("/v1") and Request(scope).headers.get("authorization") != "Bearer key"
            await (JSONResponse({"error": "Unauthorized"}, 401) if denied else self.app)(scope, receive, send)

    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": {"message": str(error)}}, 400)

    # The order in which vLLM has them: the command line's before its own.
    app = Starlette(middleware=[Middleware(ScoreRoute), Middleware(Key)], exception_handlers={ValueError: refused})
    app.state.engine_client = engine
    app.state.openai_serving_completion = SimpleNamespace(system_fingerprint="vllm-a")

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {"authorization": "Bearer key"}
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
            return await action(client)

    return asyncio.run(run())


def post(engine: Any, **body: Any) -> httpx.Response:
    return call(engine, lambda client: client.post(PATH, json=body))


def test_the_route_says_that_it_is_there(engine: Engine) -> None:
    answer = call(engine, lambda client: client.get(PATH))
    assert (answer.status_code, answer.json()) == (200, {"quantgate_score": 1})
    assert not engine.asked  # a request that no client counts would spoil the budget's reading


@pytest.mark.parametrize("engine_of_another_vllm", [None, SimpleNamespace(), SimpleNamespace(generate=lambda: None)])
def test_a_vllm_that_cannot_be_asked_has_no_route(engine: Engine, engine_of_another_vllm: Any) -> None:
    answer = call(engine_of_another_vllm, lambda client: client.get(PATH))
    assert answer.status_code == 404 and "cannot be asked" in answer.json()["error"]["message"]


def test_the_key_of_the_server_guards_the_route(engine: Engine) -> None:
    headers = {"authorization": "Bearer other"}
    assert call(engine, lambda client: client.get(PATH, headers=headers)).status_code == 401
    assert call(engine, lambda client: client.post(PATH, headers=headers, json={})).status_code == 401
    assert not engine.asked


@pytest.mark.parametrize(("start", "positions"), [(1, 3), (3, 1), (4, 0)])
def test_positions_from_the_start_on_are_sent(engine: Engine, start: int, positions: int) -> None:
    answer = post(engine, token_ids=[4, 5, 13, 7], start=start, top=2)
    assert answer.status_code == 200 and answer.headers["x-system-fingerprint"] == "vllm-a"
    found = load(answer.content)
    assert found["ids"].dtype == np.int32 and found["logprobs"].dtype == np.float32
    assert found["ids"].tolist() == [[5, 100, 101], [13, 100, 101], [7, 100, 101]][start - 1 :]
    assert found["ids"].shape == found["logprobs"].shape == (positions, 3)
    # A token without a probability has the value that completions give it.
    assert found["logprobs"].tolist() == [[-9.0, -1.0, -2.0], [-9999.0, -1.0, -2.0], [-9.0, -1.0, -2.0]][start - 1 :]
    ((prompt, parameters, request_id),) = engine.asked
    assert (prompt, parameters) == ([4, 5, 13, 7], {"prompt_logprobs": 2}) and request_id.startswith("quantgate-")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token_ids": [], "start": 1, "top": 1},
        {"token_ids": "1 2", "start": 1, "top": 1},
        {"token_ids": [1, "2"], "start": 1, "top": 1},
        {"token_ids": [1, True], "start": 1, "top": 1},
        {"token_ids": [[1, 2]], "start": 1, "top": 1},
        {"token_ids": [1, 2], "start": 0, "top": 1},
        {"token_ids": [1, 2], "start": 3, "top": 1},
        {"token_ids": [1, 2], "start": 1.0, "top": 1},
        {"token_ids": [1, 2], "start": 1},
        {"token_ids": [1, 2], "start": 1, "top": 0},
        {"token_ids": [1, 2], "start": 1, "top": -1},
        {"token_ids": [1, 2], "start": 1, "top": True},
    ],
)
def test_a_request_that_cannot_be_is_refused(engine: Engine, body: dict[str, Any]) -> None:
    answer = post(engine, **body)
    assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert not engine.asked


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(engine: Engine, content: bytes) -> None:
    assert call(engine, lambda client: client.post(PATH, content=content)).status_code == 400


def test_what_the_engine_refuses_is_left_to_the_server(engine: Engine) -> None:
    engine.error = ValueError("prompt is too long")
    answer = post(engine, token_ids=[1, 2], start=1, top=1)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "prompt is too long")


@pytest.mark.parametrize("made", [flat([1, 2, 3], 2), flat([1, 2], 3), flat([1, 2], 1), flat([], 2)])
def test_log_probabilities_of_another_layout_are_not_sent(engine: Engine, made: Any) -> None:
    from harness.endpoint.score_route import pack_scores

    with pytest.raises(RuntimeError, match="flat log-probabilities for 2 tokens"):
        pack_scores(made, 2, 1, 2)


def test_a_client_that_leaves_ends_its_request(engine: Engine) -> None:
    from harness.endpoint.score_route import _prompt_logprobs, _while_connected

    engine.waits = True
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, str]:
        await asyncio.sleep(0.01)
        return messages.pop(0)

    async def run() -> Any:
        request: Any = SimpleNamespace(receive=receive)
        found = await _while_connected(request, _prompt_logprobs(engine, [1, 2], 1))
        await asyncio.sleep(0)
        return found

    assert asyncio.run(run()) is None and engine.aborted
