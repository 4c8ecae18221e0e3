"""y = W x of more tokens than `vq_gemv` is good for, from codes: `src/vq_gemm.cu`, and how its work is dealt out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import ceil
from operator import mul

import torch

from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.launch import Kernel, clusters, launch, load, multiprocessors
from quantgate_kernels.cuda.order import PIECE, ROWS, pieces_of, tiles_of
from quantgate_kernels.cuda.tier import Tier, table_bytes, tier_of
from quantgate_kernels.cuda.tier import definitions as tier_definitions
from quantgate_kernels.cuda.tier import files as tier_files
from quantgate_kernels.cuda.vq_gemv import MOST_SHARED, OUTPUTS, piece_bytes
from quantgate_kernels.formats.rotation import block_of

N_TILES = (1, 2, 3, 4, 6, 8)
"""How many n tiles of eight tokens a kernel may have."""
WARPS = 8
"""Of a block: more leave too few registers for sums."""
TILES = (4, 3, 2)
"""That a warp works on side by side."""
MOST_SPLITS = 8
"""Blocks of a cluster that every GPU with clusters takes."""
COSTS = (0.00609, 0.027, 0.0104, 0.297, 0.00448, 1.95, 0.414, 1.06)
"""Microseconds of a product of a tile and eight tokens, a tile decoded, a panel fetched, a step, a tile's sums kept, a
wave of blocks, 1,000 sums that a block reads of its cluster's, and the waits for it: `python -m benchmarks.gemm_costs`.
"""


@dataclass(frozen=True)
class Division:
    """How the work is dealt out; it changes the order of sums and nothing else."""

    warps: int
    tiles: int
    """Of 16 rows, that a warp works on side by side."""
    beside: int
    """Warps of the same rows, which take neighbouring pieces: a power of two."""
    splits: int
    """Blocks of the same rows, which are a cluster."""

    @property
    def block_tiles(self) -> int:
        return self.warps // self.beside * self.tiles


def least_tokens(rows: int, inputs: int) -> int:
    """Tokens from which on this kernel is faster than `vq_gemv` on an H200: of small matrices more."""
    return 17 if rows * inputs <= 1 << 25 else 9


@functools.cache
def rooms_of(device: int) -> tuple[int, ...]:
    """How many clusters of 1, 2 ... MOST_SPLITS blocks a GPU runs side by side."""
    several = (clusters(device, size, MOST_SHARED) for size in range(2, MOST_SPLITS + 1))
    return (multiprocessors(device), *several)


@functools.cache
def division_of(rooms: tuple[int, ...], rows: int, inputs: int, tier: Tier, n_tiles: int) -> Division:
    """The division that should take the least time on a GPU with such `rooms_of`."""
    found = divisions(rooms, rows, inputs, tier, n_tiles)
    return min(found, key=lambda each: sum(map(mul, COSTS, parts_of(each, rooms, rows, inputs, n_tiles))))


def n_tiles_of(tokens: int) -> int:
    """The least number of n tiles, of those that there are kernels for, that takes so many tokens."""
    return next(count for count in N_TILES if 8 * count >= tokens)


def divisions(rooms: tuple[int, ...], rows: int, inputs: int, tier: Tier, n_tiles: int) -> list[Division]:
    """All that there are kernels for and that shared memory has room for."""
    found = []
    for tiles, beside in product(TILES, (1, 2, 4, 8)):
        steps = -(-pieces_of(inputs) // beside)
        row_blocks = -(-tiles_of(rows) // (WARPS // beside * tiles))
        found.append(Division(WARPS, tiles, beside, 1))
        for splits in range(2, min(steps, MOST_SPLITS) + 1):
            if row_blocks <= rooms[splits - 1]:  # further ones would wait for the first
                found.append(Division(WARPS, tiles, beside, splits))
    return [each for each in found if _fits(tier, inputs, n_tiles, each)]


def _fits(tier: Tier, inputs: int, n_tiles: int, division: Division) -> bool:
    numbers = definitions(inputs, tier, n_tiles, division)
    return numbers["STAGES"] >= 2 and shared_bytes(numbers, inputs, tier, division) <= MOST_SHARED


def parts_of(division: Division, rooms: tuple[int, ...], rows: int, inputs: int, n_tiles: int) -> tuple[float, ...]:
    """What takes time, each part in units of its own: `COSTS` says what one of them costs."""
    waves = ceil(ceil(tiles_of(rows) / division.block_tiles) / rooms[division.splits - 1])
    steps = waves * ceil(ceil(pieces_of(inputs) / division.beside) / division.splits)
    work = division.warps * division.tiles
    products, panels = steps * work * n_tiles, steps * division.beside * n_tiles
    read = division.block_tiles * ROWS * n_tiles * 8 / 1e3 if division.splits > 1 else 0
    return products, steps * work, panels, steps, waves * work * n_tiles, waves, read, division.splits > 1


def definitions(inputs: int, tier: Tier, n_tiles: int, division: Division) -> dict[str, int]:
    """What the source is compiled with."""
    of_tier = tier_definitions(tier)
    return of_tier | {
        "GROUP": block_of(inputs),
        "N_TILES": n_tiles,
        "STAGES": stages_of(tier, inputs, n_tiles, division),
        "TILES": division.tiles,
        "WARPS": division.warps,
    }


def stages_of(tier: Tier, inputs: int, n_tiles: int, division: Division) -> int:
    """How many steps shared memory has room for, at most four."""
    room = MOST_SHARED - table_bytes(tier_definitions(tier))
    return min(4, room // _stage_bytes(tier, inputs, n_tiles, division))


def _stage_bytes(tier: Tier, inputs: int, n_tiles: int, division: Division) -> int:
    return division.beside * n_tiles * 8 * PIECE * 2 + division.warps * division.tiles * piece_bytes(tier, inputs)


def shared_bytes(numbers: Mapping[str, int], inputs: int, tier: Tier, division: Division) -> int:
    """Shared memory of a block: the table, then the stages; the sums take their room in the end."""
    stages = numbers["STAGES"] * _stage_bytes(tier, inputs, numbers["N_TILES"], division)
    sums = division.warps * division.tiles * (numbers["N_TILES"] * 8 * 20 + 16) * 4
    return max(table_bytes(numbers) + stages, sums)


def files_of(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """The source of the kernels."""
    return (*tier_files(numbers), "halves.cuh", "vq_gemm.cu")


@functools.cache
def _plan(
    device: int, rows: int, inputs: int, tier: Tier, n_tiles: int, division: Division | None
) -> tuple[Kernel, Division, int]:
    """(kernel, division, bytes of shared memory) of a launch."""
    chosen = division or division_of(rooms_of(device), rows, inputs, tier, n_tiles)
    numbers = definitions(inputs, tier, n_tiles, chosen)
    source = source_of(*files_of(numbers))
    kernel = load(device, source, "vq_gemm", tuple(numbers.items()), chosen.warps * 32, MOST_SHARED)
    return kernel, chosen, shared_bytes(numbers, inputs, tier, chosen)


def compile_all(device: int, rows: int, inputs: int, tier: Tier) -> None:
    """Have every kernel ready that a Linear [O, I] of a tier may need."""
    least = n_tiles_of(least_tokens(rows, inputs))
    for n_tiles in (count for count in N_TILES if count >= least):
        _plan(device, rows, inputs, tier, n_tiles, None)


def gemm(
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    halves: torch.Tensor,
    factors: torch.Tensor,
    out: torch.Tensor,
    inputs: int,
    code_bits: int,
    overlap: bool = True,
    division: Division | None = None,
) -> None:
    """Write y [M, O] of up to 64 tokens into `out`, float32, bfloat16 or float16.

    Args:
        codes, scales, table: as `vq_gemv.gemv` has them.
        halves, factors: of `activations.to_halves`, padded to whole `n_tiles_of(M)`.
    """
    tokens, rows = out.shape
    tier = tier_of(table, code_bits)
    kernel, chosen, shared = _plan(out.device.index, rows, inputs, tier, n_tiles_of(tokens), division)
    splits = chosen.splits
    blocks = -(-tiles_of(rows) // chosen.block_tiles) * splits
    values = (codes, scales, table, halves, factors, out, tokens, rows, inputs, splits, chosen.beside)
    launch(kernel, blocks, (*values, OUTPUTS[out.dtype]), out.device, overlap, shared, splits)
