"""The route in a real vLLM: the same numbers as from its completions, counted as any request, behind its API key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from harness.checkpoint.models import resolve_model
from harness.contract.policy import load_policy
from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.parity.steadiness import SETTLE_SECONDS, read_after, read_counters
from harness.runs.progress import Meter
from harness.serving.flags import SERVED_NAME, plan_servers
from harness.serving.hardware import detect
from harness.serving.servers import serve

pytestmark = [pytest.mark.e2e, pytest.mark.long]

KEY = "secret"
TOP = 20


@pytest.fixture(scope="module")
def url(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the route and a key."""
    serving = load_policy(few).policy.serving
    serving = serving.model_copy(update={"extra_args": ("--api-key", KEY)})
    (plan,) = plan_servers(serving, {"reference": resolve_model("demo")}, detect(), "score")
    with serve([plan], tmp_path_factory.mktemp("logs"), 300, Meter("servers", 1)):
        yield plan.url


def endpoint(url: str, key: str = KEY) -> Endpoint:
    return Endpoint(url, SERVED_NAME, Requests(concurrency=4), Sampling(max_tokens=64, temperature=0.0), key)


def test_both_ways_give_equal_numbers_and_are_counted(url: str) -> None:
    generator = random.Random("score route")

    async def run() -> dict[str, str]:
        async with endpoint(url) as server:
            before = await read_counters(server)
            said = await server.chat([{"role": "user", "content": "Name the planets of the solar system."}])
            written = said.prompt_ids + said.token_ids
            lists = [
                (written, len(said.prompt_ids), TOP),
                (written, 1, TOP),  # again: nothing may come out of the prefix cache
                ([generator.randrange(1000, 49_000) for _ in range(1500)], 700, TOP),
                ([generator.randrange(1000, 49_000) for _ in range(30)], 1, 1),
                (written[:2], 1, TOP),
                (written, len(written), TOP),  # no position at all
            ]
            for token_ids, start, top in lists:
                fast = await server.score(token_ids, start, top)
                plain = await server._completion_scores(token_ids, start, top)
                assert server.packed_scores is True
                assert fast.token_ids.tolist() == token_ids[start:]
                assert fast.top_ids.shape == (len(token_ids) - start, top)
                for name in ("token_ids", "logprobs", "top_ids", "top_logprobs"):
                    left, right = getattr(fast, name), getattr(plain, name)
                    assert left.dtype == right.dtype and np.array_equal(left, right), name
            # A greedy answer is made of the likeliest tokens: the numbers are those of this model.
            scores = await server.score(written, len(said.prompt_ids), TOP)
            assert (scores.top_ids[:, 0] == scores.token_ids).mean() > 0.9
            assert server.asked.requests == 1 + 2 * len(lists) + 1
            await asyncio.sleep(SETTLE_SECONDS)
            return await read_after(server, before)

    facts = asyncio.run(run())
    assert facts["run.budget"] == "arrives as asked (77 tokens in 14 requests)"
    assert facts["run.restarts"] == "none" and facts["run.fingerprints"].startswith("1: ")


def test_what_the_engine_refuses_is_refused_in_both_ways(url: str) -> None:
    async def run() -> None:
        async with endpoint(url) as server:
            for token_ids, top in (([1] * 2049, 1), ([1, 49_152], 1), ([1, 2], TOP + 1)):
                for way in (server._packed_scores, server._completion_scores, server.score):
                    with pytest.raises(EndpointError, match=r"refused: .* answers 400"):
                        await way(token_ids, 1, top)
            assert server.packed_scores is True and server.asked.requests == 0

    asyncio.run(run())


def test_a_client_that_leaves_is_not_counted(url: str) -> None:
    body = {"token_ids": list(range(1000, 2900)), "start": 1, "top": TOP}

    async def run() -> str:
        async with endpoint(url) as server:
            before = await read_counters(server)
            with pytest.raises(httpx.ReadTimeout):
                headers = {"Authorization": f"Bearer {KEY}"}
                httpx.post(f"{url}/v1/quantgate/score", json=body, headers=headers, timeout=0.3, trust_env=False)
            await server.score([5, 6, 7], 1, TOP)
            await asyncio.sleep(SETTLE_SECONDS)
            return (await read_after(server, before))["run.budget"]

    assert asyncio.run(run()) == "arrives as asked (1 tokens in 1 requests)"


def test_the_key_of_the_server_guards_the_route(url: str) -> None:
    route = f"{url}/v1/quantgate/score"
    assert httpx.get(route, trust_env=False).status_code == 401
    assert httpx.post(route, json={}, trust_env=False).status_code == 401
    headers = {"Authorization": f"Bearer {KEY}"}
    assert httpx.get(route, headers=headers, trust_env=False).json() == {"quantgate_score": 1}
    refused = httpx.post(route, json={}, headers=headers, trust_env=False)
    assert refused.status_code == 400 and "token_ids" in refused.json()["error"]["message"]
