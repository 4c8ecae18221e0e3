"""Schemes that quantize weights of one shape in one go, each with a Hessian of its own: the experts of a mixture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from quantizers.curvature import Curvature, HessianError
from quantizers.schemes.base import Parts, Scheme, require_one_shape

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

    def quantize_each(
        self, weights: Sequence[torch.Tensor], curvatures: Sequence[Curvature], tick: Callable[[], None]
    ) -> list[Parts]:
        require_one_shape(weights, curvatures)
        found: list[Parts] = []
        for start, stop in stacks(weights):
            try:
                parts = self.quantize_stack(torch.stack(list(weights[start:stop])), curvatures[start:stop], tick)
            except HessianError as error:
                number = start + error.number
                raise HessianError(f"weight {number + 1} of {len(weights)}: {error}", number) from None
            found += [{name: part[n] for name, part in parts.items()} for n in range(stop - start)]
        return found


def stacks(weights: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """First and last plus one of the weights that go together: stacks of at most STACK_BYTES, nearly equal."""
    if not weights:
        return []
    most = max(1, STACK_BYTES[weights[0].device.type] // (4 * max(1, weights[0].numel())))
    count = -(-len(weights) // most)
    size = -(-len(weights) // count)
    return [(start, min(start + size, len(weights))) for start in range(0, len(weights), size)]
