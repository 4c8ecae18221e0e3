"""y = W x of many tokens: the weight as float16 in the basis of its codes, then a matrix product of torch's.

Float16 holds a weight to 11 bits and no token's range is its own: each token is brought to a safe range by a power of
two, which the result is multiplied by. `src/dequantize.cu` has the kernels; beside such products nothing is won by
letting them overlap.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch

from quantgate_kernels.cuda.activations import DTYPES
from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.launch import Kernel, launch, load, multiprocessors
from quantgate_kernels.cuda.order import ROWS, pieces_of, tiles_of
from quantgate_kernels.cuda.tier import Tier, table_bytes, tier_of
from quantgate_kernels.cuda.tier import definitions as tier_definitions
from quantgate_kernels.cuda.tier import files as tier_files
from quantgate_kernels.formats.rotation import block_of

WEIGHTS_AT_ONCE = 1 << 27
"""Weights that are dequantized at once: 256 MiB."""
TOKENS_AT_ONCE = 4096


def definitions(inputs: int, tier: Tier, dtype: torch.dtype) -> tuple[tuple[str, int], ...]:
    """What the source is compiled with; `dtype` is that of the activations and of the results."""
    return (
        *tier_definitions(tier, 1).items(),
        ("GROUP", block_of(inputs)),
        ("OUT_BFLOAT", DTYPES[dtype]),
        ("X_BFLOAT", DTYPES[dtype]),
    )


def files_of(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """The source of the kernels."""
    return (*tier_files(numbers), "rotation.cuh", "halves.cuh", "dequantize.cu")


@functools.cache
def _kernel(name: str, device: int, inputs: int, tier: Tier, dtype: torch.dtype) -> Kernel:
    threads = 512 if name == "vq_dequantize" else 256
    numbers = definitions(inputs, tier, dtype)
    shared = table_bytes(dict(numbers)) if name == "vq_dequantize" else 0
    return load(device, source_of(*files_of(dict(numbers))), name, numbers, threads, shared)


def compile_all(device: int, inputs: int, tier: Tier, dtype: torch.dtype) -> None:
    """Have the kernels ready that `linear` needs."""
    for name in ("vq_dequantize", "rotate", "rescale"):
        _kernel(name, device, inputs, tier, dtype)


def dequantize(
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    out: torch.Tensor,
    first: int,
    code_bits: int,
    dtype: torch.dtype,
) -> None:
    """Write rows from `first` (a multiple of 16) of the weight as it is stored, rotated, to `out` float16 [rows, I]."""
    rows, inputs = out.shape
    device = out.device.index
    found = _kernel("vq_dequantize", device, inputs, tier_of(table, code_bits), dtype)
    blocks = min(2 * multiprocessors(device), tiles_of(rows) * pieces_of(inputs))
    launch(found, blocks, [codes, scales, table, out, first, rows, inputs], out.device, overlap=False)


def linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    signs: torch.Tensor | None,
    code_bits: int,
    out: torch.Tensor,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> None:
    """y [M, O] of x [M, I] into `out` of the same dtype, bfloat16 or float16; arguments as in ops/linear.py."""
    tokens, inputs = x.shape
    rows, device = out.shape[1], x.device
    tier = tier_of(table, code_bits)
    rotated = torch.empty(tokens, inputs, dtype=torch.float16, device=device)
    factors = torch.empty(tokens, dtype=torch.float32, device=device)
    step = min(-(-rows // ROWS) * ROWS, max(1, WEIGHTS_AT_ONCE // inputs // ROWS) * ROWS)
    for row in range(0, rows, step):
        weight = torch.empty(min(step, rows - row), inputs, dtype=torch.float16, device=device)
        dequantize(codes, scales, table, weight, row, code_bits, x.dtype)
        for token in range(0, tokens, tokens_at_once):
            part = slice(token, token + tokens_at_once)
            if row == 0:
                rotate(x[part], signs, rotated[part], factors[part], tier)
            rescale(torch.mm(rotated[part], weight.T), factors[part], out[part, row:], inputs, tier)


def rotate(
    x: torch.Tensor, signs: torch.Tensor | None, rotated: torch.Tensor, factors: torch.Tensor, tier: Tier
) -> None:
    """Tokens [M, I] of a safe range in float16, turned, and what one unit of each is worth [M]."""
    found = _kernel("rotate", x.device.index, x.shape[1], tier, x.dtype)
    launch(found, len(x), [x, signs, rotated, factors, x.shape[1]], x.device, overlap=False)


def rescale(products: torch.Tensor, factors: torch.Tensor, out: torch.Tensor, inputs: int, tier: Tier) -> None:
    """Products [M, R] times their tokens' factors into the first R columns of rows of `out`."""
    found = _kernel("rescale", out.device.index, inputs, tier, out.dtype)
    values = (products, factors, out, products.shape[1], out.stride(0))
    launch(found, len(products), values, out.device, overlap=False)
