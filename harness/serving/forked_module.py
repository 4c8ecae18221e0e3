"""A Python program that a suite runs many times beside the gate: imported once, forked for each run.

    python -m harness.serving.forked_module MODULE WARM_UP

That process runs MODULE as `python -m` would, once with the arguments WARM_UP (a JSON list: --help, say) so that it
imports what it needs. Then it forks for each line of JSON on standard input, a socket ({"arguments": [...],
"environment": {...}}), runs MODULE with these in the fork, and answers with a line: the exit status, or minus the
signal. Nothing of one run is there in the next. The kernel ends this process with the gate, and the fork with this
process. Not for modules that start processes of their own: those are for harness/serving/guarded_command.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>: the signal that a process gets when its parent ends."""


@dataclass(frozen=True)
class Forking:
    """The process that forks, and the socket to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class ForkedModule:
    """A module to run. The process that forks is started by the first run and stays until `end`.

    For one run at a time, and for one event loop between two calls of `end`.
    """

    def __init__(self, module: str, warm_up: Sequence[str]) -> None:
        self._module = module
        self._warm_up = list(warm_up)
        self._forking: Forking | None = None

    async def run(self, arguments: Sequence[str], log: Path, timeout: float, environment: Mapping[str, str]) -> int:
        """Run the module and return its exit status; what it writes is appended to `log`, always the same file.

        After a run that was left early the next one imports anew.

        Raises:
            TimeoutError: it took more than `timeout` seconds, importing included, and was ended.
        """
        with log.open("ab") as file:
            file.write(f"\n$ {' '.join([sys.executable, '-m', self._module, *arguments])}\n".encode())
        answer = b""
        try:
            async with asyncio.timeout(timeout):
                forking = self._forking = self._forking or await self._start(log, environment)
                with suppress(ConnectionError):  # it died; its status says how
                    asked = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
                    forking.writer.write(asked.encode() + b"\n")
                    await forking.writer.drain()
                    answer = await forking.reader.readline()
                return int(answer) if answer else await forking.process.wait()
        finally:
            if not answer:
                await self.end()

    async def end(self) -> None:
        """End the process that forks, and its fork; without one nothing happens."""
        forking, self._forking = self._forking, None
        if forking is None:
            return
        with suppress(ProcessLookupError):
            forking.process.terminate()
        await forking.process.wait()
        forking.writer.close()

    async def _start(self, log: Path, environment: Mapping[str, str]) -> Forking:
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as file:
            reader, writer = await asyncio.open_connection(sock=ours)
            process = await asyncio.create_subprocess_exec(  # the last thing: cancelled, it ends what it started
                *(sys.executable, "-m", "harness.serving.forked_module", self._module, json.dumps(self._warm_up)),
                stdin=theirs.fileno(),
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a Ctrl-C is for the gate
            )
        return Forking(process, reader, writer)


def main(module: str, warm_up: Sequence[str]) -> int:
    """Fork for each line of standard input until that closes, or until SIGTERM."""
    _end_with_parent()
    _import(module, warm_up)
    gc.collect()
    gc.freeze()  # forks share these pages as long as no collection of theirs goes through them
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # not before: importing is ended at once
    with open(0, closefd=False) as asked:
        while line := asked.readline():
            os.write(0, f"{_forked(module, json.loads(line))}\n".encode())
    return 0


def _import(module: str, warm_up: Sequence[str]) -> None:
    """Run the module once, and keep what it prints out of the log."""
    kept = os.dup(1)  # not contextlib.redirect_stdout: a logger that is made meanwhile would keep that stream
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    with suppress(SystemExit):
        _run(module, warm_up)
    sys.stdout.flush()
    os.dup2(kept, 1)
    os.close(kept)


def _forked(module: str, asked: Mapping[str, Any]) -> int:
    """Run the module in a fork; returns its exit status. The fork is gone when this is left."""
    parent, pid = os.getpid(), 0
    try:
        pid = os.fork()
        if not pid:
            _be_the_module(parent, module, asked)
        status = os.waitpid(pid, 0)[1]
        pid = 0
        return os.waitstatus_to_exitcode(status)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _be_the_module(parent: int, module: str, asked: Mapping[str, Any]) -> NoReturn:
    """Run the module in this fork and end it, as the interpreter would, but for what its parent left to do at exit."""
    status = 1
    try:
        _end_with_parent()
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.environ.clear()
        os.environ.update(asked["environment"])
        _run(module, asked["arguments"])
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 0xFF)


def _run(module: str, arguments: Sequence[str]) -> None:
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
