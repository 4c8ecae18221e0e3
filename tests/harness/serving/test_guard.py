"""The guard ends a server and all it started, however the gate ends. Real processes, none of them ours to keep."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.serving import guard as guard_module
from harness.serving.guard import end_group, end_leftovers

pytestmark = pytest.mark.slow  # real processes are started and ended

# The guard with a grace of a tenth of a second instead of fifteen.
GUARD = "import sys; from harness.serving import guard; guard.GRACE_SECONDS = 0.1; sys.exit(guard.main(sys.argv[1:]))"
# A server that ignores SIGTERM, as does the process that it starts; both ids go to a file.
STUBBORN = "trap '' TERM; sleep 60 & echo $$ $! > {pids}.tmp; mv {pids}.tmp {pids}; wait"


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Guards:
    """Starts guards and remembers them, so that a failing test leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "server.state.json"
        self.pids = folder / "pids"
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, cleanup: tuple[str, ...] = (), cpus: str = "") -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", GUARD, str(self.state), cpus, json.dumps(cleanup), "--", *command]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, start_new_session=True)
        self.started.append(process)
        return process

    def start_stubborn(self, **more: Any) -> tuple[subprocess.Popen[bytes], list[int]]:
        process = self.start("sh", "-c", STUBBORN.format(pids=self.pids), **more)
        wait_for(self.pids.exists)
        wait_for(self.state.exists)
        return process, [int(pid) for pid in self.pids.read_text("utf-8").split()]

    def record(self) -> dict[str, Any]:
        def read() -> Any:
            try:
                return json.loads(self.state.read_text("utf-8"))
            except (OSError, ValueError):
                return None

        return dict(wait_for(read))


