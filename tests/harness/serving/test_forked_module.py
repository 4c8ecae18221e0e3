"""A program that is imported once and forked for each run, with real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.serving.forked_module import ForkedModule

PROGRAM = """
import os, sys, time
if __name__ == "__main__":
    import slow_import
    if sys.argv[1:] == ["--help"]:
        print("usage"); sys.exit()
    slow_import.runs += 1
    print("run", slow_import.runs, "of", os.getppid(), "is", os.getpid(), os.environ.get("X"), flush=True)
    exec(sys.argv[1])
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "slow_import.py").write_text("print('imported', file=__import__('sys').stderr, flush=True); runs = 0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return {**os.environ}


def with_program(
    environment: Mapping[str, str], log: Path, body: Callable[[Callable[..., Any]], Coroutine[Any, Any, Any]]
) -> Any:
    """What `body` gives, which gets a function that runs a line of Python in the program."""
    program = ForkedModule("program", ["--help"])

    async def run(code: str, timeout: float = 30, **more: str) -> int:
        return await program.run([code], log, timeout, {**environment, **more})

    async def whole() -> Any:
        try:
            return await body(run)
        finally:
            await program.end()

    return asyncio.run(whole())


def processes(log: Path) -> list[int]:
    """Process ids of the last run: the one that forked and the fork, once both are known."""
    for _ in range(400):
        lines = (
            [line.split() for line in log.read_text().splitlines() if line.startswith("run ")] if log.exists() else []
        )
        if lines and len(lines[-1]) == 7:
            return [int(lines[-1][3]), int(lines[-1][5])]
        time.sleep(0.02)
    raise AssertionError(f"it never ran: {log.read_text()}")


def gone(pids: list[int]) -> bool:
    """Whether all of these end within a few seconds; one that nobody has waited for has ended."""
    for _ in range(200):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_runs_share_the_import_and_no_state(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "a.log"

    async def body(run: Any) -> list[int]:
        return [
            await run("pass", X="one"),
            await run("os.environ['X'] = 'leaks'; sys.exit(7)", X="two"),
            await run("sys.exit('no such thing')"),
            await run("raise ValueError('of the run')"),
            await run("import signal; os.kill(os.getpid(), signal.SIGKILL)"),
            await run("print(sys.stdin.read() == '', sys.argv[1:] == [__import__('sys').argv[1]], __name__)"),
        ]

    assert with_program(environment, log, body) == [0, 7, 1, 1, -9, 0]
    text = log.read_text()
    assert text.count("imported") == 1 and "usage" not in text
    assert text.count("run 1 of ") == 6 and text.count(" None\n") == 4 and " one\n" in text and " two\n" in text
    assert "\nno such thing\n" in text and "\nValueError: of the run\n" in text and "True True __main__" in text
    assert f"\n$ {sys.executable} -m program pass\n" in text
    assert gone(processes(log))


def test_what_takes_too_long_is_ended_and_the_next_run_begins_anew(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "a.log"

    async def body(run: Any) -> int:
        assert await run("pass") == 0
        with pytest.raises(TimeoutError):
            await run("time.sleep(60)", timeout=0.3)
        assert not any(psutil.pid_exists(pid) for pid in processes(log))
        return int(await run("sys.exit(3)"))

    assert with_program(environment, log, body) == 3


def test_a_program_that_cannot_be_imported_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text("raise OSError('half an install')")
    assert with_program(environment, tmp_path / "a.log", lambda run: run("pass")) == 1
    assert "\nOSError: half an install\n" in (tmp_path / "a.log").read_text()


def test_a_run_whose_parent_is_killed_ends_with_it(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    kill = "import signal; os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"
    assert with_program(environment, log, lambda run: run(kill)) == -9
    assert gone(processes(log))


@pytest.mark.parametrize("while_importing", [False, True])
def test_a_killed_gate_leaves_no_process(environment: dict[str, str], tmp_path: Path, while_importing: bool) -> None:
    log, pid = tmp_path / "a.log", tmp_path / "pid"
    if while_importing:
        code = f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
        (tmp_path / "slow_import.py").write_text(code)
    script = (
        "import asyncio, json, os, sys; from pathlib import Path\n"
        "from harness.serving.forked_module import ForkedModule\n"
        "run = ForkedModule('program', ['--help']).run(['time.sleep(60)'], Path(sys.argv[1]), 60, os.environ)\n"
        "asyncio.run(run)"
    )
    gate = subprocess.Popen([sys.executable, "-c", script, str(log)], env=environment)
    if while_importing:
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert gate.poll() is None
            time.sleep(0.02)
    began = [int(pid.read_text())] if while_importing else processes(log)
    gate.kill()
    gate.wait()
    assert gone(began)
