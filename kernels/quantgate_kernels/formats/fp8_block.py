"""8-bit floats with a scale for each block of 128 x 128 weights: the layout of DeepSeek-V3, `quant_method: fp8`.

A Linear [O, I] is stored as `weight` float8_e4m3fn [O, I] and `weight_scale_inv` float32 [ceil(O/128), ceil(I/128)];
the weight is weight * weight_scale_inv of its block. Blocks at the lower and right edge may be smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

FORMAT = "fp8-block"
PARTS = ("weight_scale_inv", "weight")
"""What is stored of a Linear."""
BLOCK = 128
LARGEST = 448.0
"""The largest float8_e4m3fn."""


def encode(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight [O, I] to 8-bit floats [O, I] and scales float32 [ceil(O/128), ceil(I/128)].

    The largest weight of a block becomes the largest float. A block of zeros has the scale 1.

    Raises:
        ValueError: the weight is no matrix.
    """
    if weight.ndim != 2:
        raise ValueError(f"the weight must be a matrix, not {list(weight.shape)}")
    rows, columns = weight.shape
    high, wide = math.ceil(rows / BLOCK), math.ceil(columns / BLOCK)
    padded = torch.zeros(high * BLOCK, wide * BLOCK, dtype=torch.float32, device=weight.device)
    padded[:rows, :columns] = weight.abs()
    scales = padded.view(high, BLOCK, wide, BLOCK).amax(dim=(1, 3)) / LARGEST
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    scaled = weight.to(torch.float32) / spread(scales, rows, columns)
    return scaled.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scales


def spread(scales: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The scale of each weight [rows, columns] of scales [ceil(rows/128), ceil(columns/128)].

    Raises:
        ValueError: there are not so many scales.
    """
    if tuple(scales.shape) != (math.ceil(rows / BLOCK), math.ceil(columns / BLOCK)):
        raise ValueError(f"scales {list(scales.shape)} do not fit blocks of {BLOCK} of [{rows}, {columns}]")
    return scales.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :columns]


def decode(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The weight float32 [O, I] that the two stored tensors stand for.

    Raises:
        ValueError: they contradict each other.
        KeyError: one of them is absent.
    """
    weight, scales = tensors["weight"], tensors["weight_scale_inv"]
    if weight.dtype != torch.float8_e4m3fn or weight.ndim != 2:
        raise ValueError(f"the weight must be a matrix of float8_e4m3fn, not {weight.dtype} {list(weight.shape)}")
    rows, columns = weight.shape
    return weight.to(torch.float32) * spread(scales.to(torch.float32), rows, columns)


def read(
    tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """`decode` of a tier as config.json has it. Raises as `decode`."""
    return decode(tensors)
