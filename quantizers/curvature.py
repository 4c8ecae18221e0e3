"""The second derivatives that a weight is quantized by, and their factors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

T = TypeVar("T")

LARGEST_DAMPING = 1.0
"""Each failed factorisation multiplies the damping by ten, up to the mean of the diagonal itself."""
FACTORED_BYTES = 256 << 20
"""Of Hessians in float64 that are factored together, each of which takes seven times as much for the while."""


class HessianError(ValueError):
    """The Hessian cannot be inverted, or holds NaN or infinity."""

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number
        """Its place in a stack of Hessians."""


@dataclass(frozen=True)
class Factors:
    """What a sweep needs of a Hessian [I, I] in blocks of d columns; float32. Of a stack of Hessians [E, I, I], both
    have a first dimension more."""

    metric: torch.Tensor
    """R_BB [I/d, d, d]: the error e of block B costs |e R_BB|^2."""
    spread: torch.Tensor
    """R_BB U_B,: as rows [I, I]: what e of block B takes from every later column."""


def factors_of(hessian: torch.Tensor, dimensions: int, damping: float) -> Factors:
    """Factors of a Hessian [I, I], or of each of a stack [E, I, I], in blocks of `dimensions` columns.

    Raises:
        HessianError: as `upper_factors`.
    """
    upper, inverse = upper_factors(hessian, damping)
    size, leading = hessian.shape[-1], hessian.shape[:-2]
    count = size // dimensions
    blocks = torch.arange(count, device=hessian.device)
    metric = upper.view(-1, count, dimensions, count, dimensions)[:, blocks, :, blocks].transpose(0, 1)
    rows = inverse.view(-1, count, dimensions, size)
    spread = torch.bmm(metric.flatten(0, 1), rows.flatten(0, 1)).view(hessian.shape)
    metric = metric.reshape(*leading, count, dimensions, dimensions)
    return Factors(metric.to(torch.float32), spread.to(torch.float32))


def upper_factors(hessian: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """R and its inverse, float64, upper triangular, of a Hessian [I, I] or of each of a stack [E, I, I]: R R^T is the
    Hessian over its mean, plus damping.

    A singular Hessian is damped tenfold until it can be factored, the others of its stack are not.

    Raises:
        HessianError: a Hessian is not finite, or stays singular at the largest damping.
    """
    size = hessian.shape[-1]
    stack = hessian.to(torch.float64).view(-1, size, size)
    diagonal = torch.diagonal(stack, dim1=1, dim2=2)
    mean = torch.stack([row.mean() for row in diagonal])  # one by one: a sum over a stack may round in another way
    broken = torch.nonzero(~torch.isfinite(mean) | (diagonal < 0).any(1)).flatten().tolist()
    if broken:
        raise HessianError("the Hessian has a diagonal that is negative or not finite", broken[0])
    identity = torch.eye(size, dtype=torch.float64, device=hessian.device)
    mean = mean[:, None, None]
    curvature = torch.where(mean > 0, stack / mean, identity)
    flipped, failed = _cholesky(curvature + damping * identity)
    while failed:
        if damping >= LARGEST_DAMPING:
            raise HessianError(
                f"the Hessian stays singular at damping {damping:g}: its calibration is broken", failed[0]
            )
        damping = min(max(damping, 1e-3) * 10, LARGEST_DAMPING)
        flipped[failed], still = _cholesky(curvature[failed] + damping * identity)
        failed = [failed[n] for n in still]
    upper = flipped.flip(1, 2)
    inverse = torch.linalg.solve_triangular(upper, identity, upper=True)
    return upper.view(hessian.shape), inverse.view(hessian.shape)


def _cholesky(damped: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Lower factors of each of `damped` [E, I, I], rows and columns turned about, and the numbers that have none."""
    flipped, failed = torch.linalg.cholesky_ex(damped.flip(1, 2))
    bad = (failed != 0) | ~torch.isfinite(flipped).all(2).all(1)
    return flipped, torch.nonzero(bad).flatten().tolist()


@dataclass
class Curvature:
    """The Hessian of a Linear's inputs in the basis of a scheme, factored once for all the rows that share it."""

    hessian: torch.Tensor
    """2 X X^T [I, I], float32; a factor common to all of it does not matter."""
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def factors(self, dimensions: int, damping: float, order: torch.Tensor | None = None) -> Factors:
        """Its factors in blocks of `dimensions` columns, which come in this `order` [I]; see `factors_of`."""
        key = (dimensions, damping, () if order is None else tuple(order.tolist()))

        def make() -> Factors:
            hessian = self.hessian if order is None else self.hessian[order][:, order]
            return factors_of(hessian, dimensions, damping)

        return self.kept(key, make)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` finds of this Hessian, found once: `key` names it and all that it depends on."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found


def stacked_factors(
    curvatures: Sequence[Curvature], dimensions: int, damping: float, orders: Sequence[torch.Tensor | None]
) -> Factors:
    """The factors of each of several Hessians, stacked; arguments as those of `Curvature.factors`.

    Those of one are kept for its next weight, those of many are not: 256 experts of 2,048 inputs have 4 GiB of them.

    Raises:
        HessianError: with the `number` of the Hessian that cannot be used.
    """
    if len(curvatures) == 1:
        only = curvatures[0].factors(dimensions, damping, orders[0])
        return Factors(only.metric[None], only.spread[None])
    hessians = [
        each.hessian if order is None else each.hessian[order][:, order]
        for each, order in zip(curvatures, orders, strict=True)
    ]
    step = max(1, FACTORED_BYTES // (8 * hessians[0].numel()))
    found = []
    for start in range(0, len(hessians), step):
        try:
            found.append(factors_of(torch.stack(hessians[start : start + step]), dimensions, damping))
        except HessianError as error:
            raise HessianError(str(error), start + error.number) from None
    return Factors(torch.cat([each.metric for each in found]), torch.cat([each.spread for each in found]))


NONE = Curvature(torch.empty(0, 0))
"""For schemes that need none."""
