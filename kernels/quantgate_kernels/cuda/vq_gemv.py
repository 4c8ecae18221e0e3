"""y = W x of a few tokens, from codes: `src/vq_gemv.cu`, and the choice of how its work is dealt out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from quantgate_kernels.cuda.activations import DTYPES
from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.launch import Kernel, launch, load, multiprocessors
from quantgate_kernels.cuda.order import PIECE, ROWS, groups_of, pieces_of, tiles_of
from quantgate_kernels.cuda.tier import Tier, table_bytes, tier_of
from quantgate_kernels.cuda.tier import definitions as tier_definitions
from quantgate_kernels.cuda.tier import files as tier_files
from quantgate_kernels.formats.rotation import block_of

N_TILES = (1, 2, 4, 6, 8, 12, 16)
"""How many n tiles of four tokens a kernel may have."""
MOST_TOKENS = 4 * N_TILES[-1]
OUTPUTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
MOST_SHARED = 226 << 10
"""Bytes of shared memory that a block may take."""
TILES = {1: 4, 2: 4, 4: 2, 6: 2, 8: 2, 12: 1, 16: 1}
"""By n tiles: how many tiles a warp works on side by side at most, as its registers allow."""


MOST_OWN = 128
"""Pieces of a token that the table leaves room for."""
FUSED_INPUTS = 4096
"""Up to which a launch saved is worth more than a token turned in every block, even if that has a single tile."""

MOST_IN_PLACE = 4
"""N tiles up to which a batch of byte sums stays in its slot of the ring while it is worked on."""


@dataclass(frozen=True)
class Tuning:
    """What may be turned without another result: measured by benchmarks/kernels.py."""

    warps: int = 16
    depth: int = 8
    """Pieces that a warp has on their way, where shared memory allows."""
    tiles: int = 0
    """That a warp works on side by side; 0: as `TILES` says."""
    copies: int = 0
    """Of a table of 4,096 entries in shared memory, a power of two; 0: as tier.py says."""
    resident: int = 1
    """Blocks whose registers a multiprocessor holds at once, of up to four tokens."""
    blocks: int = 1
    """Blocks that are launched for each multiprocessor."""
    fused: bool = False
    """Each block turns the token itself: for one token, where the table leaves room (`can_fuse`)."""


DEFAULT = Tuning()
PAIRED = Tuning(8, 8, 4, 0, 2, 2)
"""Two blocks beside each other on a multiprocessor: where each has tiles enough, one works while the other sums up."""
FUSED = Tuning(8, 8, 4, 0, 2, 1, True)
"""One block, beside which the next kernel's has room: it fills its table and fetches codes before it is its turn."""

FUSED_WIDE = Tuning(16, 8, 4, fused=True)
"""The same alone on a multiprocessor: without a table there is little that could be done ahead."""


def tuning_of(device: int, rows: int, inputs: int, tier: Tier, tokens: int) -> Tuning:
    """What was fastest on an H200 (docs/kernels.md)."""
    if can_fuse(tokens, inputs, tier) and inputs <= FUSED_INPUTS:
        return FUSED
    if tier.byte_sums:
        return FUSED_WIDE if can_fuse(tokens, inputs, tier) else DEFAULT
    if tokens > 4 or tier.code_bits != 8:
        return DEFAULT
    if tiles_of(rows) >= 2 * multiprocessors(device) * PAIRED.tiles:
        return PAIRED
    return FUSED if can_fuse(tokens, inputs, tier) and tiles_of(rows) >= 2 * multiprocessors(device) else DEFAULT


def can_fuse(tokens: int, inputs: int, tier: Tier) -> bool:
    """Whether each block can turn the token itself: within a table of 256 entries, or without one, there is room."""
    roomy = tier.byte_sums or (tier.dimensions > 1 and tier.code_bits == 8)
    return tokens == 1 and roomy and pieces_of(inputs) <= MOST_OWN


def n_tiles_of(tokens: int) -> int:
    """The least number of n tiles, of those that there are kernels for, that takes so many tokens."""
    return next(count for count in N_TILES if 4 * count >= tokens)


