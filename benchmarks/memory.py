"""How much memory a benchmark has taken."""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> int:
    """The most MiB that this process has held since its program began.

    Not ru_maxrss, which begins with what the process that started this one held.
    """
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
