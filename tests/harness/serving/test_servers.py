"""Servers are processes that end with the gate and say why they failed: real ones, in the place of vLLM."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from harness.contract.errors import RunFailed
from harness.contract.samples import Role
from harness.runs.progress import Meter
from harness.serving.flags import ServerPlan
from harness.serving.servers import end_dead_run, serve


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stand_in(folder: Path, role: Role) -> ServerPlan:
    """A file server whose /health is a file."""
    (folder / "health").write_text("ok", "utf-8")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(folder)]
    return ServerPlan(role, folder, port, command, {"QUANTGATE_TEST": role})


def shell(folder: Path, script: str) -> ServerPlan:
    return ServerPlan("candidate", folder, free_port(), ["sh", "-c", script])


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_servers_run_while_the_body_does_and_not_after(tmp_path: Path) -> None:
    plans = [stand_in(tmp_path, "reference"), stand_in(tmp_path, "candidate")]
    meter = Meter("servers", 2)
    with pytest.raises(KeyboardInterrupt), serve(plans, tmp_path / "logs", 30, meter) as servers:
        assert meter.done == 2
        assert [s.plan.role for s in servers] == ["reference", "candidate"] and all(s.alive() for s in servers)
        for made in plans:
            assert httpx.get(made.url + "/health", trust_env=False).text == "ok"
        inner = [psutil.Process(s.guard.pid).children()[0] for s in servers]
        assert [p.environ()["QUANTGATE_TEST"] for p in inner] == ["reference", "candidate"]
        raise KeyboardInterrupt
    assert not any(s.alive() for s in servers)
    for made in plans:
        with pytest.raises(httpx.ConnectError):
            httpx.get(made.url + "/health", trust_env=False)
    assert end_dead_run(tmp_path / "logs") == []


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ValueError: No available memory for the cache blocks.", "lower serving.kv_cache_memory_gib"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "the model does not fit"),
        ("OSError: [Errno 98] Address already in use", "the port is taken"),
        ("vllm: error: unrecognized arguments: --nonsense", "serving.extra_args has a flag"),
        ("something unheard of", "see the log"),
    ],
)
def test_a_server_that_ends_early_says_why(tmp_path: Path, line: str, hint: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "candidate.log").write_text("CUDA out of memory\n" * 3, "utf-8")  # of an earlier run
    with (
        pytest.raises(RunFailed, match="candidate server ended before it was ready") as caught,
        serve([shell(tmp_path, f"echo first; echo '{line}' >&2; exit 3")], tmp_path / "logs", 30, Meter("s", 1)),
    ):
        pass
    assert hint in str(caught.value) and "candidate.log" in str(caught.value)
    assert caught.value.details.splitlines() == ["first", line]


@pytest.mark.slow
def test_a_server_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with (
        pytest.raises(RunFailed, match=r"was not ready after 0 s \(serving.ready_timeout_seconds\)"),
        serve([shell(tmp_path, f"echo $$ > {started}; exec sleep 60")], tmp_path / "logs", 0.4, Meter("s", 1)),
    ):
        pass
    if started.exists() and (pid := started.read_text("utf-8").strip()):
        wait_for(lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == "zombie")


@pytest.mark.slow
def test_servers_of_a_killed_gate_are_found_by_role(tmp_path: Path) -> None:
    made = stand_in(tmp_path, "reference")
    with serve([made], tmp_path / "logs", 30, Meter("s", 1)) as (server,):
        server.guard.kill()
        server.guard.wait()
        assert httpx.get(made.url + "/health", trust_env=False).status_code == 200  # it lives on without its guard
        assert end_dead_run(tmp_path / "logs") == ["reference"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(made.url + "/health", trust_env=False)
        assert end_dead_run(tmp_path / "logs") == []


@pytest.mark.slow
def test_a_gate_that_is_killed_takes_its_servers_along(tmp_path: Path) -> None:
    made = stand_in(tmp_path, "reference")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.runs.progress import Meter\n"
        "from harness.serving.flags import ServerPlan\nfrom harness.serving.servers import serve\n"
        f"plan = ServerPlan('reference', Path('.'), {made.port}, {made.command!r})\n"
        f"with serve([plan], Path({str(tmp_path / 'logs')!r}), 30, Meter('s', 1)):\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as gate:
        assert gate.stdout and gate.stdout.readline() == b"ready\n"
        gate.kill()
    wait_for(lambda: not list((tmp_path / "logs").glob("*.state.json")))
    with pytest.raises(httpx.ConnectError):
        httpx.get(made.url + "/health", trust_env=False)
