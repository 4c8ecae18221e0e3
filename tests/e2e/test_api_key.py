"""A real vLLM with the key of a run: it asks for it, and neither its log nor its command line shows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import psutil
import pytest

from harness.checkpoint.models import resolve_model
from harness.contract.policy import load_policy
from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint
from harness.runs.progress import Meter
from harness.serving.flags import SERVED_NAME, plan_servers, with_api_key
from harness.serving.hardware import detect
from harness.serving.servers import serve

pytestmark = pytest.mark.e2e


def test_a_server_of_a_gate_answers_nobody_else(few: Path, tmp_path: Path) -> None:
    serving = load_policy(few).policy.serving
    (plan,) = with_api_key(plan_servers(serving, {"reference": resolve_model("demo")}, detect(), "key"))

    async def ask() -> list[object]:
        async with Endpoint(plan.url, SERVED_NAME, Requests(), Sampling(max_tokens=4), plan.api_key) as server:
            said = await server.chat([{"role": "user", "content": "Hello"}])
            return [
                said.completion_tokens,
                await server._has_packed_scores(),
                await server.find_json("/server_info?config_format=json"),
            ]

    with serve([plan], tmp_path, 300, Meter("servers", 1)) as (server,):
        for path in ("/v1/models", "/v1/quantgate/score"):
            assert httpx.get(plan.url + path, trust_env=False).status_code == 401
        tokens, packed, info = asyncio.run(ask())
        family = psutil.Process(server.guard.pid).children(recursive=True)
        shown = [word for process in family for word in process.cmdline()]
        bound = {
            c.laddr.ip
            for p in family
            for c in p.net_connections("tcp")
            if c.status == "LISTEN" and c.laddr.port == plan.port
        }
    assert tokens and packed and bound == {"127.0.0.1"}
    assert plan.api_key not in server.log.read_text() + str(info) + " ".join(shown)
