"""Activations as the operands of tensor cores: `src/activations.cu` (int8), `src/half_activations.cu` (float16)."""

from __future__ import annotations

import functools

import torch

from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.launch import Kernel, launch, load
from quantgate_kernels.cuda.order import PIECE, pieces_of
from quantgate_kernels.formats.rotation import block_of

TOKENS = 4
"""Tokens of an n tile: two of the eight columns each."""
DTYPES = {torch.bfloat16: 1, torch.float16: 0}
FILES = ("fragments.cuh", "rotation.cuh", "operands.cuh", "activations.cu")
HALF_FILES = (*FILES[:2], "half_activations.cu")
_THREADS = 128
_MOST_THREADS = 1024


def n_tiles_of(tokens: int) -> int:
    """N tiles of so many tokens."""
    return -(-tokens // TOKENS)


@functools.cache
def kernel(device: int, inputs: int, dtype: torch.dtype) -> Kernel:
    """The kernel for inputs of a dtype: to be asked for once before a graph is captured."""
    numbers = definitions(inputs, dtype)
    return load(device, source_of(*FILES), "activations", numbers, _THREADS)


@functools.cache
def half_kernel(device: int, inputs: int, dtype: torch.dtype) -> Kernel:
    """That of `to_halves`."""
    numbers, threads = half_definitions(inputs, dtype), half_threads(inputs)
    return load(device, source_of(*HALF_FILES), "half_activations", numbers, threads)


def half_threads(inputs: int) -> int:
    """Of a block that turns a token: a warp takes 512 inputs."""
    return min(_MOST_THREADS, -(-inputs // 512) * 32)


def half_definitions(inputs: int, dtype: torch.dtype) -> tuple[tuple[str, int], ...]:
    """What the source of `to_halves` is compiled with."""
    return (*definitions(inputs, dtype), ("WARPS", half_threads(inputs) // 32))


def definitions(inputs: int, dtype: torch.dtype) -> tuple[tuple[str, int], ...]:
    """What the source is compiled with; the tier does not matter to it."""
    return (
        ("CODE_BITS", 8),
        ("COPIES", 1),
        ("DIMENSIONS", 4),
        ("GROUP", block_of(inputs)),
        ("X_BFLOAT", DTYPES[dtype]),
    )


def room(tokens: int, inputs: int, n_tiles: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands int32 [n tiles, pieces, 256] and factors float32 [n tiles, pieces, groups of a piece, 4], not filled.

    `n_tiles` of them, which may be more than the tokens have.
    """
    count = max(n_tiles, n_tiles_of(tokens))
    pieces = pieces_of(inputs)
    operands = torch.empty(count, pieces, 256, dtype=torch.int32, device=device)
    return operands, torch.empty(count, pieces, PIECE // block_of(inputs), TOKENS, dtype=torch.float32, device=device)


def to_operands(
    x: torch.Tensor, signs: torch.Tensor | None, operands: torch.Tensor, factors: torch.Tensor, overlap: bool = True
) -> None:
    """Fill `room` from activations [M, I], bfloat16 or float16; `signs` int8 [I] turn them, None leaves them."""
    tokens, inputs = x.shape
    blocks = -(-tokens * pieces_of(inputs) // (_THREADS // 32))
    found = kernel(x.device.index or 0, inputs, x.dtype)
    launch(found, blocks, [x, signs, operands, factors, tokens, inputs], x.device, overlap)


def halves_room(padded: int, inputs: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Halves [pieces, 16, padded tokens, 8] and factors float32 [padded tokens], not filled."""
    halves = torch.empty(pieces_of(inputs), PIECE // 8, padded, 8, dtype=torch.float16, device=device)
    return halves, torch.empty(padded, dtype=torch.float32, device=device)


def to_halves(
    x: torch.Tensor, signs: torch.Tensor | None, halves: torch.Tensor, factors: torch.Tensor, overlap: bool = True
) -> None:
    """Fill `halves_room` from activations [M, I], as `to_operands` does."""
    tokens, inputs = x.shape
    found = half_kernel(x.device.index or 0, inputs, x.dtype)
    launch(found, tokens, [x, signs, halves, factors, halves.shape[2], inputs], x.device, overlap)
