"""What can be encoded apart from everything else, and who does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from quantizers.curvature import Curvature
from quantizers.schemes.base import Parts, Scheme
from quantizers.schemes.stacked import StackedScheme


@dataclass(frozen=True)
class Task:
    """A chunk of rows of a tall weight, or a stack of experts: all that its parts depend on, and nothing else."""

    scheme: Scheme
    weights: torch.Tensor
    """[E, O, I], in the basis of the scheme."""
    curvatures: Sequence[Curvature]
    """Of each of the E, in that basis too."""
    shared: int | None = None
    """Tasks with the same number have the same Hessian, whose factors are worth keeping for the next one."""

    def run(self, tick: Callable[[], None]) -> Parts:
        """The parts, with a first dimension E more; `tick` is called after each piece of work.

        Raises:
            HessianError: with the `number` of the Hessian that cannot be used.
        """
        if isinstance(self.scheme, StackedScheme):
            return self.scheme.quantize_stack(self.weights, self.curvatures, tick)
        (weight,), (curvature,) = self.weights, self.curvatures
        return {name: part[None] for name, part in self.scheme.quantize(weight, curvature, tick).items()}


class Workers(ABC):
    """Who runs tasks. What comes of a task does not depend on who runs it, among devices of one kind."""

    kind: str | None = None
    """Of the devices on which tasks run, as `torch.device.type` has it; None: they run where their weights are."""

    @abstractmethod
    def map(self, tasks: Iterable[Task], tick: Callable[[], None]) -> Iterator[Parts]:
        """What comes of each task, in their order; only a few are made ahead of what is taken.

        Raises:
            HessianError: of the task whose turn it is.
            QuantizeError: a worker is lost.
        """

    def close(self) -> None:  # noqa: B027
        """End what was started, if anything was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Here(Workers):
    """This process, one task after the other, where its weights are."""

    def map(self, tasks: Iterable[Task], tick: Callable[[], None]) -> Iterator[Parts]:
        waiting = iter(tasks)
        while True:
            task = next(waiting, None)
            if task is None:
                return
            parts = task.run(tick)
            del task  # the next one is made while this generator waits, and each takes gigabytes
            yield parts
            del parts


HERE = Here()