@pytest.fixture
def guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guards]:
    monkeypatch.setattr(guard_module, "GRACE_SECONDS", 0.1)
    made = Guards(tmp_path)
    yield made
    for process in made.started:
        for pid in [process.pid, *_children(process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        if process.stdin:
            process.stdin.close()
    if made.pids.exists():
        for pid in map(int, made.pids.read_text("utf-8").split()):
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def close(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin
    process.stdin.close()
    return process.wait(20)


def test_closing_the_input_ends_the_server(guards: Guards) -> None:
    process = guards.start("sleep", "60")
    server = guards.record()["server"]["pid"]
    assert not gone(server) and process.poll() is None
    assert close(process) == 0
    assert gone(server) and not guards.state.exists()


def test_a_server_that_ignores_sigterm_is_ended_with_all_it_started(guards: Guards) -> None:
    process, pids = guards.start_stubborn()
    assert len(pids) == 2 and not any(gone(pid) for pid in pids)
    close(process)
    wait_for(lambda: all(gone(pid) for pid in pids))


def test_sigterm_of_the_guard_ends_the_server(guards: Guards) -> None:
    process, pids = guards.start_stubborn()
    time.sleep(0.1)
    wait_for(lambda: _catches(process.pid, signal.SIGTERM))
    process.terminate()
    process.wait(20)
    wait_for(lambda: all(gone(pid) for pid in pids))
    assert not guards.state.exists()


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
    return bool(mask >> (number - 1) & 1)


def test_the_status_of_a_server_that_ends_by_itself_is_kept(guards: Guards) -> None:
    assert guards.start("sh", "-c", "exit 7").wait(20) == 7
    assert not guards.state.exists()
    assert guards.start("true").wait(20) == 0


def test_a_server_that_dies_takes_its_children_with_it(guards: Guards) -> None:
    process = guards.start("sh", "-c", f"sleep 60 & echo $! > {guards.pids}; exit 1")
    process.wait(20)
    (child,) = map(int, guards.pids.read_text("utf-8").split())
    wait_for(lambda: gone(child))


def test_the_cleanup_command_runs_after_the_server(guards: Guards, tmp_path: Path) -> None:
    process, pids = guards.start_stubborn(
        cleanup=("sh", "-c", f"kill -0 $(cat {guards.pids}); echo $? > {tmp_path}/done")
    )
    close(process)
    assert (tmp_path / "done").read_text("utf-8").strip() != "0"  # the server was gone by then
    assert all(gone(pid) for pid in pids)


def test_a_server_gets_the_cores_it_was_given(guards: Guards) -> None:
    first = sorted(os.sched_getaffinity(0))[0]
    guards.start("sleep", "60", cpus=str(first))
    assert os.sched_getaffinity(guards.record()["server"]["pid"]) == {first}


# -- what a killed guard leaves ------------------------------------------------------------------------------


@pytest.fixture
def removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The cleanup of a served container, by an engine that leaves a file."""
    engine = tmp_path / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(f"#!/bin/sh\ntouch {tmp_path}/cleaned\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{engine.parent}{os.pathsep}{os.environ['PATH']}")
    return (str(engine), "rm", "-f", "quantgate-run-candidate")


def test_a_server_whose_guard_was_killed_is_found_and_ended(
    guards: Guards, tmp_path: Path, removal: tuple[str, ...]
) -> None:
    process, pids = guards.start_stubborn(cleanup=removal)
    process.kill()
    process.wait()
    assert not any(gone(pid) for pid in pids)
    assert end_leftovers(guards.state) is True
    wait_for(lambda: all(gone(pid) for pid in pids))
    assert (tmp_path / "cleaned").exists() and not guards.state.exists()
    assert end_leftovers(guards.state) is False


def test_a_guard_that_still_runs_is_ended_with_its_server(guards: Guards) -> None:
    process, pids = guards.start_stubborn()
    wait_for(lambda: _catches(process.pid, signal.SIGTERM))
    assert end_leftovers(guards.state) is True
    assert process.wait(20) == 0
    wait_for(lambda: all(gone(pid) for pid in pids))


def test_another_process_with_the_same_id_is_never_touched(guards: Guards, tmp_path: Path) -> None:
    process = guards.start("sleep", "60")
    record = guards.record()
    for role in ("guard", "server"):
        record[role]["created"] -= 1.0  # an id given again: same number, another start time
    old = tmp_path / "old.state.json"
    old.write_text(json.dumps(record), "utf-8")
    assert end_leftovers(old) is False
    assert not old.exists()
    assert process.poll() is None and not gone(record["server"]["pid"])


def test_what_a_dead_run_left_outside_is_cleaned_up_even_when_its_processes_are_gone(
    tmp_path: Path, removal: tuple[str, ...]
) -> None:
    # A container lives on when the processes that started it were killed.
    ended = subprocess.Popen(["true"])
    created = psutil.Process(ended.pid).create_time()
    ended.wait()
    identity = {"pid": ended.pid, "created": created}
    state = tmp_path / "server.state.json"
    for cleanup in strangers(tmp_path):
        state.write_text(json.dumps({"guard": identity, "server": identity, "cleanup": cleanup}), "utf-8")
        assert end_leftovers(state) is False
        assert not (tmp_path / "cleaned").exists() and not state.exists()
    state.write_text(json.dumps({"guard": identity, "server": identity, "cleanup": removal}), "utf-8")
    assert end_leftovers(state) is False
    assert (tmp_path / "cleaned").exists() and not state.exists()


def strangers(folder: Path) -> list[object]:
    """Commands that a run folder of anybody could hold in the place of a cleanup."""
    mark = f"{folder}/cleaned"
    (folder / "podman").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (folder / "podman").chmod(0o755)
    return [
        ["touch", mark],
        ["sh", "-c", f"touch {mark}", "x"],
        ["docker", "run", "-f", "quantgate-x"],
        ["docker", "rm", "-f", "other"],
        ["docker", "rm", "-f", "-a"],
        [str(folder / "podman"), "exec", "-f", "quantgate-x"],
        [sys.executable, "-c", f"open({mark!r}, 'w')", "quantgate-x"],
        f"touch {mark}",
        [["touch", mark]],
        {"touch": mark},
    ]


ODD_STATES = [
    f'{{"guard": {odd}, "server": {odd}, "cleanup": {odd}}}'
    for odd in (
        "1",
        '"x"',
        "[]",
        "{}",
        '{"pid": "x", "created": 1}',
        '{"pid": -1, "created": 0}',
        f'{{"pid": 1{"0" * 40}}}',
    )
]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"guard": 1}', "7", *ODD_STATES])
def test_a_state_file_that_cannot_be_read_ends_nothing(tmp_path: Path, text: str | None) -> None:
    state = tmp_path / "server.state.json"
    if text is not None:
        state.write_text(text, "utf-8")
    assert end_leftovers(state) is False


def test_a_group_that_is_gone_is_no_error() -> None:
    ended = subprocess.Popen(["true"], start_new_session=True)
    ended.wait()
    end_group(ended.pid, 0.1)
