"""The gate itself killed, told to end, or interrupted at random moments: what is stored stays, and --resume goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest
from fake_server import FakeServer

from harness.contract.samples import Role
from tests.endurance.gates import ROOT, Gate, require_no_orphan, require_same, samples_of, send, wait_for

Good = dict[Role, FakeServer]
pytestmark = pytest.mark.slow
soak = pytest.mark.soak
SAMPLES = 124
"""Of a whole run."""
HITS_A_RUN = 5
"""A run folder is hit so often, and then finished."""


def urls(good: Good) -> dict[str, str]:
    return {role: server.url for role, server in good.items()}


def stage(gate: Gate) -> str:
    """Where a run was when it was hit."""
    if not gate.run.manifest_path.exists():
        return "before the manifest"
    if not samples_of(gate):
        return "items and parity"
    if not (gate.out / "verdict.json").exists():
        return "questions"
    return "report"


def whole_lines(gate: Gate) -> dict[str, bytes]:
    found = {}
    for path in (gate.out / "samples").glob("*.jsonl"):
        data = path.read_bytes()
        found[path.name] = data[: data.rfind(b"\n") + 1]
    return found


def moment(gate: Gate, draw: random.Random) -> Callable[[], bool]:
    """A random moment of what is left of a run: while it starts, at an answer that is to come, or when it is judged."""
    part = draw.random()
    if part < 0.15:
        until = time.monotonic() + draw.uniform(0, 4)
        return lambda: time.monotonic() > until
    if part < 0.85:
        target = draw.randrange(min(samples_of(gate), SAMPLES - 1), SAMPLES) + 1
        return lambda: samples_of(gate) >= target
    name = draw.choice(("verdict.json", "report", "report/index.html"))
    return lambda: samples_of(gate) >= SAMPLES and (gate.out / name).exists()


def hit(gate: Gate, numbers: list[signal.Signals], draw: random.Random) -> str | None:
    """Start or resume, send signals at a random moment; the stage that was hit, None when the gate was through."""
    said = gate.log.stat().st_size if gate.log.exists() else 0
    process, reached = gate.start(), moment(gate, draw)
    wait_for(gate, process, lambda: gate.log.exists() and gate.log.stat().st_size > said, "its first word")
    while process.exitcode is None and not reached():
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.1))
    for number in numbers:
        send(process, number)
        time.sleep(0.05)
    status = gate.wait(process)
    if status in (0, 1, 2):
        return None
    assert status == (-signal.SIGKILL if numbers[0] == signal.SIGKILL else 4), f"exit code {status}:\n{gate.said()}"
    require_no_orphan(gate)
    return stage(gate)


SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "Ctrl-C": [signal.SIGINT],
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("SIGKILL", 1), ("SIGTERM", 1)),
        *(pytest.param(name, 20, marks=soak) for name in ("SIGKILL", "SIGTERM", "Ctrl-C")),
        pytest.param("Ctrl-C twice", 5, marks=soak),
    ],
)
def test_a_gate_that_is_hit_at_random_moments_ends_as_one_that_is_not(
    good: Good, make_gate: Callable[..., Gate], undisturbed: Gate, name: str, count: int, record: Callable[..., None]
) -> None:
    draw = random.Random(f"{name} {count}")
    hits, folders = Counter[str](), 0
    while sum(hits.values()) < count:
        gate = make_gate(f"run{folders}", urls(good))
        folders += 1
        assert folders <= 2 * count + 2, f"{count} moments were not hit: {hits}"
        for _ in range(min(HITS_A_RUN, count - sum(hits.values()))):
            before = whole_lines(gate)
            where = hit(gate, SIGNALS[name], draw)
            if where is None:
                break
            hits[where] += 1
            after = whole_lines(gate)
            assert all(after[path].startswith(data) for path, data in before.items()), "a stored sample was lost"
        assert gate.finish() == 0, gate.said()
        require_same(gate, undisturbed.run)
    places = ", ".join(f"{where} {times}" for where, times in sorted(hits.items()))
    record(
        f"{name} of the gate",
        "signal at a random moment, up to five in one run, then --resume",
        f"{sum(hits.values())} moments in {folders} runs ({places})",
        "verdict of the undisturbed run each time" if name == "SIGKILL" else "exit code 4, then that verdict each time",
        "nothing",
    )


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize("count", [pytest.param(2, marks=soak)])
def test_the_command_as_a_user_starts_it_is_hit_while_it_loads(
    good: Good, make_gate: Callable[..., Gate], undisturbed: Gate, name: str, count: int, record: Callable[..., None]
) -> None:
    gate, (number,) = make_gate("run", urls(good)), SIGNALS[name]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))
    environment = {**os.environ, **gate.environment, "PYTHONPATH": path}
    draw, statuses = random.Random(name), []
    for _ in range(count):
        with gate.log.open("ab") as log:
            command = [sys.executable, "-m", "harness", *gate.arguments()]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        gate.sessions.append(process.pid)
        time.sleep(draw.uniform(0.5, 12))
        process.send_signal(number)
        statuses.append(process.wait(120))
        assert statuses[-1] in (4, -number, 0), gate.said()
        require_no_orphan(gate)
    assert gate.finish() == 0, gate.said()
    require_same(gate, undisturbed.run)
    record(
        f"{name} of `python -m harness gate`",
        "signal in its first twelve seconds, most of which it loads",
        f"{count} moments",
        f"exit codes {', '.join(map(str, statuses))}, then the verdict of the undisturbed run",
        "nothing",
    )
