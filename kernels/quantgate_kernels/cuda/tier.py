"""What a kernel has to know of a tier when it is compiled, and which source decodes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from quantgate_kernels.formats.trellis import MULTIPLIER

COPIES = {4: 4, 8: 2}
"""In shared memory, by weights an entry, of tables of 4,096 entries. Those of 256 have as many as lanes need."""


class Tier(NamedTuple):
    """A vq tier, or a trellis: one weight a code."""

    dimensions: int
    """Weights a code."""
    code_bits: int
    state_bits: int = 0
    """Of a trellis: 12 or 16."""
    byte_sums: bool = False
    """Whether a kernel computes the values of a trellis' states, of 16 bits then, and has no table."""


def tier_of(table: torch.Tensor, code_bits: int) -> Tier:
    """The tier of a table int8 [entries, weights a code] as kernels get it, or of byte sums: int16."""
    entries, dimensions = table.shape
    sums = table.dtype == torch.int16
    return Tier(dimensions, code_bits, entries.bit_length() - 1 if dimensions == 1 else 0, sums)


def trellis_table(table: torch.Tensor) -> torch.Tensor:
    """The table [2^L] of a trellis as [4096, 1] or [65536, 1]: bits above L do not matter, so it is repeated."""
    return table.repeat((4096 if len(table) <= 4096 else 65536) // len(table))[:, None]


def definitions(tier: Tier, copies: int = 0) -> dict[str, int]:
    """What the source of the fragments is compiled with; `copies` in place of `COPIES`, if any."""
    if tier.byte_sums:
        return {"BYTE_SUMS": 1, "MULTIPLIER": MULTIPLIER, "TRELLIS": tier.code_bits}
    if tier.dimensions == 1:
        return {"STATE_BITS": tier.state_bits, "TRELLIS": tier.code_bits}
    copies = (copies or COPIES[tier.dimensions]) if tier.code_bits == 12 else 1
    return {"CODE_BITS": tier.code_bits, "COPIES": copies, "DIMENSIONS": tier.dimensions}


def files(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """The source of the fragments."""
    return ("fragments.cuh", "trellis.cuh") if "TRELLIS" in numbers else ("fragments.cuh",)


def table_bytes(numbers: Mapping[str, int]) -> int:
    """Shared memory that the table takes."""
    if "BYTE_SUMS" in numbers:
        return 0
    if "TRELLIS" in numbers:
        return 1 << 17 if numbers["STATE_BITS"] == 12 else 1 << 16
    return 1 << 16 if numbers["CODE_BITS"] == 8 else 4096 * numbers["DIMENSIONS"] * numbers["COPIES"]
