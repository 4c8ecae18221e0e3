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
from quantgate_kernels.cuda.launch import Kernel, architecture, clusters, launch, load, multiprocessors
from quantgate_kernels.cuda.order import PIECE, pieces_of, tiles_of
from quantgate_kernels.cuda.tier import Tier, table_bytes, tier_of
from quantgate_kernels.cuda.tier import definitions as tier_definitions
from quantgate_kernels.cuda.tier import files as tier_files
from quantgate_kernels.cuda.vq_gemv import MOST_SHARED, OUTPUTS, piece_bytes
from quantgate_kernels.formats.rotation import block_of

N_TILES = (1, 2, 3, 4, 6, 8)
"""How many n tiles of eight tokens a kernel may have."""
BLOCKS = {1: ((8, 3), (8, 2)), 4: ((16, 1), (12, 2), (12, 1), (8, 4), (8, 3), (8, 2), (8, 1))}
"""By how many warps multiply together: (warps of a block, tiles of each), as many as registers have room for."""
HEAD = 512
"""Bytes of shared memory for barriers and the tokens' factors."""
MOST_SPLITS = 8
"""Blocks of a cluster that every GPU with clusters takes."""
COSTS = {
    1: (0.00604, 0.0256, 0.414, 0.0182, 0.0234, 0.0858, 0.352),
    4: (0.00198, 0.0346, 0.365, 0.0176, 0.0166, 0.0759, 0.33),
}
"""By how many warps multiply together: microseconds of a product of a tile and eight tokens, a tile decoded, a step,
a tile's sums of eight tokens kept, a block, and of a cluster's sums, eight at a time: of all that a thread of a block
has, again for every block, and of those that it reads (`python -m benchmarks.gemm_costs`; of single warps as they were
measured before the copy engine copied for them).
"""


@dataclass(frozen=True)
class Division:
    """How the work is dealt out; it changes the order of sums and nothing else."""

    warps: int
    tiles: int
    """Of 16 rows, that a warp works on side by side."""
    beside: int
    """Sets of warps with the same rows, which take neighbouring pieces."""
    splits: int
    """Blocks of the same rows, which are a cluster."""
    together: int = 1
    """Warps that multiply at once: 4 on Hopper."""

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


def together_of(device: int) -> int:
    """How many warps multiply at once: four on Hopper alone, whose tensor cores are twice as fast so."""
    return 4 if architecture(device) == "sm_90a" else 1


@functools.cache
def division_of(rooms: tuple[int, ...], together: int, rows: int, inputs: int, tier: Tier, n_tiles: int) -> Division:
    """The division that should take the least time on a GPU with such `rooms_of` and `together_of`."""
    found = divisions(rooms, together, rows, inputs, tier, n_tiles)
    costs = COSTS[together]
    return min(found, key=lambda each: sum(map(mul, costs, parts_of(each, rooms, rows, inputs, n_tiles))))


def n_tiles_of(tokens: int) -> int:
    """The least number of n tiles, of those that there are kernels for, that takes so many tokens."""
    return next(count for count in N_TILES if 8 * count >= tokens)


def divisions(
    rooms: tuple[int, ...], together: int, rows: int, inputs: int, tier: Tier, n_tiles: int
) -> list[Division]:
    """All that there are kernels for and that shared memory has room for."""
    found = []
    for (warps, tiles), beside in product(BLOCKS[together], (1, 2, 3, 4, 8)):
        if warps // together % beside:
            continue
        steps = -(-pieces_of(inputs) // beside)
        row_blocks = -(-tiles_of(rows) // (warps // beside * tiles))
        found.append(Division(warps, tiles, beside, 1, together))
        for splits in range(2, min(steps, MOST_SPLITS) + 1):
            if row_blocks <= rooms[splits - 1]:  # further ones would wait for the first
                found.append(Division(warps, tiles, beside, splits, together))
    return [each for each in found if _fits(tier, inputs, n_tiles, each)]


def _fits(tier: Tier, inputs: int, n_tiles: int, division: Division) -> bool:
    numbers = definitions(inputs, tier, n_tiles, division)
    return numbers["STAGES"] >= 2 and shared_bytes(numbers, inputs, tier, division) <= MOST_SHARED


def parts_of(division: Division, rooms: tuple[int, ...], rows: int, inputs: int, n_tiles: int) -> tuple[float, ...]:
    """What takes time, each part in units of its own: `COSTS` says what one of them costs."""
    splits, work = division.splits, division.warps * division.tiles
    row_blocks = ceil(tiles_of(rows) / division.block_tiles)
    waves = ceil(row_blocks / rooms[splits - 1])
    steps = waves * ceil(ceil(pieces_of(inputs) / division.beside) / splits)
    eights = division.block_tiles * 2 * n_tiles * 8 / (division.warps * 32) if splits > 1 else 0
    of_block = (steps * work * n_tiles, steps * work, steps, waves * work * n_tiles, row_blocks * splits)
    return *of_block, eights * splits, ceil(eights / splits) * splits


def definitions(inputs: int, tier: Tier, n_tiles: int, division: Division) -> dict[str, int]:
    """What the source is compiled with."""
    of_tier = tier_definitions(tier)
    return of_tier | {
        "BESIDE": division.beside,
        "GROUP": block_of(inputs),
        "HEAD_BYTES": HEAD,
        "MOST_SPLITS": MOST_SPLITS,
        "N_TILES": n_tiles,
        "STAGES": stages_of(tier, inputs, n_tiles, division),
        "TILES": division.tiles,
        "WARPS": division.warps,
    }


def stages_of(tier: Tier, inputs: int, n_tiles: int, division: Division) -> int:
    """How many steps shared memory has room for, at most four."""
    room = MOST_SHARED - HEAD - table_bytes(tier_definitions(tier))
    return min(4, room // _stage_bytes(tier, inputs, n_tiles, division))


def _stage_bytes(tier: Tier, inputs: int, n_tiles: int, division: Division) -> int:
    return division.beside * n_tiles * 8 * PIECE * 2 + division.warps * division.tiles * piece_bytes(tier, inputs)


def shared_bytes(numbers: Mapping[str, int], inputs: int, tier: Tier, division: Division) -> int:
    """Shared memory of a block: its head, then the table and the stages; the sums take their room in the end."""
    stages = numbers["STAGES"] * _stage_bytes(tier, inputs, numbers["N_TILES"], division)
    sums = division.warps * division.tiles * (numbers["N_TILES"] * 8 * 20 + 16) * 4
    return HEAD + max(table_bytes(numbers) + stages, sums)


def files_of(numbers: Mapping[str, int], together: int) -> tuple[str, ...]:
    """The source of the kernels."""
    products = "products.cuh" if together == 1 else "group_products.cuh"
    return (*tier_files(numbers), "halves.cuh", "bulk.cuh", products, "vq_gemm.cu")


@functools.cache
def _plan(
    device: int, rows: int, inputs: int, tier: Tier, n_tiles: int, division: Division | None
) -> tuple[Kernel, Division, int]:
    """(kernel, division, bytes of shared memory) of a launch."""
    chosen = division or division_of(rooms_of(device), together_of(device), rows, inputs, tier, n_tiles)
    numbers = definitions(inputs, tier, n_tiles, chosen)
    source = source_of(*files_of(numbers, chosen.together))
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
    values = (codes, scales, table, halves, factors, out, tokens, rows, inputs, splits)
    launch(kernel, blocks, (*values, OUTPUTS[out.dtype]), out.device, overlap, shared, splits)
