"""The order in memory that the kernels read: made once a Linear is loaded, on any device.

A *tile* is 16 rows, a *piece* is 128 inputs of a tile: one load of a warp, and four `mma.m16n8k32` of int8. Lane l of a
warp holds rows r = l // 4 and r + 8, and of every 32 inputs the eight from 8 * (l % 4) on. Its codes are one stream of
bits, the lowest first, in this order (q: which 32 inputs of the piece; h: the first or the last four of the eight):

    d = 4: code (q * 2 + h) * 2 + e is row r + 8 e, inputs q * 32 + (l % 4) * 8 + h * 4 ... + 3   (16 codes a lane)
    d = 8: code q * 2 + e           is row r + 8 e, inputs q * 32 + (l % 4) * 8         ... + 7   ( 8 codes a lane)

So a code of four weights is one register of the A operand, one of eight weights two of them. A lane has `words_of`
words of 32 bits: 4, 2, 3 or 6 at 2, 1, 1.5 or 3 bits a weight; words lie in planes of 4, 2 or 1 a lane (`PLANES`),
each plane [32 lanes, words], so that a warp reads neighbouring 16, 8 or 4 bytes a lane.

Rows are padded to whole tiles and inputs to whole pieces, with code 0 and scale 0.
"""

from __future__ import annotations

import torch

from quantgate_kernels.formats.rotation import block_of
from quantgate_kernels.formats.words import pack, unpack

ROWS = 16
"""Rows of a tile."""
PIECE = 128
"""Inputs of a piece."""
LANES = 32
PLANES = {2: [2], 3: [2, 1], 4: [4], 6: [4, 2]}
"""By words a lane: the words of each plane."""
_CODES_AT_ONCE = 1 << 24  # bounds what the reordering takes beside its result: about 400 MB


def tiles_of(rows: int) -> int:
    """Tiles of a matrix of so many rows."""
    return -(-rows // ROWS)


def pieces_of(inputs: int) -> int:
    """Pieces of a row of so many inputs."""
    return -(-inputs // PIECE)


def groups_of(inputs: int) -> int:
    """Scale groups in a piece: 1, 2 or 4."""
    return PIECE // block_of(inputs)


def words_of(dimensions: int, code_bits: int) -> int:
    """Words of 32 bits that a lane has of a piece."""
    return ROWS * PIECE // dimensions * code_bits // 32 // LANES


def ordered_codes(codes: torch.Tensor, dimensions: int, code_bits: int) -> torch.Tensor:
    """Stored codes int32 [..., O, W] (formats/vq.py) as int32 [..., tiles, pieces, 32 * words of a lane].

    Leading dimensions (experts) stay as they are.

    Raises:
        ValueError: a row's codes are no whole groups of inputs, or this order does not know such codes.
    """
    if dimensions not in (4, 8) or code_bits not in (8, 12):
        raise ValueError(f"no kernel reads codes of {code_bits} bits for {dimensions} weights: use a tier of vq")
    *lead, rows, words = codes.shape
    inputs = words * 32 // code_bits * dimensions
    block_of(inputs)
    tiles, pieces, lane_words = tiles_of(rows), pieces_of(inputs), words_of(dimensions, code_bits)
    found = torch.empty(*lead, tiles, pieces, LANES * lane_words, dtype=torch.int32, device=codes.device)
    at_once = max(1, _CODES_AT_ONCE // (ROWS * pieces * PIECE // dimensions))
    for source, target in zip(codes.reshape(-1, rows, words), found.view(-1, *found.shape[-3:]), strict=True):
        for first in range(0, tiles, at_once):
            part = source[first * ROWS : (first + at_once) * ROWS]
            target[first : first + at_once] = _tiles(part, dimensions, code_bits, pieces)
    return found


def _tiles(codes: torch.Tensor, dimensions: int, code_bits: int, pieces: int) -> torch.Tensor:
    """Rows [O, W] of stored codes as [tiles, pieces, 32 * words]."""
    loose = unpack(codes, code_bits)
    tiles = tiles_of(len(loose))
    padded = loose.new_zeros(tiles * ROWS, pieces * PIECE // dimensions)
    padded[: len(loose), : loose.shape[1]] = loose
    # tile, e, r, piece, q, l % 4, h -> tile, piece, r, l % 4, q, h, e
    parts = padded.view(tiles, 2, 8, pieces, 4, 4, 8 // dimensions).permute(0, 3, 2, 5, 4, 6, 1)
    streams = _packed(parts.reshape(tiles, pieces, LANES, -1), code_bits)
    planes = torch.split(streams, PLANES[streams.shape[-1]], dim=-1)
    return torch.cat([plane.flatten(-2) for plane in planes], dim=-1)


def _packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    return codes.to(torch.uint8).contiguous().view(torch.int32) if bits == 8 else pack(codes, bits)


def ordered_trellis(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Stored codes int32 [..., O / 16, I / 16 * 8 bits] of a trellis as int32 [..., tiles, pieces, 64 * bits].

    Their order stays, so this only fills the last piece.
    """
    inputs = codes.shape[-1] * 2 // bits
    pieces = pieces_of(inputs)
    padded = codes.new_zeros(*codes.shape[:-1], pieces * 64 * bits)
    padded[..., : codes.shape[-1]] = codes
    return padded.view(*codes.shape[:-1], pieces, 64 * bits)


def ordered_scales(scales: torch.Tensor, inputs: int) -> torch.Tensor:
    """Stored scales fp16 [..., O, I / g] as fp16 [..., tiles, pieces, groups of a piece, 8, 2].

    The last two are the row r of 0..7 and which of the rows r and r + 8: a lane reads both as one word.
    """
    *lead, rows, groups = scales.shape
    if groups != inputs // block_of(inputs):
        raise ValueError(f"scales {list(scales.shape)} do not fit {inputs} inputs")
    tiles, pieces, of_piece = tiles_of(rows), pieces_of(inputs), groups_of(inputs)
    padded = scales.new_zeros(*lead, tiles * ROWS, pieces * of_piece)
    padded[..., :rows, :groups] = scales
    parts = padded.view(*lead, tiles, 2, 8, pieces, of_piece)  # tile, e, r, piece, group
    axes = [len(lead) + axis for axis in (0, 3, 4, 2, 1)]
    return parts.permute(*range(len(lead)), *axes).contiguous()
