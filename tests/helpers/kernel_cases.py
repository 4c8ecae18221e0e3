"""Linears of vq tiers to try kernels with, and the kernels' sources on CPU fibers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cuda_fibers import Kernel
from quantgate_kernels.cuda import order
from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.vq import VQLayout, encode

TIERS = {"vq1": (8, 256), "vq1.5": (8, 4096), "vq2": (4, 256), "vq3": (4, 4096)}
"""Dimensions and entries by tier."""
TRELLISES = {"trellis1": 1, "trellis2": 2, "trellis3": 3, "trellis4": 4}
"""Bits a weight by tier."""
PTX = {
    "stream4": "return *(const uint4*)place;",
    "stream2": "return *(const uint2*)place;",
    "stream1": "return *place;",
    "fresh4": "return *(const uint4*)place;",
    "fresh2": "return *(const uint2*)place;",
    "fresh1": "return *place;",
    "fresh_word": "return *(const unsigned*)place;",
    "low_half": "return half_to_float(pair & 0xffff);",
    "high_half": "return half_to_float(pair >> 16);",
    "to_half": "return float_to_half(value);",
    "to_bfloat": "return float_to_bfloat(value);",
    "mma": "mma_s8(c, a, b0, b1);",
    "wait_for_inputs": "",
    "let_next_begin": "",
}
"""What stands for the functions of src/fragments.cuh that are written in PTX."""


def linear(
    name: str, rows: int, inputs: int, rotated: bool = True, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, torch.Tensor]]:
    """A random Linear of a tier, as it is stored: its tensors, the tier and the model's tables."""
    generator = torch.Generator().manual_seed(seed)
    if name in TRELLISES:
        return _trellis(TRELLISES[name], rows, inputs, rotated, generator)
    dimensions, entries = TIERS[name]
    codes = torch.randint(0, entries, (rows, inputs // dimensions), generator=generator, dtype=torch.int32)
    scales = 0.01 + 0.02 * torch.rand(rows, inputs // block_of(inputs), generator=generator)
    table = (torch.randn(entries, dimensions, generator=generator) * 32).round().clamp(-128, 127).to(torch.int8)
    rotation = {"kind": "signs+hadamard", "seed": 7} if rotated else None
    tier = {"format": "vq", "dimensions": dimensions, "entries": entries, "table": f"codebooks.{name}"}
    tables = {f"codebooks.{name}": table, f"signs.{inputs}": signs_of(inputs, 7)}
    return encode(codes, scales, VQLayout(dimensions, entries)), tier | {"rotation": rotation}, tables


def _trellis(
    bits: int, rows: int, inputs: int, rotated: bool, generator: torch.Generator
) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, torch.Tensor]]:
    assert rows % 16 == 0, "a trellis has whole tiles"
    shape = (rows // 16, inputs // 16 * 8 * bits)
    codes = torch.randint(-(1 << 31), 1 << 31, shape, generator=generator, dtype=torch.int32)
    scales = (0.01 + 0.02 * torch.rand(rows, inputs // block_of(inputs), generator=generator)).to(torch.float16)
    table = (torch.randn(65536, generator=generator) * 32).round().clamp(-128, 127).to(torch.int8)
    rotation = {"kind": "signs+hadamard", "seed": 7} if rotated else None
    tier = {"format": "trellis", "bits": bits, "state_bits": 16, "table": "trellis.16", "rotation": rotation}
    return {"codes": codes, "scales": scales}, tier, {"trellis.16": table, f"signs.{inputs}": signs_of(inputs, 7)}


def in_order(stored: dict[str, torch.Tensor], name: str, inputs: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Codes and scales in the kernels' order, and how they name the tier: weights and bits of a code."""
    scales = order.ordered_scales(stored["scales"], inputs)
    if name in TRELLISES:
        return order.ordered_trellis(stored["codes"], TRELLISES[name]), scales, 1, TRELLISES[name]
    dimensions, entries = TIERS[name]
    bits = entries.bit_length() - 1
    return order.ordered_codes(stored["codes"], dimensions, bits), scales, dimensions, bits


def on_fibers(folder: Path, name: str, files: tuple[str, ...], numbers: dict[str, int], **more: str) -> Kernel:
    """A kernel of src/ for the CPU; `more` stand for further functions in PTX."""
    folder.mkdir(exist_ok=True, parents=True)
    return Kernel(source_of(*files), name, numbers, folder, PTX | more)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of what is expected; not finite where anything is."""
    difference = found.to(torch.float64).cpu() - expected
    return float(difference.square().mean().sqrt() / expected.square().mean().sqrt())
