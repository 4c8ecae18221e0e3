"""What a stored Linear means, in plain float64 from its bits up: slow, and what every kernel is held against.

It shares no code with the readers in `formats`, so that one finds the mistakes of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]


def weight(tensors: Tensors, tier: Mapping[str, Any], tables: Tensors) -> torch.Tensor:
    """The weight float64 [O, I] of a Linear, in the basis of its inputs: any rotation is undone.

    Args:
        tensors: what is stored of it, by last name; found sound by `validate` and `require_values`.
        tier: as config.json has it.
        tables: of the model, by name.

    Raises:
        ValueError: the format is unknown.
    """
    found = _stored(tensors, tier, tables)
    return found if tier["rotation"] is None else unrotated(found, tables[f"signs.{found.shape[1]}"])


def linear(inputs: torch.Tensor, tensors: Tensors, tier: Mapping[str, Any], tables: Tensors) -> torch.Tensor:
    """y = x W^T in float64, of inputs [..., I]; further arguments as those of `weight`."""
    return inputs.to(torch.float64) @ weight(tensors, tier, tables).T


def unrotated(rows: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Rows [O, I] of a weight times H D: blocks of 128, 64 or 32 inputs by Sylvester's matrix, then the signs [I]."""
    columns = rows.shape[1]
    size = next(block for block in (128, 64, 32) if columns % block == 0)
    places = torch.arange(size)
    common = places[:, None] & places
    odd = torch.stack([common >> bit & 1 for bit in range(7)]).sum(0) % 2  # by how many bits both places have
    hadamard = (1 - 2 * odd).to(torch.float64) / size**0.5
    return torch.mul((rows.reshape(-1, size) @ hadamard).view(rows.shape), signs.to(torch.float64))


def _stored(tensors: Tensors, tier: Mapping[str, Any], tables: Tensors) -> torch.Tensor:
    """The weight in the basis of the codes."""
    match tier["format"]:
        case "vq":
            table = tables[tier["table"]].to(torch.float64) / 32
            codes = _numbers(_bits(tensors["codes"]), len(table).bit_length() - 1)
            return _scaled(table[codes].flatten(1), tensors["scales"])
        case "trellis":
            return _scaled(_trellis(tensors["codes"], tier, tables), tensors["scales"])
        case "pack-quantized":
            codes = _numbers(_bits(tensors["weight_packed"]), tier["bits"]) - (1 << tier["bits"] - 1)
            return _scaled(codes.to(torch.float64), tensors["weight_scale"])
        case "fp8-block":
            floats, scales = tensors["weight"].to(torch.float64), tensors["weight_scale_inv"].to(torch.float64)
            rows, columns = (torch.arange(side) // 128 for side in floats.shape)
            return floats * scales[rows][:, columns]
        case "aqlm":
            books, codes = tensors["codebooks"].to(torch.float64), tensors["codes"].to(torch.int64)
            entries = [book[codes[:, :, place] % len(book)] for place, book in enumerate(books)]  # [O/o, I/i, o, i]
            rows = (torch.stack(entries).sum(0) * tensors["scales"].to(torch.float64)).transpose(1, 2)
            return rows.flatten(2).flatten(0, 1)
    raise ValueError(f"format {tier['format']!r} is unknown")


def _trellis(codes: torch.Tensor, tier: Mapping[str, Any], tables: Tensors) -> torch.Tensor:
    """Each weight of a tile is named by L neighbouring bits of the tile's ring of 256 k bits."""
    bits, wide = tier["bits"], tier["state_bits"]
    ring = _bits(codes).view(len(codes), -1, 256 * bits)
    first = (255 - torch.arange(256)) * bits
    states = torch.zeros(*ring.shape[:2], 256, dtype=torch.int64)
    for place in range(wide):
        states |= ring[:, :, (first + place) % (256 * bits)].to(torch.int64) << place
    table = tables[tier["table"]]
    values = table.to(torch.float64)[states] / (128 if table.dtype == torch.int16 else 32)
    tiles = values.view(len(codes), -1, 16, 16)  # symbol i is row i % 16 of column i // 16
    return tiles.permute(0, 3, 1, 2).reshape(len(codes) * 16, -1)


def _bits(words: torch.Tensor) -> torch.Tensor:
    """Bits uint8 [O, 32 W] of int32 words [O, W], the lowest of a word first."""
    places = torch.arange(32, dtype=torch.int32)
    return (words[:, :, None] >> places & 1).to(torch.uint8).flatten(1)


def _numbers(bits: torch.Tensor, wide: int) -> torch.Tensor:
    """Numbers int64 [O, n] of `wide` neighbouring bits each, the lowest first."""
    codes = bits.view(len(bits), -1, wide)
    numbers = torch.zeros(codes.shape[:2], dtype=torch.int64)
    for place in range(wide):
        numbers |= codes[:, :, place].to(torch.int64) << place
    return numbers


def _scaled(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    groups = scales.to(torch.float64)
    return (values.view(*groups.shape, -1) * groups[:, :, None]).view(values.shape)
