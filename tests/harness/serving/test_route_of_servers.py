"""The route that servers are given is one that they can load: vLLM takes its name, and dies of a wrong one."""

from importlib import import_module
from pathlib import Path

import pytest

from harness.contract.policy import Serving
from harness.endpoint.score_route import ScoreRoute
from harness.serving import servers
from harness.serving.hardware import Hardware
from harness.serving.servers import plan_servers

CPU = Hardware(processor="test", cpus=[4, 5], memory_gib=64, free_gib=32, gpus=[])


def test_the_route_of_a_server_is_where_its_flag_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.metadata, "version", lambda name: "0.32.0+cpu")
    (plan,) = plan_servers(Serving(), {"reference": tmp_path}, CPU, "run-1")
    module, _, name = plan.command[plan.command.index("--middleware") + 1].rpartition(".")
    assert getattr(import_module(module), name) is ScoreRoute
