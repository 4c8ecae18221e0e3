"""y = W x of a few tokens, from vq codes: `src/vq_gemv.cu`, and the choice of how its work is dealt out."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.launch import Kernel, launch, load, multiprocessors
from quantgate_kernels.cuda.order import pieces_of, tiles_of
from quantgate_kernels.formats.rotation import block_of

N_TILES = (1, 2, 4, 8, 16)
"""How many n tiles of four tokens a kernel may have."""
MOST_TOKENS = 4 * N_TILES[-1]
OUTPUTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SHARED = 200 << 10  # bytes of shared memory that a block takes at most, of 227 KiB


@dataclass(frozen=True)
class Tuning:
    """What may be turned without another result: measured by benchmarks/kernels.py."""

    warps: int = 16
    prefetch: int = 4
    """Pieces that a warp loads ahead."""
    copies: int = 0
    """Of a table of 4,096 entries in shared memory, a power of two; 0: as `COPIES` says. Those of 256 have theirs."""
    slots: int = 8
    """Tiles of a warp between two barriers, where shared memory allows."""


DEFAULT = Tuning()
COPIES = {4: 4, 8: 2}
"""By weights an entry, of tables of 4,096."""


def n_tiles_of(tokens: int) -> int:
    """The least number of n tiles, of those that there are kernels for, that takes so many tokens."""
    return next(count for count in N_TILES if 4 * count >= tokens)


def definitions(
    inputs: int, dimensions: int, code_bits: int, n_tiles: int, out: torch.dtype, tuning: Tuning = DEFAULT
) -> dict[str, int]:
    """What the source is compiled with."""
    copies = (tuning.copies or COPIES[dimensions]) if code_bits == 12 else 1
    slot = tuning.warps * n_tiles * 64 * 4
    room = _SHARED - table_bytes(dimensions, code_bits, copies)
    return {
        "CODE_BITS": code_bits,
        "COPIES": copies,
        "DIMENSIONS": dimensions,
        "GROUP": block_of(inputs),
        "N_TILES": n_tiles,
        "OUT": OUTPUTS[out],
        "PREFETCH": tuning.prefetch,
        "SLOTS": max(1, min(tuning.slots, room // 2 // slot)),
        "WARPS": tuning.warps,
    }


def table_bytes(dimensions: int, code_bits: int, copies: int) -> int:
    """Shared memory that a table takes."""
    return 256 * 256 if code_bits == 8 else 4096 * dimensions * copies


def shared_bytes(numbers: dict[str, int]) -> int:
    """Shared memory of a block: the table, and the sums of `SLOTS` tiles of each warp."""
    table = table_bytes(numbers["DIMENSIONS"], numbers["CODE_BITS"], numbers["COPIES"])
    return table + numbers["SLOTS"] * numbers["WARPS"] * numbers["N_TILES"] * 64 * 4


@functools.cache
def kernel(
    device: int,
    inputs: int,
    dimensions: int,
    code_bits: int,
    n_tiles: int,
    out: torch.dtype,
    tuning: Tuning = DEFAULT,
) -> Kernel:
    """The kernel of a tier for so many n tiles: to be asked for once before a graph is captured."""
    numbers = definitions(inputs, dimensions, code_bits, n_tiles, out, tuning)
    source = source_of("fragments.cuh", "vq_gemv.cu")
    threads, shared = numbers["WARPS"] * 32, shared_bytes(numbers)
    return load(device, source, "vq_gemv", tuple(numbers.items()), threads, shared)


def compile_all(device: int, inputs: int, dimensions: int, code_bits: int, out: torch.dtype) -> None:
    """Have every kernel of a tier ready, several compiled at once."""
    with ThreadPoolExecutor(len(N_TILES)) as pool:
        for each in [pool.submit(kernel, device, inputs, dimensions, code_bits, n, out) for n in N_TILES]:
            each.result()


def splits_of(rows: int, inputs: int, blocks: int, warps: int) -> int:
    """Among how many warps the inputs of a tile are dealt: the number whose busiest warp has the fewest pieces."""
    tiles, pieces = tiles_of(rows), pieces_of(inputs)

    def cost(splits: int) -> tuple[int, int]:
        steps = -(-tiles // (blocks * (warps // splits)))
        return steps * -(-pieces // splits), -splits

    return min(range(1, min(warps, pieces) + 1), key=cost)


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
        codes: int32 [tiles, pieces, words], of `order.ordered_codes`.
        scales: fp16 of `order.ordered_scales`.
        table: int8 [entries, d].
        operands, factors: of `activations.to_operands`, for at least `n_tiles_of(M)` n tiles.
    """
    tokens, rows = out.shape
    device = out.device.index
    found = kernel(device, inputs, table.shape[1], code_bits, n_tiles_of(tokens), out.dtype, tuning)
    most = multiprocessors(device)
    splits = splits_of(rows, inputs, most, tuning.warps)
    blocks = min(most, -(-tiles_of(rows) // (tuning.warps // splits)))
    values = (codes, scales, table, operands, factors, out, tokens, rows, pieces_of(inputs), splits)
    launch(found, blocks, values, out.device, overlap)
