"""Log-probabilities of given tokens, fast: a route that runs inside vLLM's own server process.

    vllm serve MODEL --middleware harness.endpoint.score_route.ScoreRoute

`/v1/completions` gives the same numbers, but vLLM turns each id into text and sends objects of objects as JSON. Here
the engine is asked for the same with flat log-probabilities and no text, and two arrays are sent (safetensors):

    GET  /v1/quantgate/score    {"quantgate_score": 1}, or 404 where this vLLM cannot be asked in this way
    POST /v1/quantgate/score    {"token_ids": [...], "start": 1, "top": 64} -> ids [n, top + 1] int32 and logprobs
                                [n, top + 1] float32 of the tokens from `start` on; in each row the token that is there,
                                then the likeliest ones, best first

Errors are JSON, {"error": {"message": ...}}, with vLLM's own status. vLLM and Starlette are the server's; nothing else
of ours than `answers` and `connections` is imported.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.endpoint.answers import FINGERPRINT_HEADER, SCORE_PATH, SCORE_VERSION
from harness.endpoint.connections import REQUEST_ID

T = TypeVar("T")
NO_PROBABILITY = -9999.0
"""vLLM's completions send this in the place of minus infinity, which JSON cannot hold."""


class ScoreRoute:
    """ASGI middleware that changes nothing on its way: it adds the route to the application that it belongs to.

    A middleware of the command line stands before vLLM's own ones. The route stands behind them all: below /v1, where
    vLLM asks for its API key if it has one, and where its error handlers and HTTP metrics are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._added = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._added:  # at the latest before the first request; most servers say "lifespan" before
            self._added = True
            router = scope["app"].router
            router.add_route("/v1" + SCORE_PATH, route_version, methods=["GET"])
            router.add_route("/v1" + SCORE_PATH, score, methods=["POST"])
        await self._app(scope, receive, send)


async def route_version(request: Request) -> Response:
    """Whether and in which version the route works here."""
    try:
        engine = request.app.state.engine_client
        inspect.signature(engine.generate).bind(_prompt([0]), _parameters(1), "id")
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        return _error(404, f"this vLLM cannot be asked for flat log-probabilities: {error!r}")
    return JSONResponse({"quantgate_score": SCORE_VERSION})


async def score(request: Request) -> Response:
    """One list of tokens. What the engine refuses is left to vLLM's error handlers."""
    try:
        token_ids, start, top = _read(await request.json())
    except (ValueError, RecursionError) as error:
        return _error(400, str(error))
    engine = request.app.state.engine_client
    flat = await _while_connected(request, _prompt_logprobs(engine, token_ids, top))
    if flat is None:
        return _error(499, "the client has gone away")
    serving = getattr(request.app.state, "openai_serving_completion", None)
    fingerprint = getattr(serving, "system_fingerprint", None)  # vLLM 0.32 and newer
    headers = {FINGERPRINT_HEADER: fingerprint} if isinstance(fingerprint, str) else {}
    if REQUEST_ID in request.headers:  # whose answer it is, as vLLM says in the id of a completion
        headers[REQUEST_ID] = request.headers[REQUEST_ID]
    return Response(
        pack_scores(flat, len(token_ids), start, top), media_type="application/octet-stream", headers=headers
    )


def pack_scores(flat: Any, tokens: int, start: int, top: int) -> bytes:
    """The answer's bytes, of vLLM's FlatLogprobs of a prompt of `tokens` tokens; its first position has nothing.

    Raises:
        RuntimeError: they are not laid out as this vLLM is known to do.
    """
    if len(flat.start_indices) != tokens or len(flat.token_ids) != (tokens - 1) * (top + 1):
        raise RuntimeError(f"{len(flat.token_ids)} flat log-probabilities for {tokens} tokens and the {top} likeliest")
    begin = (start - 1) * (top + 1)
    ids = np.array(flat.token_ids[begin:], np.int32)
    logprobs = np.array(flat.logprobs[begin:], np.float32)
    logprobs[np.isneginf(logprobs)] = NO_PROBABILITY
    shape = (tokens - start, top + 1)
    return save({"ids": ids.reshape(shape), "logprobs": logprobs.reshape(shape)})


def _read(body: Any) -> tuple[list[int], int, int]:
    """(token_ids, start, top) of a request. Raises ValueError."""
    if not isinstance(body, dict):
        raise ValueError("the body is no JSON object")
    token_ids, start, top = (body.get(key) for key in ("token_ids", "start", "top"))
    if not isinstance(token_ids, list) or not token_ids or not all(type(token) is int for token in token_ids):
        raise ValueError("token_ids is no list of token ids")
    if type(start) is not int or not 1 <= start <= len(token_ids):
        raise ValueError(f"start is no position from 1 (nothing is known of the first token) to {len(token_ids)}")
    if type(top) is not int or top < 1:
        raise ValueError("top is no whole number from 1 on")
    return token_ids, start, top


def _prompt(token_ids: list[int]) -> Any:
    return importlib.import_module("vllm.inputs").tokens_input(token_ids)


def _parameters(top: int) -> Any:
    """Sampling parameters as a completion with prompt_logprobs has them, less the text."""
    module = importlib.import_module("vllm.sampling_params")
    return module.SamplingParams(
        prompt_logprobs=top,
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        flat_logprobs=True,
        output_kind=module.RequestOutputKind.FINAL_ONLY,
    )


async def _prompt_logprobs(engine: Any, token_ids: list[int], top: int) -> Any:
    """vLLM's FlatLogprobs of the prompt. Raises what the engine raises."""
    found = None
    async for output in engine.generate(_prompt(token_ids), _parameters(top), f"quantgate-{uuid.uuid4().hex}"):
        found = output.prompt_logprobs
    if found is None:
        raise RuntimeError("the engine gave no prompt log-probabilities")
    return found


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Result of `work`, or None when the client leaves before; the engine then aborts the request, as for any other."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    """Return when the client has left. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status)
