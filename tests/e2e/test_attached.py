"""A server that keeps its flags to itself, as most do that are attached to: what asking tells of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import ask

from harness.checkpoint.models import describe, resolve_model
from harness.contract.settings import Serving
from harness.parity.comparison import differences, unread
from harness.parity.readback import read_back
from harness.parity.server_config import UNKNOWN
from harness.runs.progress import Reporter
from harness.serving.flags import plan_servers
from harness.serving.hardware import detect
from harness.serving.servers import serve

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SERVING = Serving(max_model_len=1024, dtype="bfloat16", max_logprobs=24, max_num_seqs=4, enforce_eager=True)


def test_a_shut_server_is_asked_for_dtype_and_limits(tmp_path: Path) -> None:
    model = resolve_model("demo")
    (plan,) = plan_servers(SERVING, {"reference": model}, detect(), "attached")
    environment = {name: value for name, value in plan.environment.items() if name != "VLLM_SERVER_DEV_MODE"}
    command = [word for word in plan.command if word != "--enable-scale-out"]
    shut = replace(plan, command=command, environment=environment)
    facts = describe("demo", model)
    with Reporter().stage("server") as meter, serve([shut], tmp_path, 600, meter):
        found = ask(shut.url, lambda endpoint: read_back(endpoint, facts), max_tokens=32)
    assert found["asked.dtype"] == "bfloat16" and found["asked.max_logprobs"] == "24"
    assert found["max_model_len"] == "1024" and found["config"] == found["sampling"] == UNKNOWN
    hidden = unread(found, dict(found))
    assert not differences(found, dict(found)) and len(hidden.names) > 100 and hidden.shut
    assert "config.scheduler.max_num_seqs" in hidden.names and "config.model.dtype" not in hidden.names
