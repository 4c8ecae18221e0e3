"""What a rank keeps of a stored tensor: a slice, in the units that belong together.

Of down_proj [1024, 3072] at 2 bits, codes [1024, 192] and scales [1024, 24], the second of two ranks has the inputs
1536 to 3072: words 96 to 192, scales 12 to 24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from quantgate_kernels import sharding
from quantgate_kernels.formats import fp8_block
from quantgate_kernels.settings import FormatError, shown

Tier = Mapping[str, Any]
Span = tuple[int, int]
"""From the first to before the last."""


def require_whole(module: str, shape: tuple[int, int], tier: Tier | None, rows: Span, columns: Span) -> None:
    """Refuse a slice of a Linear [O, I] that ends within what belongs together; `tier` is None for one stored plainly.

    Raises:
        FormatError: naming the module.
    """
    units = (1, 1) if tier is None else sharding.units(tier, shape[1])
    for side, span, unit, what in zip(shape, (rows, columns), units, ("outputs", "inputs"), strict=True):
        start, end = span
        if not 0 <= start <= end <= side or start % unit or (end % unit and end != side):
            kind = "plain weights" if tier is None else shown(tier["format"])
            raise FormatError(
                f"{shown(module)}: {what} {start} to {end} of {side} are wanted here, and {kind} keeps {unit} "
                "together: use a smaller --tensor-parallel-size, or expert parallelism for experts"
            )


def cut(
    part: str, tensor: torch.Tensor, tier: Tier | None, shape: tuple[int, int], rows: Span, columns: Span
) -> torch.Tensor:
    """The slice of a stored tensor that stands for `rows` and `columns` of its Linear [O, I]; no copy.

    Args:
        part: the tensor's last name.
        tier: None for a weight that is stored plainly.
    """
    if part == "weight_shape":
        return torch.tensor([rows[1] - rows[0], columns[1] - columns[0]], dtype=tensor.dtype)
    if part == "codebooks":
        return tensor
    block = fp8_block.BLOCK if part == "weight_scale_inv" else None
    found = tensor[slice(*_stored(rows, shape[0], tensor.shape[0], block))]
    per_row = tier is not None and tier["format"] == "aqlm" and part == "scales"
    return found if per_row else found[:, slice(*_stored(columns, shape[1], tensor.shape[1], block))]


def _stored(span: Span, side: int, length: int, block: int | None) -> Span:
    """Where a span of a Linear's side lies on a stored dimension of `length` entries, each for `block` or for a part
    of the side; a last block may be smaller."""
    whole = side if block is None else length * block
    return span[0] * length // whole, length if span[1] == side else span[1] * length // whole
