"""An end to what hangs: time that grows faster than its input is caught without timing anything."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANG_SECONDS = 20
"""Processor time, so that other work on the machine changes nothing. Hostile inputs take a second on a slow machine,
and minutes where time is quadratic."""


class Hang(Exception):
    """An input took too long."""


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise Hang out of a block that takes more than HANG_SECONDS of processor time. Main thread only."""
    before = signal.signal(signal.SIGVTALRM, _hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {HANG_SECONDS} s of processor time")
