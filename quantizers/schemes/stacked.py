"""Schemes that quantize weights of one shape in one go, each with a Hessian of its own: the experts of a mixture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from quantizers.curvature import Curvature
from quantizers.schemes.base import Parts, Scheme

STACK_BYTES = {"cpu": 1 << 20, "cuda": 768 << 20}
"""Of weights in float32 that go together: more do not fit a cache; on a GPU 16 experts of 6,144 x 2,048, which with all
that is tried and with their factors take, by arithmetic, eight times as much."""


class StackedScheme(Scheme):
    """A scheme whose one weight is a stack of one."""

    @abstractmethod
    def quantize_stack(self, weights: torch.Tensor, curvatures: Sequence[Curvature], tick: Callable[[], None]) -> Parts:
        """`quantize` of weights [E, O, I], each with its own Hessian; the parts have a first dimension E more.

        Raises:
            HessianError: with the `number` of the Hessian that cannot be used.
        """

    def quantize(self, weight: torch.Tensor, curvature: Curvature, tick: Callable[[], None]) -> Parts:
        return {name: part[0] for name, part in self.quantize_stack(weight[None], [curvature], tick).items()}


def stacks(count: int, weights: int, kind: str) -> list[tuple[int, int]]:
    """First and last plus one of those of `count` matrices of so many `weights` that go together on a `kind` of device:
    stacks of at most STACK_BYTES, nearly equal."""
    if not count:
        return []
    most = max(1, STACK_BYTES[kind] // (4 * max(1, weights)))
    size = -(-count // -(-count // most))
    return [(start, min(start + size, count)) for start in range(0, count, size)]
