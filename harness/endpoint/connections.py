"""Many connections to one server, at a cost that does not grow with their number.

openai's own client over aiohttp takes less: 1.7, 1.8 and 2.0 ms of processor time a request at 32, 256 and 512 in
flight, and this one 2.0, 2.3 and 2.5 (one pool of httpx2: 2.3, 3.8 and 4.6; of httpx: 2.5, 10.8 and 10.9). Yet
httpx-aiohttp 0.2.0 calls a refused or lost connection and a failed TLS handshake a timeout, and lets aiohttp's own
error through where an answer is no HTTP: to tell them apart again takes a class as long as this one, and a package more
(benchmarks/results/client_transports.json, tests/harness/endpoint/test_connections_lost.py).
"""

from __future__ import annotations

import asyncio
import uuid
from itertools import cycle
from typing import Any

import httpx

REQUEST_ID = "x-request-id"
"""vLLM makes the id of its answer of this header, so that an answer can be told from that to another request."""
OURS = "quantgate-"
"""How the values begin that are sent here; what stands between may put its own in their place."""
SMALL = 4
"""Connections of one pool."""


class SpreadClient(httpx.AsyncClient):
    """An httpx client that sends its requests over many small pools in turn.

    Whenever a request begins or ends, httpcore's pool asks each of its connections about all the others. With 256
    connections that is most of the time of a core (benchmarks/results/client_cost.json); with 4 it does not show.
    """

    def __init__(self, connections: int, trust_env: bool = True, auth: httpx.Auth | None = None) -> None:
        """`connections` at most are used at the same time, which is for the caller to see to."""
        verify = httpx.create_ssl_context(trust_env=trust_env)  # reads all certificates: once, and not for each pool
        super().__init__(verify=verify, trust_env=trust_env)
        pools = -(-connections // SMALL)
        limits = httpx.Limits(max_connections=None)
        self._pools = [
            httpx.AsyncClient(verify=verify, trust_env=trust_env, limits=limits, auth=auth) for _ in range(pools)
        ]
        self._turns = cycle(self._pools)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Each try has an id of its own, and its read timeout for the whole answer.

        httpx begins anew with every byte: a server that sends one a minute would be waited for without end.
        """
        request.headers[REQUEST_ID] = f"{OURS}{uuid.uuid4().hex}"
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                return await next(self._turns).send(request, **options)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no whole answer in {seconds} s", request=request) from None

    async def aclose(self) -> None:
        await super().aclose()
        for pool in self._pools:
            await pool.aclose()
