"""What a server that the gate started takes of memory: by its log, and by the processes in the guard's state file.

load_bytes       memory of the loaded weights on one GPU, by the server's own log
resident_bytes   main memory of the server's processes, shared pages counted once
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import psutil

from harness.serving.hardware import GIB

LOADED = re.compile(r"Model loading took ([0-9]+(?:\.[0-9]+)?) GiB(?: memory)? and ")
"""vLLM on GPUs, whose two model runners word it differently (0.26: "3.41 GiB and 4.1 seconds"); on CPU it says nothing
of the kind."""


def measure_memory(log: Path) -> dict[str, float]:
    """Each of the above that can be known. `log` is what the server writes; its guard's state file lies beside it."""
    return _loaded(log) | _resident(log.with_suffix(".state.json"))


def _loaded(log: Path) -> dict[str, float]:
    """`load_bytes` of the last server that wrote into this log."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            found = [match[1] for line in lines if (match := LOADED.search(line))]
    except OSError:
        return {}
    return {"load_bytes": round(float(found[-1]) * GIB)} if found else {}


def _resident(state: Path) -> dict[str, float]:
    """`resident_bytes` of the server that a guard's state file names; of one in a container nothing is known."""
    try:
        record = json.loads(state.read_text("utf-8"))
        if record["cleanup"]:
            return {}
        server = psutil.Process(int(record["server"]["pid"]))
        if server.create_time() != record["server"]["created"]:
            return {}
        processes = [server, *server.children(recursive=True)]
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return {}
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # ended meanwhile
            continue
    return {"resident_bytes": total} if total else {}
