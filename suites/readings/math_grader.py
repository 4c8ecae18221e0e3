r"""Whether a final expression equals the gold one, by math-verify, in a process of its own.

Answers are hostile text: over one like 9^{9^{9^9}} sympy computes for hours or fills the memory, inside one call of C
code where no signal of Python's comes through. So a worker process with bounded memory compares, and is ended when it
takes too long.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from suites.readings.equal_expressions import Same, judge

SECONDS = 10
"""So long one comparison may take; those of MATH-500's gold answers take 0.3 s at most, sympy's first use included."""
START = 120
"""Seconds for the worker to start."""
MEMORY = 4 * 2**30
"""Bytes of address space for the worker."""

Worker = tuple[SpawnProcess, Connection]
_lock = threading.Lock()
_worker: Worker | None = None


class GraderError(Exception):
    """Nothing can be said of the model's answer: the gold one cannot be read, or the worker does not start."""


def same_expression(gold: str, answer: str) -> bool:
    r"""Whether `answer` (LaTeX or text) is mathematically `gold` (LaTeX). From any thread; one at a time.

    An answer that cannot be read, or not within `SECONDS` and `MEMORY`, is not the same.

    Raises:
        GraderError: the gold answer cannot be read, or the worker does not start.
    """
    global _worker  # noqa: PLW0603 - one for all suites, started when first needed
    with _lock:
        if _worker is None or not _worker[0].is_alive():
            worker = _start()
            if _ask(worker, "1", "1", START) is None:  # the start does not count
                raise GraderError("the process that compares expressions does not start")
            _worker = worker
        found = _ask(_worker, gold, answer, SECONDS)
        if found is None:
            _worker = None
    if found == "gold":
        raise GraderError(f"the gold answer {gold[:100]!r} cannot be read")
    return found == "same"


def _start() -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _ask(worker: Worker, gold: str, answer: str, seconds: int) -> Same | None:
    """None: no answer in time, and the worker is ended."""
    process, pipe = worker
    try:
        pipe.send((gold, answer, seconds))
        if pipe.poll(seconds + 2):  # the worker's own alarm comes first
            found: Same = pipe.recv()
            return found
    except (EOFError, OSError):  # it has ended
        pass
    process.kill()
    process.join()
    pipe.close()
    return None


def _serve(pipe: Connection) -> None:
    """The worker: answers until the pipe closes. SIGALRM has no handler: the kernel ends the process, even inside C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable()  # math-verify warns of the missing time limit, which is here
    while True:
        try:
            gold, answer, seconds = pipe.recv()
        except EOFError:
            return
        signal.alarm(seconds)
        found = judge(gold, answer)
        signal.alarm(0)
        pipe.send(found)
