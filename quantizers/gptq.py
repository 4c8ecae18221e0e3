"""GPTQ: round the columns of a weight one by one, and let the columns still to come absorb each error.

Method: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers", 2022, arXiv 2210.17323, Algorithm 1: blockwise lazy updates and the Cholesky form
of the inverse Hessian. Column order and scales are those known as "static" act-order: columns are swept by
descending diag(H), while scales belong to groups of neighbouring columns and are fixed before the sweep, so
that the stored codes need no permutation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from quantizers.curvature import LARGEST_DAMPING, HessianError
from quantizers.sweep import subtract_outer, subtract_product

# Below this a weight is nothing in bf16 arithmetic, and a scale would start to underflow.
SMALLEST_SCALE = 1e-10
# Rows are searched in pieces of about this many weights, which keeps the temporaries in the cache.
CHUNK_WEIGHTS = 1 << 18
# Below this many weights torch runs an operation on one thread. The sweep has very many tiny operations, and
# waking a second thread for each makes it ten times slower on a machine that is busy with something else.
SERIAL_WEIGHTS = 1 << 15
LARGEST_BLOCK = 128


@dataclass(frozen=True)
class GPTQArgs:
    """How to quantize one weight."""

    group_size: int
    """Neighbouring input columns that share one scale; divides I."""
    bits: int
    """Bits of a signed code."""
    damping: float = 0.01
    """Added to diag(H), in units of its mean (the paper's section 3.3)."""
    block: int | None = None
    """Columns per lazy update (None: what is fast); changes speed, not the method."""
    steps: int = 24
    """Scales tried for each group."""
    smallest_ratio: float = 0.4
    """The smallest scale tried, in units of the one that clips nothing."""


def gptq(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    args: GPTQArgs,
    tick: Callable[[], None] | None = None,
    ordered: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize `weight` [O, I] so that the H-weighted error tr((W-Q) H (W-Q)^T) is small.

    `hessian` is 2 X X^T [I, I] over the inputs X of the layer; a factor common to all of it does not matter.
    A column that no input ever reached (H_jj = 0) is rounded to nearest: it neither gives nor takes an
    error. Returns int8 codes [O, I] and bf16 scales [O, I/group_size], in the column order of `weight`; the
    quantized weight is codes * scales. `tick`, if given, is called after each piece of work. `ordered`
    is what `ordered_factor` found, if it is known already. Equal inputs give equal bytes on one machine with
    one number of threads.

    Raises:
        ValueError: shapes that do not fit, a weight that is not finite.
        HessianError: H is not finite or stays singular at the largest damping.
    """
    _check(weight, hessian, args)
    order, factor = ordered or ordered_factor(hessian, args.damping)
    scales = search_scales(weight.detach().to(torch.float32), args, torch.diagonal(hessian).to(torch.float32), tick)
    rows, columns = weight.shape
    work = weight.detach().to(torch.float32)
    # One row per column of the weight: the sweep then reads and writes contiguous memory.
    work = work.t()[order].contiguous()
    group_of = order // args.group_size
    scale_rows = scales.t().to(torch.float32).contiguous()
    codes = torch.empty(columns, rows, dtype=torch.int8, device=weight.device)
    low, high = _range(args.bits)

    width = args.block or _block(rows, weight.device)
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        block, triangle = work[start:stop], factor[start:stop, start:stop]
        errors = torch.empty_like(block)
        diagonal = torch.diagonal(triangle).tolist()
        groups = group_of[start:stop].tolist()
        for i in range(stop - start):
            scale = scale_rows[groups[i]]
            code = torch.div(block[i], scale).round_().clamp_(low, high)
            codes[start + i] = code
            torch.sub(block[i], code.mul_(scale), out=errors[i])
            errors[i].div_(diagonal[i])
            block[i + 1 :].addr_(triangle[i, i + 1 :], errors[i], alpha=-1)
        work[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)
        if tick is not None:
            tick()

    unordered = torch.empty_like(codes)
    unordered[order] = codes
    return unordered.t().contiguous(), scales


def gptq_each(
    weights: torch.Tensor, hessians: Sequence[torch.Tensor], args: GPTQArgs, tick: Callable[[], None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """`gptq` of weights [E, O, I], each with the Hessian [I, I] of its own: codes [E, O, I], scales [E, O, I/g].

    The columns of all of them are swept side by side: as many operations as for one.

    Raises:
        ValueError, HessianError: as `gptq`; the latter with the `number` of the Hessian.
    """
    factors, found = [], []
    for number, (weight, hessian) in enumerate(zip(weights, hessians, strict=True)):
        _check(weight, hessian, args)
        try:
            factors.append(ordered_factor(hessian, args.damping))
        except HessianError as error:
            raise HessianError(str(error), number) from None
        found.append(search_scales(weight, args, torch.diagonal(hessian).to(torch.float32), tick))
    order, factor = (torch.stack(parts) for parts in zip(*factors, strict=True))
    scales = torch.stack(found)
    count, rows, columns = weights.shape
    work = weights.to(torch.float32).transpose(1, 2)
    experts = torch.arange(count, device=weights.device)[:, None]
    work, group_of = work[experts, order], order // args.group_size
    diagonal = torch.diagonal(factor, dim1=1, dim2=2)
    scale_rows = scales.transpose(1, 2).to(torch.float32)
    codes = torch.empty(count, columns, rows, dtype=torch.int8, device=weights.device)
    low, high = _range(args.bits)
    width = args.block or _block(count * rows, weights.device)
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        block, triangle = work[:, start:stop], factor[:, start:stop, start:stop]
        errors, scale = torch.empty_like(block), scale_rows[experts, group_of[:, start:stop]]
        for i in range(stop - start):
            code = torch.div(block[:, i], scale[:, i]).round_().clamp_(low, high)
            codes[:, start + i] = code
            torch.sub(block[:, i], code.mul_(scale[:, i]), out=errors[:, i])
            errors[:, i] /= diagonal[:, start + i, None]
            subtract_outer(block[:, i + 1 :], triangle[:, i, i + 1 :], errors[:, i])
        subtract_product(work[:, stop:], factor[:, start:stop, stop:].transpose(1, 2), errors)
        tick()
    unordered = torch.empty_like(codes)
    unordered[experts, order] = codes
    return unordered.transpose(1, 2).contiguous(), scales


def round_to_nearest(weight: torch.Tensor, scales: torch.Tensor, bits: int) -> torch.Tensor:
    """The baseline: `weight` [O, I] to the nearest multiple of its scale [O, I/g], as int8 codes [O, I]."""
    low, high = _range(bits)
    grouped = weight.to(torch.float32).reshape(len(weight), scales.shape[1], -1)
    codes = torch.div(grouped, scales.to(torch.float32).unsqueeze(2)).round_().clamp_(low, high)
    return codes.flatten(1).to(torch.int8)


def search_scales(
    weight: torch.Tensor,
    args: GPTQArgs,
    importance: torch.Tensor | None = None,
    tick: Callable[[], None] | None = None,
) -> torch.Tensor:
    """For each row and group of `weight` [O, I], the scale with the least squared rounding error.

    `importance` [I], if given, weights the squared error of each column (diag(H): the first-order share of
    that column in the output error). Candidates are already rounded to bf16, the precision in which scales
    are stored, so the winner is best as stored. Returns bf16 scales [O, I/group_size], all positive.
    """
    rows, columns = weight.shape
    groups = columns // args.group_size
    low, high = _range(args.bits)
    ratios = torch.linspace(args.smallest_ratio, 1.0, args.steps).tolist()
    scales = torch.empty(rows, groups, dtype=torch.bfloat16, device=weight.device)
    weights = None
    if importance is not None:
        # Scaled to a mean of 1: the sums must not overflow, and a group that no input reached still needs a
        # scale.
        weights = importance / importance.mean().clamp_min(torch.finfo(torch.float32).tiny) + 1e-6
        weights = weights.view(1, groups, args.group_size)
    step = max(1, CHUNK_WEIGHTS // columns) if weight.device.type == "cpu" else rows
    for start in range(0, rows, step):
        grouped = weight[start : start + step].to(torch.float32).reshape(-1, groups, args.group_size)
        widest = grouped.abs().amax(dim=2) / high
        best_error = torch.full_like(widest, math.inf)
        best = widest.clamp_min(SMALLEST_SCALE).to(torch.bfloat16).to(torch.float32)
        rounded = torch.empty_like(grouped)
        for ratio in reversed(ratios):
            scale = (widest * ratio).clamp_min_(SMALLEST_SCALE).to(torch.bfloat16).to(torch.float32)
            column = scale.unsqueeze(2)
            torch.div(grouped, column, out=rounded).round_().clamp_(low, high).mul_(column).sub_(grouped).square_()
            error = (rounded if weights is None else rounded.mul_(weights)).sum(dim=2)
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best = torch.where(better, scale, best)
        scales[start : start + step] = best.to(torch.bfloat16)
        if tick is not None:
            tick()
    return scales


def ordered_factor(hessian: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The order [I] in which columns are swept, and the `inverse_factor` [I, I] in that order.

    Raises:
        HessianError: as `gptq`.
    """
    curvature = hessian.detach().to(torch.float32)
    importance = torch.diagonal(curvature)
    if not bool(torch.isfinite(importance).all()) or bool((importance < 0).any()):
        raise HessianError("the Hessian has a diagonal that is negative or not finite")
    order = torch.argsort(importance, descending=True, stable=True)
    return order, inverse_factor(curvature, order, damping)


def inverse_factor(hessian: torch.Tensor, order: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor U of the inverse of the reordered, damped Hessian: H^-1 = U^T U (Algorithm 1).

    `hessian` [I, I] float32, `order` [I] the column order. Row j of U, divided by U_jj, says how the
    columns after j must move when column j is off by one. Dead columns (H_jj = 0) get 1 on the diagonal. If
    the factorisation fails, the damping is raised tenfold and tried again.

    Raises:
        HessianError: even the largest damping fails.
    """
    curvature = hessian[order][:, order]
    diagonal = torch.diagonal(curvature)
    dead = diagonal == 0
    if bool(dead.all()):
        return torch.eye(len(order), dtype=curvature.dtype, device=curvature.device)
    mean = diagonal.mean().item()
    if not math.isfinite(mean):
        raise HessianError("the Hessian has a diagonal that is not finite")
    curvature /= mean
    diagonal[dead] = 1.0
    while True:
        damped = curvature.clone()
        torch.diagonal(damped).add_(damping)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed.item():
            upper: torch.Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed.item() and bool(torch.isfinite(upper).all()):
                # Exact zeros below the diagonal are promised by torch; the division undoes H / mean up to a
                # factor that cancels in error / U_jj * U_j.
                return upper
        if damping >= LARGEST_DAMPING:
            raise HessianError(
                f"the Hessian stays singular at damping {damping:g}: the layer's inputs are not finite or its"
                " calibration is broken"
            )
        damping = min(max(damping, 1e-3) * 10, LARGEST_DAMPING)


def _check(weight: torch.Tensor, hessian: torch.Tensor, args: GPTQArgs) -> None:
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"the weight must be a matrix with rows and columns, not {list(weight.shape)}")
    columns = weight.shape[1]
    if tuple(hessian.shape) != (columns, columns):
        raise ValueError(f"the Hessian must be [{columns}, {columns}], not {list(hessian.shape)}")
    if columns % args.group_size:
        raise ValueError(f"group size {args.group_size} does not divide {columns} columns")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("the weight holds NaN or infinity")


def _block(rows: int, device: torch.device) -> int:
    # A wide matrix does not fit the cache, so that each lazy update must be worth a walk through memory.
    if device.type != "cpu" or rows * 8 > SERIAL_WEIGHTS:
        return LARGEST_BLOCK
    return min(LARGEST_BLOCK, SERIAL_WEIGHTS // rows)


def _range(bits: int) -> tuple[int, int]:
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
