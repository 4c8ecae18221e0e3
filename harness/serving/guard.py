"""Runs one server, or another command, so that it ends when the gate does, however the gate ends.

    python -m harness.serving.guard STATE.json CPUS CLEANUP -- COMMAND...

The gate holds this process's standard input. When it closes (the gate is done, was interrupted or killed), or on
SIGTERM, the server's whole process group is ended and CLEANUP (a JSON list, may be empty) is run. STATE.json says
which processes these are, so that a later gate can find them should this process be killed too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from harness.contract.whole_files import write_whole

GRACE_SECONDS = 15.0
CONTAINERS = "harness.serving.containers"
"""The module that removes the containers of a folder."""


def main(arguments: list[str]) -> int:
    """Run the command until it ends or standard input closes. Returns its exit status, 0 when it was asked to end."""
    split = arguments.index("--")
    state, cpus, cleanup = arguments[:split]
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    server = subprocess.Popen(arguments[split + 1 :], stdin=subprocess.DEVNULL, start_new_session=True)
    record = {"guard": _identity(os.getpid()), "server": _identity(server.pid), "cleanup": json.loads(cleanup)}
    write_whole(Path(state), json.dumps(record))  # nothing could be ended by a torn file

    ended, asked_by_signal = threading.Event(), []
    # Not ended.set(): a handler runs inside ended.wait() and would wait for a lock that this thread holds.
    signal.signal(signal.SIGTERM, lambda *_: asked_by_signal.append(True))
    for wait in (_input_closes, server.wait):
        threading.Thread(target=_then_set, args=(wait, ended), daemon=True).start()
    while not asked_by_signal and not ended.wait(0.2):
        pass
    asked = server.poll() is None
    end_group(server.pid, GRACE_SECONDS)
    status = server.wait()
    if record["cleanup"]:
        subprocess.run(record["cleanup"], stdin=subprocess.DEVNULL, check=False)
    Path(state).unlink(missing_ok=True)
    return 0 if asked else status


def _input_closes() -> None:
    # Not sys.stdin: Python aborts at exit when a thread is inside its buffer.
    while os.read(0, 65536):
        pass


def _then_set(wait: Callable[[], object], event: threading.Event) -> None:
    wait()
    event.set()


def end_group(group: int, grace: float) -> None:
    """End a process group: SIGTERM, then SIGKILL for what is left after `grace` seconds."""
    members = [p for p in psutil.process_iter() if _group_of(p) == group]
    for sig, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(group, sig)
        except ProcessLookupError:
            return
        members = psutil.wait_procs(members, timeout=patience)[1]


def end_leftovers(state: Path) -> bool:
    """End the guard and server that a dead run left behind. Returns whether anything was still running.

    A process is ours only when its id and its start time are those in the state file. The file lies in a run folder,
    which may be anybody's: of its cleanup only what removes containers of ours is run.
    """
    try:
        record = json.loads(state.read_text("utf-8"))
        guard, server, cleanup = record["guard"], record["server"], record["cleanup"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    found = False
    if _runs(guard):
        found = True
        os.kill(guard["pid"], signal.SIGTERM)
        psutil.wait_procs([psutil.Process(guard["pid"])] if psutil.pid_exists(guard["pid"]) else [], GRACE_SECONDS + 10)
    if _runs(server):
        found = True
        end_group(server["pid"], GRACE_SECONDS)
    if command := _removal(cleanup):  # even when nothing is found: a container outlives what started it
        with contextlib.suppress(OSError):
            subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    state.unlink(missing_ok=True)
    return found


def _removal(cleanup: object) -> list[str]:
    """A stored cleanup as a command, if it is one that this program writes (flags.py, containers.py); else nothing."""
    words = cleanup if isinstance(cleanup, list) and all(isinstance(word, str) for word in cleanup) else []
    if len(words) != 4 or words[3].startswith("-"):
        return []
    if words[1:3] == ["-m", CONTAINERS]:
        return [sys.executable, *words[1:]]
    engine = shutil.which(Path(words[0]).name) if Path(words[0]).name in ("docker", "podman") else None
    return [engine, *words[1:]] if engine and words[1:3] == ["rm", "-f"] and words[3].startswith("quantgate-") else []


def _identity(pid: int) -> dict[str, float]:
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def _runs(identity: dict[str, float]) -> bool:
    try:
        process = psutil.Process(int(identity["pid"]))
        return process.create_time() == identity["created"] and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, LookupError, TypeError, ValueError, OverflowError):
        return False


def _group_of(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return -1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
