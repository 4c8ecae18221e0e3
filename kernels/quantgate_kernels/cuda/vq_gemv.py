"""y = W x of a few tokens, from codes: `src/vq_gemv.cu`, and the choice of how its work is dealt out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from quantgate_kernels.cuda.activations import DTYPES, TOKENS
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
MOST_FUSED = 8
"""Pieces, of all tokens together, up to which each block makes the operands itself; of 16 and more two launches were
faster (docs/kernels.md)."""
_SHARED = 200 << 10  # bytes that tables and sums share
_OPERANDS = 40 << 10  # bytes of operands that a block makes: of up to 128 pieces, where a benchmark asks for them


@dataclass(frozen=True)
class Tuning:
    """What may be turned without another result: measured by benchmarks/kernels.py."""

    warps: int = 16
    depth: int = 8
    """Pieces that a warp has on their way, where shared memory allows."""
    copies: int = 0
    """Of a table of 4,096 entries in shared memory, a power of two; 0: as tier.py says."""
    slots: int = 4
    """Tiles of a warp between two barriers, where shared memory allows."""
    resident: int = 1
    """Blocks whose registers a multiprocessor holds at once, of up to four tokens."""
    blocks: int = 1
    """Blocks that are launched for each multiprocessor."""


DEFAULT = Tuning()


def n_tiles_of(tokens: int) -> int:
    """The least number of n tiles, of those that there are kernels for, that takes so many tokens."""
    return next(count for count in N_TILES if 4 * count >= tokens)


def fuses(tokens: int, inputs: int) -> bool:
    """Whether blocks had better make the operands themselves: few tokens, so that each warp has little of it to do."""
    return tokens <= TOKENS and tokens * pieces_of(inputs) <= MOST_FUSED


def definitions(
    inputs: int,
    tier: Tier,
    n_tiles: int,
    tuning: Tuning = DEFAULT,
    x: torch.dtype | None = None,
    rotated: bool = True,
) -> dict[str, int]:
    """What the source is compiled with.

    `x` is the dtype of activations that the kernel itself makes operands of, and `rotated` whether it turns them.
    """
    slot = tuning.warps * n_tiles * 64 * 4
    of_tier = tier_definitions(tier, tuning.copies)
    many = n_tiles > 1 or tier.code_bits != 8  # registers
    slots = max(1, min(tuning.slots, (_SHARED - table_bytes(of_tier)) // 2 // slot))
    room = MOST_SHARED // tuning.blocks - table_bytes(of_tier) - slots * slot - (_OPERANDS if x is not None else 0)
    numbers = of_tier | {
        "DEPTH": max(2, min(tuning.depth, room // (tuning.warps * piece_bytes(tier, inputs)))),
        "FUSED": int(x is not None),
        "GROUP": block_of(inputs),
        "MIN_BLOCKS": 1 if many else tuning.resident,
        "N_TILES": n_tiles,
        "SLOTS": slots,
        "WARPS": tuning.warps,
    }
    return numbers if x is None else numbers | {"ROTATED": int(rotated), "X_BFLOAT": DTYPES[x]}


def piece_bytes(tier: Tier, inputs: int) -> int:
    """Of a piece's codes and its scales."""
    return ROWS * PIECE // tier.dimensions * tier.code_bits // 8 + ROWS * 2 * groups_of(inputs)


def shared_bytes(numbers: Mapping[str, int], tokens: int, inputs: int) -> int:
    """Shared memory of a block: the table, sums of `SLOTS` tiles of each warp, its ring, and operands made there."""
    sums = numbers["SLOTS"] * numbers["WARPS"] * numbers["N_TILES"] * 64 * 4
    operands = pieces_of(inputs) * (256 * tokens + 16 * groups_of(inputs)) if numbers["FUSED"] else 0
    tier = Tier(numbers.get("DIMENSIONS", 1), numbers.get("CODE_BITS", numbers.get("TRELLIS", 0)))
    rings = numbers["WARPS"] * numbers["DEPTH"] * piece_bytes(tier, inputs)
    return table_bytes(numbers) + sums + rings + operands


def files_of(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """The source of a kernel."""
    return (*tier_files(numbers), *(("quantize.cuh",) if numbers["FUSED"] else ()), "vq_gemv.cu")


@functools.cache
def _kernel(device: int, numbers: tuple[tuple[str, int], ...]) -> Kernel:
    named = dict(numbers)
    source = source_of(*files_of(named))
    beside = bool(named["FUSED"]) and named["MIN_BLOCKS"] > 1  # others read their operands through the L1
    return load(device, source, "vq_gemv", numbers, named["WARPS"] * 32, MOST_SHARED, beside)


@functools.cache
def _plan(
    device: int,
    rows: int,
    inputs: int,
    tier: Tier,
    tokens: int,
    x: torch.dtype | None,
    rotated: bool,
    tuning: Tuning,
) -> tuple[Kernel, int, int, int]:
    """(kernel, blocks, splits, bytes of shared memory) of a launch."""
    numbers = definitions(inputs, tier, n_tiles_of(tokens), tuning, x, rotated)
    most = multiprocessors(device) * tuning.blocks
    splits = splits_of(rows, inputs, most, tuning.warps, n_tiles_of(tokens))
    blocks = min(most, -(-tiles_of(rows) // (tuning.warps // splits)))
    return _kernel(device, tuple(numbers.items())), blocks, splits, shared_bytes(numbers, tokens, inputs)


def compile_all(device: int, inputs: int, tier: Tier, rotated: bool) -> None:
    """Have every kernel of a tier ready."""
    for n_tiles in N_TILES:
        _kernel(device, tuple(definitions(inputs, tier, n_tiles).items()))
    for dtype in DTYPES:
        _kernel(device, tuple(definitions(inputs, tier, 1, DEFAULT, dtype, rotated).items()))


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
    kernel, blocks, splits, shared = _plan(out.device.index, rows, inputs, tier, tokens, None, True, tuning)
    values = (codes, scales, table, operands, factors, out, tokens, rows, inputs, splits, OUTPUTS[out.dtype])
    launch(kernel, blocks, values, out.device, overlap, shared)


def fused(
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
    """`gemv` of up to four tokens x [M, I], bfloat16 or float16, themselves: in one launch."""
    tokens, rows = out.shape
    inputs, tier = x.shape[1], tier_of(table, code_bits)
    kernel, blocks, splits, shared = _plan(
        x.device.index, rows, inputs, tier, tokens, x.dtype, signs is not None, tuning
    )
    values = (codes, scales, table, x, signs, out, tokens, rows, inputs, splits, OUTPUTS[out.dtype])
    launch(kernel, blocks, values, x.device, overlap, shared)
