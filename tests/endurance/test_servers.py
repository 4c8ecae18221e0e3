"""Servers that die, hang, restart or do not load: those that the gate attaches to, and those that it started itself."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from harness.contract.samples import ROLES
from tests.endurance.gates import (
    LIMIT_SECONDS,
    POLICY,
    ROOT,
    Gate,
    require_no_orphan,
    require_same,
    samples_of,
    send,
    wait_for,
)

pytestmark = pytest.mark.slow
soak = pytest.mark.soak
PYTHONPATH = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "tests" / "helpers")))


# -- servers that run already ----------------------------------------------------------------------------------


class Attached:
    """A good server in a process of its own, on a port that stays."""

    def __init__(self, role: str) -> None:
        self.role = role
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.endurance.good_server", self.role, str(self.port)]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
        self.process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)

    def ready(self) -> bool:
        try:
            return httpx.get(self.url + "/health", timeout=1.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def wait(self) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.ready():
            assert time.monotonic() < deadline and self.process.poll() is None, "no good server"
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def attached() -> Iterator[dict[str, Attached]]:
    servers: dict[str, Attached] = {role: Attached(role) for role in ROLES}
    for server in servers.values():
        server.wait()
    yield dict(servers)
    for server in servers.values():
        server.kill()


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A process that the kernel does not run: connections are taken, and nothing is answered."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("count", [1, pytest.param(8, marks=soak)])
def test_a_server_that_is_killed_and_started_again_is_gone_on_with(
    attached: dict[str, Attached],
    make_gate: Callable[..., Gate],
    undisturbed: Gate,
    count: int,
    record: Callable[..., None],
) -> None:
    draw, tries = random.Random(count), 0
    for number in range(count):
        gate = make_gate(f"run{number}", {role: server.url for role, server in attached.items()})
        process, victim = gate.start(), attached[draw.choice(ROLES)]
        first = draw.randrange(1, 100)
        wait_for(gate, process, lambda: samples_of(gate) >= first, f"answer {first}")  # noqa: B023
        victim.kill()
        time.sleep(draw.choice((0.0, 1.0)))
        victim.start()
        status = gate.wait(process)
        assert status in (0, 4), gate.said()
        victim.wait()
        assert status == 0 or gate.finish() == 0, gate.said()
        require_same(gate, undisturbed.run)
        tries += gate.tries
    record(
        "a server killed and started again",
        "SIGKILL of one of two attached servers at a random answer, started again at once or a second later",
        f"{count} times",
        f"the same verdict each time, after {tries} calls of the command in all",
        "nothing",
    )


def _impatient(seconds: float) -> None:
    """In the gate's process: the timeout that a policy cannot make as short."""
    from harness.endpoint import client

    client.PATIENCE_SECONDS = seconds


@pytest.mark.parametrize("count", [pytest.param(4, marks=soak)])
def test_a_server_that_is_stopped_ends_the_gate_in_time(
    attached: dict[str, Attached],
    make_gate: Callable[..., Gate],
    undisturbed: Gate,
    count: int,
    record: Callable[..., None],
) -> None:
    draw = random.Random(count)
    for number in range(count):
        gate = make_gate(f"run{number}", {role: server.url for role, server in attached.items()})
        process, first = gate.start(_impatient, 1.0), draw.randrange(1, 80)
        wait_for(gate, process, lambda: samples_of(gate) >= first, f"answer {first}")  # noqa: B023
        with stopped(attached["candidate"].process):
            # Three tries of 1 s and 2 s for tokens and prompt, then ten for /health; the rest is the machine's.
            status = gate.wait(process, 3 * 3 + 10 + 300)
        assert status == 4 and "--resume" in gate.said()
        assert gate.finish() == 0, gate.said()
        require_same(gate, undisturbed.run)
    record(
        "a server that is stopped",
        "SIGSTOP in the middle of the run: connections are taken, nothing is answered, /health neither",
        f"{count} times",
        "exit code 4 in time, then the same verdict",
        "nothing",
    )


# -- servers of the gate's own ---------------------------------------------------------------------------------