def definitions(
    inputs: int, tier: Tier, n_tiles: int, steps: int, tuning: Tuning = DEFAULT, token: torch.dtype | None = None
) -> dict[str, int]:
    """What the source is compiled with, for warps that have `steps` tiles each at most.

    With `token`, for one token of that dtype that each block turns itself.
    """
    of_tier = tier_definitions(tier, tuning.copies)
    in_place = tier.byte_sums and n_tiles <= MOST_IN_PLACE
    alone = tier.dimensions == 1 and not in_place  # a trellis' codes or values fill the registers
    most = tuning.tiles or (1 if alone else TILES[n_tiles])
    tiles = min(most, steps)
    roomy = tier.code_bits == 8 or tier.byte_sums
    resident = tuning.resident if n_tiles == 1 and roomy else 1  # others need the registers
    batch = tuning.warps * tiles * piece_bytes(tier, inputs)
    sums = tiles * tuning.warps * n_tiles * 64 * 4
    room = MOST_SHARED // max(tuning.blocks, resident) - table_bytes(of_tier) - sums
    own: dict[str, int] = {"FUSED": 0}
    if token is not None:
        apart, units = 128 if tier.byte_sums else 256, -(-inputs // (512 * tuning.warps))
        own = {"APART": apart, "FUSED": 1, "UNITS": units, "X_BFLOAT": DTYPES[token]}
        room -= own_bytes(own, inputs)
    buffers = 2 if n_tiles <= 2 and steps > tiles and room - sums >= 2 * batch else 1
    room -= (buffers - 1) * sums
    numbers = {
        "BUFFERS": buffers,
        "DEPTH": max(2, min(-(-tuning.depth // tiles) + in_place, room // batch)),
        "GROUP": block_of(inputs),
        "MIN_BLOCKS": resident,
        "MOST_IN_PLACE": MOST_IN_PLACE,
        "N_TILES": n_tiles,
        "TILES": tiles,
        "WARPS": tuning.warps,
    }
    return of_tier | own | numbers


def piece_bytes(tier: Tier, inputs: int) -> int:
    """Of a piece's codes and its scales."""
    return ROWS * PIECE // tier.dimensions * tier.code_bits // 8 + ROWS * 2 * groups_of(inputs)


def shared_bytes(numbers: Mapping[str, int], inputs: int) -> int:
    """Shared memory of a block: the table, the sums of each warp's tiles, its ring."""
    sums = numbers["BUFFERS"] * numbers["TILES"] * numbers["WARPS"] * numbers["N_TILES"] * 64 * 4
    tier = Tier(numbers.get("DIMENSIONS", 1), numbers.get("CODE_BITS", numbers.get("TRELLIS", 0)))
    rings = numbers["WARPS"] * numbers["DEPTH"] * numbers["TILES"] * piece_bytes(tier, inputs)
    return table_bytes(numbers) + sums + rings + (own_bytes(numbers, inputs) if numbers["FUSED"] else 0)


def own_bytes(numbers: Mapping[str, int], inputs: int) -> int:
    """Of a token's factors and, without a table, of its operands: of pieces to a multiple of four."""
    pieces = -(-inputs // 512) * 4
    return pieces * (groups_of(inputs) * 4 + (0 if numbers["APART"] == 256 else 2 * numbers["APART"]))


def files_of(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """The source of a kernel."""
    own = ("rotation.cuh", "operands.cuh", "own_operands.cuh") if numbers["FUSED"] else ()
    return (*tier_files(numbers), *own, "vq_gemv.cu")


@functools.cache
def _plan(
    device: int, rows: int, inputs: int, tier: Tier, n_tiles: int, tuning: Tuning, token: torch.dtype | None = None
) -> tuple[Kernel, int, int, int]:
    """(kernel, blocks, splits, bytes of shared memory) of a launch."""
    most = multiprocessors(device) * tuning.blocks
    splits = splits_of(rows, inputs, most, tuning.warps, n_tiles)
    in_flight = tuning.warps // splits
    blocks = min(most, -(-tiles_of(rows) // in_flight))
    numbers = definitions(inputs, tier, n_tiles, -(-tiles_of(rows) // (blocks * in_flight)), tuning, token)
    source, ordered = source_of(*files_of(numbers)), tuple(numbers.items())
    several = max(tuning.blocks, numbers["MIN_BLOCKS"]) > 1
    kernel = load(device, source, "vq_gemv", ordered, tuning.warps * 32, MOST_SHARED, several)
    return kernel, blocks, splits, shared_bytes(numbers, inputs)


def compile_all(device: int, rows: int, inputs: int, tier: Tier, most: int) -> None:
    """Have every kernel ready that a Linear [O, I] of a tier may need for up to `most` tokens."""
    for n_tiles in (count for count in N_TILES if count <= n_tiles_of(most)):
        tokens = 4 * n_tiles
        _plan(device, rows, inputs, tier, n_tiles, tuning_of(device, rows, inputs, tier, tokens))
    alone = tuning_of(device, rows, inputs, tier, 1)
    if alone.fused:
        for dtype in DTYPES:
            _plan(device, rows, inputs, tier, 1, alone, dtype)


def splits_of(rows: int, inputs: int, blocks: int, warps: int, n_tiles: int = 1) -> int:
    """Among how many warps the inputs of a tile are dealt: the number whose busiest warp has the fewest pieces.

    The most of equal ones. Of four n tiles and more the fewest that come within a tenth: operands outgrow the L1 there,
    and warps that work on the same inputs of different tiles share what one of them loaded.
    """
    tiles, pieces = tiles_of(rows), pieces_of(inputs)
    choices = range(1, min(warps, pieces) + 1)
    busiest = {splits: -(-tiles // (blocks * (warps // splits))) * -(-pieces // splits) for splits in choices}
    good = [splits for splits in choices if busiest[splits] <= min(busiest.values()) * (1.1 if n_tiles >= 4 else 1)]
    return min(good) if n_tiles >= 4 else max(good)


def gemv(
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    operands: torch.Tensor,
    factors: torch.Tensor,
    out: torch.Tensor,
    inputs: int,
    code_bits: int,
    overlap: bool = True,
    tuning: Tuning = DEFAULT,
) -> None:
    """Write y [M, O] of up to 64 tokens into `out`, float32, bfloat16 or float16.

    Args:
        codes: int32 [tiles, pieces, words], of `order.ordered_codes` or `order.ordered_trellis`.
        scales: fp16 of `order.ordered_scales`.
        table: int8 [entries, d], of a trellis as `tier.trellis_table` has it.
        operands, factors: of `activations.to_operands`, for at least `n_tiles_of(M)` n tiles.
    """
    tokens, rows = out.shape
    tier = tier_of(table, code_bits)
    n_tiles = n_tiles_of(tokens)
    kernel, blocks, splits, shared = _plan(out.device.index, rows, inputs, tier, n_tiles, tuning)
    values = (codes, scales, table, operands, factors, out, tokens, rows, inputs, splits, OUTPUTS[out.dtype])
    launch(kernel, blocks, values, out.device, overlap, shared)


def gemv_of_token(
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    x: torch.Tensor,
    signs: torch.Tensor | None,
    out: torch.Tensor,
    code_bits: int,
    overlap: bool = True,
    tuning: Tuning = DEFAULT,
) -> None:
    """The same of a single token x [1, I], bfloat16 or float16, that each block turns itself, where it `can_fuse`.

    The bits of `activations.to_operands` and `gemv` one after the other. `signs` int8 [I], or None without a rotation.
    """
    rows, inputs = out.shape[1], x.shape[1]
    kernel, blocks, splits, shared = _plan(
        out.device.index, rows, inputs, tier_of(table, code_bits), 1, tuning, x.dtype
    )
    values = (codes, scales, table, x, signs, out, 1, rows, inputs, splits, OUTPUTS[out.dtype])
    launch(kernel, blocks, values, out.device, overlap, shared)
