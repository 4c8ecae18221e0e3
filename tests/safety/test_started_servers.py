"""A server that the gate starts: on loopback, with a key that nobody reads, and without this process's secrets."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from jobs import Model, finish, make_job
from packaging.version import Version

from harness.contract.errors import BadInput, RunFailed
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Role
from harness.contract.settings import Requests, Sampling, Serving
from harness.endpoint.client import Endpoint
from harness.gate import questions
from harness.parity import steadiness
from harness.parity.readback import served_name
from harness.runs.progress import Meter
from harness.serving import flags
from harness.serving.flags import API_KEY, ServerPlan, plan_servers, with_api_key
from harness.serving.hardware import Hardware
from harness.serving.launch import plan_launch
from harness.serving.servers import serve

CPU = Hardware(processor="test", cpus=[0, 1], memory_gib=64, free_gib=32, gpus=[])
SCRIPT = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
print(sorted(os.environ), flush=True)
class Handle(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if known or self.path == "/health" else 401)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "m"}]}')
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handle).serve_forever()
"""
"""As much of vLLM as asks for its key: below /v1, and not for /health."""


def test_the_key_of_a_run_opens_its_servers_and_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    port = flags._ports(Serving(), {"reference": tmp_path})["reference"]
    (plan,) = with_api_key([ServerPlan("reference", tmp_path, port, [sys.executable, "-c", SCRIPT, str(port)])])

    async def models() -> dict[str, Any]:
        async with Endpoint(plan.url, "m", Requests(retries=0), Sampling(), plan.api_key) as endpoint:
            return await endpoint.get_json("/v1/models")

    with serve([plan], tmp_path / "logs", 60, Meter("s", 1)):
        with pytest.raises(RunFailed, match="answers 401"):
            asyncio.run(served_name(plan.url))
        assert asyncio.run(models()) == {"data": [{"id": "m"}]}
        state = (tmp_path / "logs" / "reference.state.json").read_text()
        command_line = Path(f"/proc/{json.loads(state)['server']['pid']}/cmdline").read_text()
    log = (tmp_path / "logs" / "reference.log").read_text()
    assert API_KEY in log and "HF_TOKEN" not in log and "OPENAI_API_KEY" not in log
    assert len(plan.api_key) >= 43 and plan.api_key not in log + state + command_line + repr(plan)


def test_a_gate_asks_its_servers_with_a_key_of_this_run_that_no_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ServerPlan] = []
    with FakeServer() as reference, FakeServer() as candidate:
        servers: dict[Role, FakeServer] = {"reference": reference, "candidate": candidate}

        def plan(_: Any, models: dict[Role, Path], *__: Any) -> list[ServerPlan]:
            ports = {role: int(servers[role].url.rsplit(":", 1)[1]) for role in models}
            return [ServerPlan(role, model, ports[role], ["serve", str(model)]) for role, model in models.items()]

        @contextmanager
        def started(plans: Sequence[ServerPlan], *_: Any) -> Iterator[list[Any]]:
            made.extend(plans)
            yield []

        monkeypatch.setattr(questions, "plan_servers", plan)
        monkeypatch.setattr(questions, "serve", started)
        monkeypatch.setattr(steadiness, "SETTLE_SECONDS", 0.0)
        for server in servers.values():
            server.handler = Model()
        keys = []
        for number in range(2):
            job = make_job(tmp_path / f"run{number}")
            for role in ROLES:
                (tmp_path / role).mkdir(exist_ok=True)
                job.manifest.models[role].path = str(tmp_path / role)
            finish(job)
            assert {access.api_key for access in job.access.values()} == {made[-1].api_key}
            keys.append(made[-1].api_key)
            assert not [p for p in job.run.path.rglob("*") if p.is_file() and keys[-1].encode() in p.read_bytes()]
            assert keys[-1] not in repr(job)
        assert all(keys) and keys[0] != keys[1] and len(made) == 4
        sent = {header for server in servers.values() for header in server.authorizations}
    assert {f"Bearer {key}" for key in keys} == sent


@pytest.mark.parametrize("image", [None, "an/image:1"])
def test_every_server_is_on_loopback_and_its_key_is_in_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str | None
) -> None:
    monkeypatch.setattr(flags, "_vllm_version", lambda: Version("0.32"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "config.json").write_text("{}")
    planned = plan_servers(Serving(image=image), {"reference": tmp_path, "candidate": tmp_path}, CPU, "run")
    for plan in with_api_key(planned):
        assert plan.command[plan.command.index("--host") + 1] == "127.0.0.1" and plan.url.startswith(
            "http://127.0.0.1:"
        )
        assert "--trust-remote-code" not in plan.command and not plan.environment.get(API_KEY)
        assert not [word for word in plan.command if plan.api_key in word]
        assert (API_KEY in plan.command) == bool(image)  # `-e NAME`: out of the environment of that command
    by_hand = plan_launch(tmp_path, CPU).command
    assert by_hand[by_hand.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "listens on loopback"),
        (["--host=::"], "listens on loopback"),
        (["--uds", "/tmp/s"], "listens on loopback"),
        (["--load-format", "pt"], "pickle"),
        (["--load_format=npcache"], "pickle"),
    ],
)
def test_no_policy_opens_a_server_to_the_network_or_to_pickles(words: list[str], said: str) -> None:
    text = "name: n\nsuites: {needle: {}}\nchecks: [{metric: accuracy, on: needle, max_loss: 0.5}]\nserving: "
    with pytest.raises(BadInput, match=said):
        parse_policy(f"{text}{json.dumps({'extra_args': words})}")
    fine = parse_policy(f'{text}{{extra_args: ["--load-format", "safetensors", "--hostname-like", "x"]}}')
    assert fine.policy.serving.extra_args[1] == "safetensors"


def test_code_out_of_a_checkpoint_is_shown_where_it_was_run(servers: dict[Role, FakeServer], tmp_path: Path) -> None:
    assert not finish(make_job(tmp_path / "off"), servers).run.manifest().notes
    for server in servers.values():
        handler = server.handler
        assert isinstance(handler, Model)
        handler.info["vllm_config"]["model_config"]["trust_remote_code"] = True
    notes = finish(make_job(tmp_path / "on"), servers).run.manifest().notes
    assert len(notes) == 2 and all("ran code out of the checkpoint's own folder" in note for note in notes)
