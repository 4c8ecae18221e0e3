"""Weights of one shape with a Hessian each, quantized in stacks: many small operations become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from quantizers.curvature import Curvature, HessianError
from quantizers.schemes.base import Parts, Scheme
from quantizers.schemes.stacked import StackedScheme, stacks
from quantizers.tall import turned_hessian
from quantizers.workers.tasks import HERE, Task, Workers


def quantize_each(
    scheme: Scheme,
    weights: Sequence[torch.Tensor],
    hessians: Sequence[torch.Tensor],
    tick: Callable[[], None],
    workers: Workers = HERE,
    *,
    turned: bool = False,
) -> Iterator[Parts]:
    """The parts of each of `weights` [O, I], one after the other; none is held longer than it takes.

    They are what `Scheme.quantize` finds of each alone, but for rounding.

    Args:
        hessians: of each [I, I].
        workers: who encodes the stacks.
        turned: are the weights (not the Hessians) in the basis of the scheme already?

    Raises:
        ValueError: shapes that differ, or not one Hessian [I, I] for each weight.
        HessianError: a Hessian cannot be used; its `number` says which.
    """
    _require_one_shape(weights, hessians)
    if not weights:
        return
    if isinstance(scheme, StackedScheme):
        bounds = stacks(len(weights), weights[0].numel(), workers.kind or weights[0].device.type)
    else:
        bounds = [(number, number + 1) for number in range(len(weights))]

    def tasks() -> Iterator[Task]:
        for start, stop in bounds:
            stack = torch.empty(stop - start, *weights[0].shape, device=weights[0].device)
            for place, weight in zip(stack, weights[start:stop], strict=True):
                place.copy_(weight if turned else scheme.turn(weight.float()))
            yield Task(scheme, stack, [Curvature(turned_hessian(scheme, each)) for each in hessians[start:stop]])
            del stack

    found = workers.map(tasks(), tick)
    for start, stop in bounds:
        try:
            parts = next(found)
        except HessianError as error:
            number = start + error.number
            raise HessianError(f"weight {number + 1} of {len(weights)}: {error}", number) from None
        for place in range(stop - start):
            yield {name: part[place] for name, part in parts.items()}
        del parts


def _require_one_shape(weights: Sequence[torch.Tensor], hessians: Sequence[torch.Tensor]) -> None:
    if len(weights) != len(hessians):
        raise ValueError(f"{len(weights)} weights need as many Hessians, not {len(hessians)}")
    for number, (weight, hessian) in enumerate(zip(weights, hessians, strict=True), start=1):
        if weight.ndim != 2 or weight.shape != weights[0].shape:
            raise ValueError(f"weight {number} is {list(weight.shape)}, the first is {list(weights[0].shape)}")
        if tuple(hessian.shape) != (weight.shape[1], weight.shape[1]):
            raise ValueError(f"weight {number} is {list(weight.shape)}, its Hessian {list(hessian.shape)}")
