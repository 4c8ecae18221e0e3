"""Reading a stored Linear by the name of its format; a checkpoint's config names one for each of its tiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from quantgate_kernels.formats import aqlm, trellis, vq

Reader = Callable[[Mapping[str, torch.Tensor], Mapping[str, Any], Mapping[str, torch.Tensor]], torch.Tensor]
"""(stored tensors of the Linear by their last name, the tier as config.json has it, tables of the model) -> weight."""

READERS: dict[str, tuple[tuple[str, ...], Reader]] = {
    aqlm.FORMAT: (aqlm.PARTS, aqlm.read),
    trellis.FORMAT: (trellis.PARTS, trellis.read),
    vq.FORMAT: (vq.PARTS, vq.read),
}
"""Of each format: what it stores of a Linear, the first of them in nothing else that is stored, and its reader."""


def read_linear(
    tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """The weight float32 [O, I] in the model's own basis.

    Raises:
        ValueError: the format is unknown, or the tensors contradict each other, the tier or the tables.
        KeyError: a tensor, a table or a setting is absent.
    """
    if tier["format"] not in READERS:
        raise ValueError(f"format {str(tier['format'])[:40]!r} is unknown: use a newer quantgate")
    return READERS[tier["format"]][1](tensors, tier, tables)
