"""Bit-shift trellis: k bits a weight, and the value of a weight depends on the bits of its neighbours too.

A Linear [O, I] is cut into tiles of 16 x 16 weights. A tile is a ring of 256 symbols of k bits, column by column:
symbol i stands for row i % 16 of column i // 16. The *state* of a symbol is the last L bits up to and with its own,
around the ring; it names one of 2^L values of a table that the whole model shares. Thus every weight has 2^L values to
choose from, and costs k bits. The weight is table[state] * scale in the rotated basis (formats/rotation.py).

Stored are `codes` int32 [O / 16, I / 16 * 8 k] and `scales` fp16 [O, I / g]. The 8 k words of a tile (formats/words.py)
hold its symbols from the last to the first: so a state is L neighbouring bits of the stream, those from bit
(255 - i) * k on, and a server finds it with one shift of two words, without the states before it.

A table int8 is in units of TABLE_STEP and is looked up; one of int16, of 2^16 states, is in units of SUM_STEP, and a
kernel computes its entries from the state (tables.py; docs/decisions/0041-a-trellis-computes-its-values.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quantgate_kernels.formats import rotation
from quantgate_kernels.formats.words import WORD_BITS, pack, unpack

FORMAT = "trellis"
PARTS = ("codes", "scales")
"""What is stored of a Linear."""
TABLE_STEP = 1 / 32
"""Value of one unit of a table int8: +-3.97 is as far as it reaches, in units of the weights' RMS."""
SUM_STEP = 1 / 128
"""Of a table int16: +-4 is as far as it reaches, and its standard deviation is 1.15."""
MULTIPLIER = 2765345611
"""Of the states of such a table: the best of 587 odd numbers (docs/decisions/0041-a-trellis-computes-its-values.md)."""
TILE = 16
"""Rows and columns of a tile."""
SYMBOLS = TILE * TILE


@dataclass(frozen=True)
class TrellisLayout:
    """Bits of a weight and bits of a state.

    Raises:
        ValueError: of numbers that are none of this format.
    """

    bits: int
    state_bits: int

    def __post_init__(self) -> None:
        if self.bits not in range(1, 5) or self.state_bits not in range(2 * self.bits, 17):
            raise ValueError(f"no trellis has {self.bits} bits a weight and states of {self.state_bits} bits")

    @property
    def tile_words(self) -> int:
        return SYMBOLS * self.bits // WORD_BITS

    def words(self, columns: int) -> int:
        """Words of 16 rows of `columns` weights.

        Raises:
            ValueError: the columns do not divide into groups.
        """
        rotation.block_of(columns)
        return columns // TILE * self.tile_words


def encode(symbols: torch.Tensor, scales: torch.Tensor, layout: TrellisLayout) -> dict[str, torch.Tensor]:
    """Store symbols [O / 16, I / 16, 256] and scales [O, I / g] as the two tensors of the format, by their last name.

    Raises:
        ValueError: a symbol is beyond k bits, or a scale is not positive and finite in fp16.
    """
    columns = symbols.shape[1] * TILE
    stored = scales.to(torch.float16)
    if stored.shape != (len(symbols) * TILE, columns // rotation.block_of(columns)):
        raise ValueError(f"scales {list(scales.shape)} do not fit symbols {list(symbols.shape)}")
    if not bool((torch.isfinite(stored) & (stored > 0)).all()):
        raise ValueError("every scale must be positive and finite")
    return {"codes": pack(symbols.flip(-1), layout.bits).flatten(1), "scales": stored.contiguous()}


def decode(
    tensors: Mapping[str, torch.Tensor], table: torch.Tensor, layout: TrellisLayout, signs: torch.Tensor | None
) -> torch.Tensor:
    """The weight float32 [O, I] that the stored tensors stand for, turned back by `signs` [I] where it was rotated.

    `table` is int8 or int16 [2^L].

    Raises:
        ValueError: the tensors do not fit each other, the table or the layout.
        KeyError: one of them is absent.
    """
    codes, scales = tensors["codes"], tensors["scales"]
    if table.shape != (1 << layout.state_bits,):
        raise ValueError(f"a table {list(table.shape)} is none of states of {layout.state_bits} bits")
    if codes.ndim != 2 or codes.shape[1] % layout.tile_words:
        raise ValueError(f"codes {list(codes.shape)} do not hold whole tiles of {layout.tile_words} words")
    symbols = unpack(codes.view(len(codes), -1, layout.tile_words), layout.bits).flip(-1)
    columns = symbols.shape[1] * TILE
    block = rotation.block_of(columns)
    if scales.shape != (len(codes) * TILE, columns // block):
        raise ValueError(f"scales {list(scales.shape)} do not fit {len(codes)} x {columns // TILE} tiles of codes")
    weight = units(symbols, table, layout) * scales.to(torch.float32).repeat_interleave(block, dim=1)
    return weight if signs is None else rotation.unrotate(weight, signs)


def read(
    tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """`decode` of a tier as config.json has it: `bits`, `state_bits`, the name of a `table`, and `rotation`.

    Raises:
        ValueError: as `decode`.
        KeyError: a tensor, a table or a setting is absent.
    """
    layout = TrellisLayout(tier["bits"], tier["state_bits"])
    columns = tensors["codes"].shape[-1] // layout.tile_words * TILE
    return decode(
        tensors, tables[tier["table"]], layout, None if tier["rotation"] is None else tables[f"signs.{columns}"]
    )


def units(symbols: torch.Tensor, table: torch.Tensor, layout: TrellisLayout) -> torch.Tensor:
    """The values float32 [O, I] before any scale, of symbols [O / 16, I / 16, 256] and a table [2^L]."""
    return untiled(values(table)[states(symbols, layout)])


def values(table: torch.Tensor) -> torch.Tensor:
    """The value float32 [2^L] of each state by a table int8 or int16 [2^L]."""
    return table.to(torch.float32) * (SUM_STEP if table.dtype == torch.int16 else TABLE_STEP)


def states(symbols: torch.Tensor, layout: TrellisLayout) -> torch.Tensor:
    """The state int32 of each of symbols [..., 256]: its own bits are the lowest, those before it follow upwards."""
    last = symbols.to(torch.int32)
    found = torch.zeros_like(last)
    for shift in range(0, layout.state_bits, layout.bits):
        found |= torch.roll(last, shift // layout.bits, -1) << shift
    return found & ((1 << layout.state_bits) - 1)


def tiled(weight: torch.Tensor) -> torch.Tensor:
    """A weight [O, I] as tiles [O / 16, I / 16, 256], column by column."""
    rows, columns = weight.shape
    return weight.reshape(rows // TILE, TILE, columns // TILE, TILE).permute(0, 2, 3, 1).flatten(2)


def untiled(tiles: torch.Tensor) -> torch.Tensor:
    """The inverse of `tiled`."""
    high, wide, _ = tiles.shape
    return tiles.view(high, wide, TILE, TILE).permute(0, 3, 1, 2).reshape(high * TILE, wide * TILE)
