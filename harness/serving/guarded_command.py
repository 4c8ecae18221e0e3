"""Commands that a suite runs beside the gate: each ends with it, however it ends."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


async def run_guarded(
    command: Sequence[str],
    log: Path,
    timeout: float,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    cleanup: Sequence[str] = (),
) -> int:
    """Run a command under harness/serving/guard.py and return its exit status; what it writes is appended to `log`.

    `cleanup` is run once it has ended, however it did. Should all of these processes be killed at once, the file
    `<log>.state.json` tells harness.serving.guard.end_leftovers what is left of them.

    Raises:
        TimeoutError: it took more than `timeout` seconds and was ended.
    """
    state = log.resolve().with_name(f"{log.name}.state.json")
    guard = [sys.executable, "-m", "harness.serving.guard", str(state), "", json.dumps(list(cleanup)), "--", *command]
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        child = await asyncio.create_subprocess_exec(
            *guard,
            stdin=asyncio.subprocess.PIPE,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,  # a Ctrl-C is for the gate; the guard ends when the gate does
        )
        try:
            async with asyncio.timeout(timeout):
                return await child.wait()
        finally:
            if child.stdin:
                child.stdin.close()
            await child.wait()
