"""A request and its further tries: what came of them is an answer, or an EndpointError that says what did not come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import openai

from harness.endpoint.answers import EndpointError, kind_of_status

T = TypeVar("T")
PAUSE_SECONDS = 0.25
"""Before what was no answer is asked for once more; twice as long each time."""
NOT_NOW = frozenset({408, 429, 502, 503, 504})
"""Statuses of a page that may be there: the server, or what stands before it, cannot say just now."""


async def answered(sent: Awaitable[httpx.Response], what: str, seconds: float) -> httpx.Response:
    """The answer to a request and to the SDK's further tries of it; `seconds` is the time that a try has.

    Raises:
        EndpointError: none was answered well.
    """
    try:
        return await sent
    except openai.APITimeoutError as error:
        if isinstance(error.__cause__, httpx.ConnectTimeout):
            raise EndpointError("unreachable", f"{what}: no connection came about") from None
        raise EndpointError("timeout", f"{what}: no answer in {seconds:.0f} s") from None
    except openai.APIConnectionError as error:
        raise EndpointError("unreachable", f"{what}: {(error.__cause__ or error)!r}") from None
    except openai.APIStatusError as error:
        status, said = error.status_code, f": {error.message}" if error.body else ""
        raise EndpointError(kind_of_status(status), f"{what} answers {status}{said}", status) from None


async def again(ask: Callable[[], Awaitable[T]], retries: int) -> T:
    """What `ask` gives, asked again where an answer came that is none: torn, another's, ended by the server.

    The SDK tries again what failed without an answer or with a 5xx; of what it was answered it sees nothing.

    Raises:
        EndpointError: nor did `retries` further tries.
    """
    for tried in range(retries):
        try:
            return await ask()
        except EndpointError as error:
            if error.kind != "garbage" and (error.kind != "server" or error.status is not None):
                raise
        await asyncio.sleep(PAUSE_SECONDS * 2**tried)
    return await ask()


async def found(page: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """A page, or None where the server has none, gives something else in its place, or does not answer at all.

    Raises:
        EndpointError: no server, or one that cannot say just now whether it has it (NOT_NOW).
    """
    try:
        return await page
    except EndpointError as error:
        if error.kind == "unreachable" or error.status in NOT_NOW:
            raise
        return None
