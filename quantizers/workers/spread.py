"""Tasks spread over several workers: what all ways to have workers share."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

from quantizers.curvature import NONE, Curvature
from quantizers.schemes.base import Parts, Scheme
from quantizers.workers.tasks import HERE, Task, Workers

AHEAD = 2
"""Tasks that a worker has at a time: it goes on with the second while the parts of the first are taken from it."""

Packed = tuple[Scheme, torch.Tensor, torch.Tensor, int | None]
"""A task as it travels: scheme, weights [E, O, I], Hessians [E, I, I], and the number of the one Hessian of several."""
Sent = TypeVar("Sent")


class Spread(Workers, Generic[Sent]):
    """Each task goes to the worker with the fewest tasks; they come back in order."""

    workers: int
    """How many there are."""

    def map(self, tasks: Iterable[Task], tick: Callable[[], None]) -> Iterator[Parts]:
        waiting, sent = iter(tasks), deque[Sent]()
        ahead = deque(itertools.islice(waiting, 2))
        if len(ahead) == 1 and self.kind == ahead[0].weights.device.type:
            yield from HERE.map(ahead, tick)  # one task alone is as fast here, and nothing travels
            return
        try:
            while True:
                while len(sent) < AHEAD * self.workers:
                    task = ahead.popleft() if ahead else next(waiting, None)
                    if task is None:
                        break
                    sent.append(self._send(task))
                    del task
                if not sent:
                    return
                parts = self._receive(sent.popleft())
                tick()
                yield parts
        finally:
            if sent:  # something is wrong: what is under way is nobody's any more
                self.close()

    @abstractmethod
    def _send(self, task: Task) -> Sent:
        """Give a task to a worker; returns what it is known by."""

    @abstractmethod
    def _receive(self, sent: Sent) -> Parts:
        """What came of a task, on the CPU. Those of one worker are asked for in the order in which they were sent."""


class Runner:
    """What a worker does with tasks: it remembers the factors of the last Hessian that several have."""

    def __init__(self, device: str, threads: int) -> None:
        """`threads` are those of the process that sends: sums may be rounded otherwise by another number."""
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # CUDA graphs are captured on the current device
        self._number: int | None = None
        self._curvature = NONE

    def run(self, packed: Packed) -> Parts:
        """The parts of a task, on the CPU. Raises HessianError as `Task.run`."""
        scheme, weights, hessians, shared = packed
        if shared is None or shared != self._number:
            curvatures: Sequence[Curvature] = [Curvature(hessian) for hessian in hessians.to(self.device)]
            self._number, self._curvature = shared, NONE if shared is None else curvatures[0]
        else:
            curvatures = [self._curvature]
        parts = Task(scheme, weights.to(self.device), curvatures).run(lambda: None)
        return {name: part.cpu() for name, part in parts.items()}


def packed(task: Task, place: Callable[[torch.Size, torch.dtype], torch.Tensor]) -> Packed:
    """The task as it travels, in tensors on the CPU that `place` makes."""
    weights = place(task.weights.shape, task.weights.dtype).copy_(task.weights)
    hessians = [curvature.hessian for curvature in task.curvatures]
    stacked = place(torch.Size([len(hessians), *hessians[0].shape]), hessians[0].dtype)
    for row, hessian in zip(stacked, hessians, strict=True):
        row.copy_(hessian)
    return task.scheme, weights, stacked, task.shared
