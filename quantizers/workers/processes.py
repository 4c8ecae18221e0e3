"""A process for each GPU of this host: CUDA graphs are captured, and only one thread of a process may do that.

Tensors travel in shared memory, which is freed when nobody holds it any more, even if a process is killed.
"""

from __future__ import annotations

import shutil
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
import torch.multiprocessing

from quantizers.checkpoint import one_line
from quantizers.curvature import HessianError
from quantizers.errors import QuantizeError
from quantizers.schemes.base import Parts
from quantizers.workers.spread import Runner, Spread, packed
from quantizers.workers.tasks import Task

SHARED_MEMORY = "/dev/shm"


@dataclass(eq=False)
class _Worker:
    device: str
    process: BaseProcess
    connection: Connection
    tasks: int = 0
    """That it has been sent, and whose parts were not taken yet."""

    def lost(self) -> QuantizeError:
        """How it ended, in one line."""
        self.process.join(5)
        code = self.process.exitcode
        ended = f"exit code {code}" if code is None or code >= 0 else f"killed by {signal.Signals(-code).name}"
        likely = "out of memory is likely: make room" if code == -signal.SIGKILL else "what it wrote stands above"
        return QuantizeError(
            f"the worker process on {self.device} died ({ended}; {likely}): nothing is half-written, and the same "
            "command goes on at the unfinished layer"
        )


class Processes(Spread[_Worker]):
    """A process for each of several devices, started when there are tasks for more than one."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = list(devices)
        self.kind = torch.device(devices[0]).type
        self.workers = len(self.devices)
        self._started: list[_Worker] = []

    def _send(self, task: Task) -> _Worker:
        if not self._started:
            self._start()
        worker = min(self._started, key=lambda it: it.tasks)
        _require_room(task, self.workers)
        try:
            worker.connection.send(packed(task, _shared))
        except (OSError, EOFError):
            raise worker.lost() from None
        worker.tasks += 1
        return worker

    def _receive(self, sent: _Worker) -> Parts:
        ready = wait([sent.connection, *(worker.process.sentinel for worker in self._started)])
        for worker in self._started:
            if worker.process.sentinel in ready:
                raise worker.lost()
        try:
            answer = sent.connection.recv()
        except (OSError, EOFError):
            raise sent.lost() from None
        sent.tasks -= 1
        if isinstance(answer, Exception):
            raise answer
        return {name: part.clone() for name, part in answer.items()}

    def _start(self) -> None:
        if self.kind == "cuda":
            torch.cuda.empty_cache()  # one of them shares its GPU with this process
        context = torch.multiprocessing.get_context("spawn")
        for device in self.devices:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, device, torch.get_num_threads()), daemon=True)
            process.start()
            theirs.close()
            self._started.append(_Worker(device, process, ours))

    def close(self) -> None:
        for worker in self._started:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._started:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
        self._started = []


def _serve(connection: Connection, device: str, threads: int) -> None:
    """A worker's process: tasks come in, parts or an error go out, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    runner = Runner(device, threads)
    while True:
        answer: Parts | Exception
        try:
            task = connection.recv()
        except (OSError, EOFError):
            return
        try:
            found = runner.run(task)
            answer = {name: _shared(part.shape, part.dtype).copy_(part) for name, part in found.items()}
            del found
        except HessianError as error:
            answer = error
        except torch.OutOfMemoryError as error:
            answer = QuantizeError(f"{device} has too little memory ({one_line(error)}): close what else runs on it")
        except Exception:
            answer = RuntimeError(f"the worker process on {device} failed:\n{traceback.format_exc()}")
        del task
        try:
            connection.send(answer)
        except OSError:
            return
        del answer


def _shared(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor that another process can have too."""
    storage = torch.UntypedStorage._new_shared(max(1, shape.numel() * dtype.itemsize))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]


def _require_room(task: Task, workers: int) -> None:
    """Raises QuantizeError where the shared memory does not take a task: the kernel would end this process."""
    needed = 2 * task.weights.nbytes + sum(curvature.hessian.nbytes for curvature in task.curvatures)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise QuantizeError(
            f"{SHARED_MEMORY} has {free >> 20} MiB left, and a task for one of {workers} GPUs takes {needed >> 20}: "
            "start the container with --ipc=host or a larger --shm-size, or keep to one GPU with --device cuda:0"
        )
