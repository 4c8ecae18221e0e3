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
from quantgate_kernels.cuda.launch import Kernel, launch, load, multiprocessors
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
TILES = (4, 2)
"""That a warp works on side by side."""
COSTS = (0.00717, 0.0241, 0.00337, 0.325, 0.0104, 2.11, 0.0563, 1.21)
"""Microseconds of a product of a tile and eight tokens, a tile decoded, a panel fetched, a step, a tile's sums kept, a
wave of blocks, 1,000 sums of a split in memory, and the launch that adds those: `python -m benchmarks.gemm_costs`.
"""
_SUM_THREADS = 128


@dataclass(frozen=True)
class Division:
    """How the work is dealt out; it changes the order of sums and nothing else."""

    warps: int
    tiles: int
    """Of 16 rows, that a warp works on side by side."""
    beside: int
    """Warps of the same rows, which take neighbouring pieces: a power of two."""
    splits: int
    """Blocks of the same rows, whose sums are added by a launch of their own."""

    @property
    def block_tiles(self) -> int:
        return self.warps // self.beside * self.tiles


def least_tokens(rows: int, inputs: int) -> int:
    """Tokens from which on this kernel is faster than `vq_gemv` on an H200: of small matrices more."""
    return 17 if rows * inputs <= 1 << 25 else 9


@functools.cache
def division_of(blocks: int, rows: int, inputs: int, tier: Tier, n_tiles: int) -> Division:
    """The division that should take the least time on so many multiprocessors."""
    found = divisions(blocks, rows, inputs, tier, n_tiles)
    return min(found, key=lambda each: sum(map(mul, COSTS, parts_of(each, blocks, rows, inputs, n_tiles))))


def n_tiles_of(tokens: int) -> int:
    """The least number of n tiles, of those that there are kernels for, that takes so many tokens."""
    return next(count for count in N_TILES if 8 * count >= tokens)


def divisions(blocks: int, rows: int, inputs: int, tier: Tier, n_tiles: int) -> list[Division]:
    """All that there are kernels for and that shared memory has room for."""
    found = []
    for tiles, beside in product(TILES, (1, 2, 4, 8)):
        steps = -(-pieces_of(inputs) // beside)
        row_blocks = -(-tiles_of(rows) // (WARPS // beside * tiles))
        most = max(1, min(steps, 8, blocks // row_blocks))  # further blocks would wait for the first ones
        found += [Division(WARPS, tiles, beside, splits) for splits in range(1, most + 1)]
    return [each for each in found if _fits(tier, inputs, n_tiles, each)]


def _fits(tier: Tier, inputs: int, n_tiles: int, division: Division) -> bool:
    numbers = definitions(inputs, tier, n_tiles, division)
    return numbers["STAGES"] >= 2 and shared_bytes(numbers, inputs, tier, division) <= MOST_SHARED


def parts_of(division: Division, blocks: int, rows: int, inputs: int, n_tiles: int) -> tuple[float, ...]:
    """What takes time, each part in units of its own: `COSTS` says what one of them costs."""
    waves = ceil(ceil(tiles_of(rows) / division.block_tiles) * division.splits / blocks)
    steps = waves * ceil(ceil(pieces_of(inputs) / division.beside) / division.splits)
    work = division.warps * division.tiles
    products, panels = steps * work * n_tiles, steps * division.beside * n_tiles
    parts = division.splits * rows * n_tiles / 1e3 if division.splits > 1 else 0
    return products, steps * work, panels, steps, waves * work * n_tiles, waves, parts, division.splits > 1


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
) -> tuple[Kernel, Kernel, Division, int]:
    """(kernel, that of sums, division, bytes of shared memory) of a launch."""
    chosen = division or division_of(multiprocessors(device), rows, inputs, tier, n_tiles)
    numbers = definitions(inputs, tier, n_tiles, chosen)
    source, ordered = source_of(*files_of(numbers)), tuple(numbers.items())
    kernel = load(device, source, "vq_gemm", ordered, chosen.warps * 32, MOST_SHARED)
    return (
        kernel,
        load(device, source, "vq_gemm_sum", ordered, _SUM_THREADS),
        chosen,
        shared_bytes(numbers, inputs, tier, chosen),
    )


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
    kernel, adding, chosen, shared = _plan(out.device.index, rows, inputs, tier, n_tiles_of(tokens), division)
    splits, kind = chosen.splits, OUTPUTS[out.dtype]
    blocks = -(-tiles_of(rows) // chosen.block_tiles) * splits
    parts = None
    if splits > 1:
        parts = torch.empty(splits, tokens, tiles_of(rows) * ROWS, dtype=torch.float32, device=out.device)
    values = (codes, scales, table, halves, factors, out, parts, tokens, rows, inputs, splits, chosen.beside, kind)
    launch(kernel, blocks, values, out.device, overlap, shared)
    if parts is not None:
        blocks = -(-rows // (8 * _SUM_THREADS)) * tokens
        launch(adding, blocks, (parts, out, tokens, rows, splits, kind), out.device, overlap)
