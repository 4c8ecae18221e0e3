"""The second derivatives that a weight is quantized by, and their factors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

LARGEST_DAMPING = 1.0
"""Each failed factorisation multiplies the damping by ten, up to the mean of the diagonal itself."""


class HessianError(ValueError):
    """The Hessian cannot be inverted, or holds NaN or infinity."""


@dataclass(frozen=True)
class Factors:
    """What a sweep needs of a Hessian [I, I] in blocks of d columns; float32."""

    metric: torch.Tensor
    """R_BB [I/d, d, d]: the error e of block B costs |e R_BB|^2."""
    spread: torch.Tensor
    """R_BB U_B,: as rows [I, I]: what e of block B takes from every later column."""


def factors_of(hessian: torch.Tensor, dimensions: int, damping: float) -> Factors:
    """Factors of a Hessian [I, I] in blocks of `dimensions` columns.

    Raises:
        HessianError: as `upper_factors`.
    """
    upper, inverse = upper_factors(hessian, damping)
    size = len(hessian)
    blocks = torch.arange(size // dimensions, device=hessian.device)
    metric = upper.view(len(blocks), dimensions, len(blocks), dimensions)[blocks, :, blocks]
    spread = torch.bmm(metric, inverse.view(len(blocks), dimensions, size)).view(size, size)
    return Factors(metric.to(torch.float32), spread.to(torch.float32))


def upper_factors(hessian: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """R and its inverse, float64 [I, I], upper triangular: R R^T is the Hessian over its mean, plus damping.

    A singular Hessian is damped tenfold until it can be factored.

    Raises:
        HessianError: the Hessian is not finite, or stays singular at the largest damping.
    """
    size = len(hessian)
    curvature = hessian.to(torch.float64)
    mean = torch.diagonal(curvature).mean()
    if not bool(torch.isfinite(mean)) or bool((torch.diagonal(curvature) < 0).any()):
        raise HessianError("the Hessian has a diagonal that is negative or not finite")
    identity = torch.eye(size, dtype=torch.float64, device=hessian.device)
    curvature = curvature / mean if bool(mean > 0) else identity
    while True:
        flipped, failed = torch.linalg.cholesky_ex((curvature + damping * identity).flip(0, 1))
        if not failed.item() and bool(torch.isfinite(flipped).all()):
            upper = flipped.flip(0, 1)
            return upper, torch.linalg.solve_triangular(upper, identity, upper=True)
        if damping >= LARGEST_DAMPING:
            raise HessianError(f"the Hessian stays singular at damping {damping:g}: its calibration is broken")
        damping = min(max(damping, 1e-3) * 10, LARGEST_DAMPING)


@dataclass
class Curvature:
    """The Hessian of a Linear's inputs in the basis of a scheme, factored once for all the rows that share it."""

    hessian: torch.Tensor
    """2 X X^T [I, I], float32; a factor common to all of it does not matter."""
    _factors: dict[tuple[int, float, tuple[int, ...]], Factors] = field(default_factory=dict, repr=False)

    def factors(self, dimensions: int, damping: float, order: torch.Tensor | None = None) -> Factors:
        """Its factors in blocks of `dimensions` columns, which come in this `order` [I]; see `factors_of`."""
        key = (dimensions, damping, () if order is None else tuple(order.tolist()))
        if key not in self._factors:
            hessian = self.hessian if order is None else self.hessian[order][:, order]
            self._factors[key] = factors_of(hessian, dimensions, damping)
        return self._factors[key]


NONE = Curvature(torch.empty(0, 0))
"""For schemes that need none."""