@pytest.fixture
def served(make_gate: Callable[..., Gate], tmp_path: Path) -> Callable[..., Gate]:
    """A gate that starts its own servers: stand-ins for vLLM, which do as they are told."""
    package = tmp_path / "stand-in" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "main.py").write_text("import sys\nfrom tests.endurance.stand_in_vllm import main\nmain(sys.argv[1:])\n")
    told = tmp_path / "servers.json"
    path = os.pathsep.join((str(tmp_path / "stand-in"), PYTHONPATH))

    def make(name: str = "run", **how: dict[str, object]) -> Gate:
        told.write_text(json.dumps(how))
        return make_gate(name, None, PYTHONPATH=path, QUANTGATE_TEST_SERVERS=str(told))

    return make


def tell(gate: Gate, **how: dict[str, object]) -> None:
    Path(gate.environment["QUANTGATE_TEST_SERVERS"]).write_text(json.dumps(how))


@soak
@pytest.mark.parametrize("role", ["candidate", "reference"])
def test_out_of_memory_at_load_says_so_and_is_gone_on_with(
    served: Callable[..., Gate], undisturbed: Gate, role: str, record: Callable[..., None]
) -> None:
    gate = served(**{role: {"load": "oom"}})
    assert gate.wait(gate.start()) == 4
    assert f"{role} server ended before it was ready: the model does not fit" in gate.said(), gate.said()
    require_no_orphan(gate)
    tell(gate)
    assert gate.finish() == 0, gate.said()
    require_same(gate, undisturbed.run)
    record(
        f"GPU out of memory while the {role} loads",
        "a stand-in for `vllm serve` writes vLLM's traceback and ends; its worker lives on",
        "once",
        "exit code 4 with the way out, then the same verdict",
        "nothing",
    )


@pytest.mark.parametrize("after", [pytest.param(n, marks=soak) for n in (15, 60, 90)])
def test_a_server_that_dies_in_the_middle_is_started_again_by_resume(
    served: Callable[..., Gate], undisturbed: Gate, after: int, record: Callable[..., None]
) -> None:
    gate = served(candidate={"dies_after": after})
    assert gate.wait(gate.start()) == 4
    assert "candidate server" in gate.said() and "--resume" in gate.said(), gate.said()
    require_no_orphan(gate)
    tell(gate)
    assert gate.finish() == 0, gate.said()
    require_same(gate, undisturbed.run)
    record(
        "a server of the gate's own dies",
        f"a stand-in for `vllm serve` ends after {after} answers",
        "once",
        "exit code 4, then the same verdict",
        "nothing",
    )


@soak
def test_a_server_that_never_loads_is_given_up_in_the_stated_time(
    served: Callable[..., Gate], tmp_path: Path, record: Callable[..., None]
) -> None:
    gate = served(reference={"load": "hang"})
    gate.policy = tmp_path / "soon.yaml"
    gate.policy.write_text(POLICY.replace("ready_timeout_seconds: 900", "ready_timeout_seconds: 5"))
    assert gate.wait(gate.start(), 5 + 35 + 60) == 4  # the worker has its fifteen seconds to end, and is killed
    assert "reference server was not ready after 5 s (serving.ready_timeout_seconds)" in gate.said()
    require_no_orphan(gate)
    record(
        "a server hangs while it loads",
        "a stand-in for `vllm serve` that never listens",
        "once",
        "exit code 4 after serving.ready_timeout_seconds",
        "nothing",
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("count", [pytest.param(4, marks=soak)])
def test_a_gate_that_is_hit_takes_its_servers_along(
    served: Callable[..., Gate],
    undisturbed: Gate,
    number: signal.Signals,
    count: int,
    record: Callable[..., None],
) -> None:
    gate, draw, hits = served(), random.Random(number), 0
    for _ in range(count):
        process = gate.start()
        wait_for(gate, process, lambda: any((gate.out / "logs").glob("*.state.json")), "its server")
        process.join(draw.uniform(0, 10))
        send(process, number)
        status = gate.wait(process)
        if status == 0:
            break
        assert status in (4, -number), gate.said()
        hits += 1
        require_no_orphan(gate)  # fifteen seconds for what does not end by itself, and then it is killed
    assert hits
    assert gate.finish() == 0, gate.said()
    require_same(gate, undisturbed.run)
    record(
        f"{number.name} of a gate with servers of its own",
        "at a random moment after its server has started, with a worker that ignores SIGTERM",
        f"{hits} moments",
        "no process left after at most 40 s, then the same verdict",
        "nothing",
    )
