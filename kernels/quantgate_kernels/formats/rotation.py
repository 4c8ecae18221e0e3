"""Rotation of a Linear's inputs: random signs, then a Hadamard matrix on each block of neighbouring inputs.

A weight W [O, I] is stored as W' = W D H, and a server multiplies it with H D x: D are signs, one for each input, H is
orthogonal and symmetric. Outliers of single inputs are spread over their block, so that codes fit all of it.
"""

from __future__ import annotations

import functools

import torch

BLOCKS = (128, 64, 32)


def block_of(columns: int) -> int:
    """Inputs that are rotated together, and that share a scale: the largest of 128, 64, 32 that divides `columns`.

    Raises:
        ValueError: none does.
    """
    for block in BLOCKS:
        if columns % block == 0:
            return block
    raise ValueError(f"{columns} inputs are no multiple of {BLOCKS[-1]}")


@functools.cache
def signs_of(columns: int, seed: int) -> torch.Tensor:
    """Random signs [columns], int8 of -1 and 1; those of a model's inputs of one width are all the same."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + columns)
    # a server has another default device while it loads
    return torch.randint(0, 2, (columns,), generator=generator, dtype=torch.int8, device="cpu") * 2 - 1


@functools.cache
def hadamard(size: int) -> torch.Tensor:
    """Sylvester's Hadamard matrix [size, size] over sqrt(size), float32: orthogonal and symmetric."""
    matrix = torch.ones(1, 1, dtype=torch.float32, device="cpu")  # a server has other defaults while it loads
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return torch.mul(matrix, size**-0.5)


def rotate(values: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """H D on the last dimension of `values` [..., I]: of activations as of the rows of a weight."""
    return _blocks(values * signs)


def unrotate(values: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """The inverse of `rotate`."""
    return _blocks(values) * signs


def _blocks(values: torch.Tensor) -> torch.Tensor:
    block = block_of(values.shape[-1])
    return (values.reshape(-1, block) @ _hadamard(block, values.dtype, values.device)).view(values.shape)


@functools.cache
def _hadamard(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return hadamard(size).to(device, dtype)
