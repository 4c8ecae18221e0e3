"""Several gates at a time, each in a process of its own with its share of the cores and of each GPU's memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from harness.contract.errors import BadInput, RunFailed
from harness.contract.policy import Policy
from harness.runs.progress import Reporter
from harness.serving.hardware import GPU_SHARE, detect

Task = Callable[..., Any]
"""Something to be done, which takes where it reports to as `reporter`. Another process can be given it, and what comes
of it lies in files."""


def require_jobs(jobs: int, policy: Policy) -> None:
    """Raises BadInput: more jobs than cores, or several of a policy that measures speed on GPUs they would share."""
    machine = detect()
    if jobs > 1 and machine.gpus and "speed" in policy.suites:
        raise BadInput("gates on the same GPUs slow each other down: leave --jobs out, or speed out of the policy")
    if jobs > len(machine.cpus):
        raise BadInput(f"--jobs {jobs} is more than the {len(machine.cpus)} cores of this machine")


def done_in_turn(
    tasks: list[tuple[str, Task, Path]], jobs: int, reporter: Reporter, ready: Callable[[str], bool] = lambda _: True
) -> Iterator[str]:
    """Do tasks (name, what, folder), `jobs` at a time, and yield the name of each that is done. A task that runs beside
    others writes its progress to `folder`/progress.log. An interruption ends all that run.

    `ready` says whether a task may begin: the first one can, and each can once those before it are done. Tasks that
    wait may be taken out of the list meanwhile.

    Raises:
        RunFailed: a process ended without finishing its task.
    """
    if jobs == 1:
        while tasks:
            name, task, _ = tasks.pop(0)
            task(reporter=reporter)
            yield name
        return
    share = 1 / jobs
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.prove.gating", "transformers.models.auto"])  # 5 s a gate
    cores = detect().cpus
    each = len(cores) // jobs
    free = [cores[slot * each : (slot + 1) * each] for slot in range(jobs)]
    running = dict[int, tuple[str, ForkServerProcess, list[int], Path]]()
    try:
        while tasks or running:
            while free and (able := [task for task in tasks if ready(task[0])]):
                tasks.remove(able[0])
                name, task, folder = able[0]
                own = free.pop(0)
                process = context.Process(target=_alone, args=(task, own, share, folder / "progress.log"))
                process.start()
                running[process.sentinel] = name, process, own, folder
            for sentinel in wait(list(running)):
                assert isinstance(sentinel, int)
                name, process, own, folder = running.pop(sentinel)
                process.join()
                free.append(own)
                if process.exitcode:
                    raise RunFailed(f"{name} ended with status {process.exitcode}: {folder / 'progress.log'} says why")
                yield name
    finally:
        for _, process, _, _ in running.values():
            process.terminate()
        for _, process, _, _ in running.values():
            process.join()


def _alone(task: Task, cores: Sequence[int], share: float, log: Path) -> None:
    """In a process of its own: on its cores and its share of each GPU, ended by SIGTERM as by Ctrl-C, servers
    included."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    os.sched_setaffinity(0, cores)
    os.environ[GPU_SHARE] = str(share)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            task(reporter=Reporter())
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
