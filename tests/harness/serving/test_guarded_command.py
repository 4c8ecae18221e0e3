"""Commands beside the gate, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.serving.guarded_command import run_guarded

SLEEP = [sys.executable, "-c", "import os, time; print('began', os.getpid(), flush=True); time.sleep(60)"]


def run(log: Path, command: list[str], timeout: float = 30, **options: object) -> int:
    return asyncio.run(run_guarded(command, log, timeout, **options))  # type: ignore[arg-type]


def began(log: Path) -> int:
    """Process id of SLEEP, once it runs."""
    for _ in range(200):
        words = log.read_text().split("\nbegan ") if log.exists() else []
        if len(words) > 1 and words[-1].endswith("\n"):
            return int(words[-1])
        time.sleep(0.05)
    raise AssertionError(f"it never began: {log.read_text()}")


def test_status_output_folder_and_environment(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    code = "import os, sys; print(os.getcwd(), os.environ['X']); sys.exit(7)"
    environment = {**os.environ, "X": "seven"}
    assert run(log, [sys.executable, "-c", code], environment=environment, folder=tmp_path) == 7
    assert f"{tmp_path} seven" in log.read_text()
    assert not (tmp_path / "a.log.state.json").exists()


@pytest.mark.slow
def test_what_takes_too_long_is_ended_and_cleaned_up(tmp_path: Path) -> None:
    log, mark = tmp_path / "a.log", tmp_path / "cleaned"
    with pytest.raises(TimeoutError):
        run(log, SLEEP, timeout=1.5, cleanup=["touch", str(mark)])
    assert not psutil.pid_exists(began(log)) and mark.exists()


def test_cleaning_up_follows_every_end(tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    assert run(tmp_path / "a.log", ["true"], cleanup=["touch", str(mark)]) == 0
    assert mark.exists()


def test_a_cancelled_task_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "a.log"

    async def cancel() -> None:
        task = asyncio.create_task(run_guarded(SLEEP, log, 60))
        await asyncio.to_thread(began, log)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert not psutil.pid_exists(began(log))


def test_a_killed_gate_takes_the_command_with_it(tmp_path: Path) -> None:
    log, mark = tmp_path / "a.log", tmp_path / "cleaned"
    script = (
        "import asyncio, sys, json; from pathlib import Path; from harness.serving.guarded_command import run_guarded\n"
    )
    script += "command, log, mark = json.loads(sys.argv[1])\n"
    script += "asyncio.run(run_guarded(command, Path(log), 60, cleanup=['touch', mark]))"
    gate = subprocess.Popen([sys.executable, "-c", script, json.dumps([SLEEP, str(log), str(mark)])])
    child = began(log)
    gate.send_signal(signal.SIGKILL)
    gate.wait()
    for _ in range(200):
        if mark.exists() and not psutil.pid_exists(child):
            return
        time.sleep(0.05)
    raise AssertionError("the command outlived the gate")
