"""Linears of vq tiers to try kernels with, and the kernels' sources on CPU fibers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from cuda_fibers import Kernel
from quantgate_kernels.cuda import activations, order, vq_gemv
from quantgate_kernels.cuda.compile import source_of
from quantgate_kernels.cuda.tier import Tier, tier_of, trellis_table
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.vq import VQLayout, encode
from quantgate_kernels.tables import byte_sums

TIERS = {"vq1": (8, 256), "vq1.5": (8, 4096), "vq2": (4, 256), "vq3": (4, 4096)}
"""Dimensions and entries by tier."""
TRELLISES = {
    **{f"trellis{bits}": (bits, 16) for bits in (2, 3)},
    **{f"trellis{bits}-l12": (bits, 12) for bits in (2, 3)},
    "trellis2-l10": (2, 10),
    **{f"trellis{bits}-sums": (bits, 16) for bits in (1, 2, 3, 4)},
}
"""Bits a weight and of a state by tier; the last have byte sums."""
PTX = {
    "stream4": "return *(const uint4*)place;",
    "stream2": "return *(const uint2*)place;",
    "stream1": "return *place;",
    "fresh4": "return *(const uint4*)place;",
    "fresh2": "return *(const uint2*)place;",
    "fresh1": "return *place;",
    "fresh_word": "return *(const unsigned*)place;",
    "copy16_if": "if (any) *(uint4*)to = *(const uint4*)from;",
    "commit_copies": "",
    "wait_for_copies": "",
    "low_half": "return half_to_float(pair & 0xffff);",
    "high_half": "return half_to_float(pair >> 16);",
    "to_half": "return float_to_half(value);",
    "to_bfloat": "return float_to_bfloat(value);",
    "half_pair": "return float_to_half(first) | float_to_half(second) << 16;",
    "bfloat_pair": "return float_to_bfloat(first) | float_to_bfloat(second) << 16;",
    "mma": "mma_s8(c, a, b0, b1);",
    "wait_for_inputs": "",
    "let_next_begin": "",
}
"""What stands for the functions of src/fragments.cuh that are written in PTX."""
HALVES = {
    "steps_of": "return float_to_half(half_to_float(pair & 0xffff) / 32 - 36) | "
    "float_to_half(half_to_float(pair >> 16) / 32 - 36) << 16;",
    "sum_steps_of": "return float_to_half(half_to_float(pair & 0xffff) / 128 - 12) | "
    "float_to_half(half_to_float(pair >> 16) / 128 - 12) << 16;",
    "times": "return float_to_half(half_to_float(pair & 0xffff) * half_to_float(other & 0xffff)) | "
    "float_to_half(half_to_float(pair >> 16) * half_to_float(other >> 16)) << 16;",
}
"""And for those of src/halves.cuh."""


def linear(
    name: str, rows: int, inputs: int, rotated: bool = True, seed: int = 0
) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, torch.Tensor]]:
    """A random Linear of a tier, as it is stored: its tensors, the tier and the model's tables."""
    generator = torch.Generator().manual_seed(seed)
    if name in TRELLISES:
        return _trellis(name, rows, inputs, rotated, generator)
    dimensions, entries = TIERS[name]
    codes = torch.randint(0, entries, (rows, inputs // dimensions), generator=generator, dtype=torch.int32)
    scales = 0.01 + 0.02 * torch.rand(rows, inputs // block_of(inputs), generator=generator)
    table = (torch.randn(entries, dimensions, generator=generator) * 32).round().clamp(-128, 127).to(torch.int8)
    rotation = {"kind": "signs+hadamard", "seed": 7} if rotated else None
    tier = {"format": "vq", "dimensions": dimensions, "entries": entries, "table": f"codebooks.{name}"}
    tables = {f"codebooks.{name}": table, f"signs.{inputs}": signs_of(inputs, 7)}
    return encode(codes, scales, VQLayout(dimensions, entries)), tier | {"rotation": rotation}, tables


def _trellis(
    name: str, rows: int, inputs: int, rotated: bool, generator: torch.Generator
) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, torch.Tensor]]:
    assert rows % 16 == 0, "a trellis has whole tiles"
    bits, state_bits = TRELLISES[name]
    shape = (rows // 16, inputs // 16 * 8 * bits)
    codes = torch.randint(-(1 << 31), 1 << 31, shape, generator=generator, dtype=torch.int32)
    scales = (0.01 + 0.02 * torch.rand(rows, inputs // block_of(inputs), generator=generator)).to(torch.float16)
    table = (torch.randn(1 << state_bits, generator=generator) * 32).round().clamp(-128, 127).to(torch.int8)
    if name.endswith("-sums"):
        table = byte_sums()
    rotation = {"kind": "signs+hadamard", "seed": 7} if rotated else None
    tier = {"format": "trellis", "bits": bits, "state_bits": state_bits, "table": "trellis", "rotation": rotation}
    return {"codes": codes, "scales": scales}, tier, {"trellis": table, f"signs.{inputs}": signs_of(inputs, 7)}


class Ordered(NamedTuple):
    """A Linear in the kernels' order."""

    codes: torch.Tensor
    scales: torch.Tensor
    table: torch.Tensor
    tier: Tier


def in_order(
    stored: dict[str, torch.Tensor], tier: dict[str, Any], tables: dict[str, torch.Tensor], inputs: int
) -> Ordered:
    """What `ops.prepare` makes of a Linear, on the CPU."""
    scales, table = order.ordered_scales(stored["scales"], inputs), tables[tier["table"]]
    if tier["format"] == "trellis":
        table = trellis_table(table)
        return Ordered(
            order.ordered_trellis(stored["codes"], tier["bits"]), scales, table, tier_of(table, tier["bits"])
        )
    kind = tier_of(table, len(table).bit_length() - 1)
    return Ordered(order.ordered_codes(stored["codes"], *kind[:2]), scales, table, kind)


def on_fibers(name: str, files: tuple[str, ...], numbers: dict[str, int], **more: str) -> Kernel:
    """A kernel of src/ for the CPU; `more` stand for further functions in PTX."""
    return Kernel(source_of(*files), name, numbers, PTX | more)


def quantized(x: torch.Tensor, signs: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
    """Operands and factors, as the kernel ahead leaves them."""
    tokens, inputs = x.shape
    files, numbers = activations.FILES, activations.definitions(inputs, x.dtype)
    kernel = on_fibers("activations", files, dict(numbers))
    operands, factors = activations.room(tokens, inputs, vq_gemv.n_tiles_of(tokens), x.device)
    operands.fill_(0x7F7F7F7F)
    factors.fill_(torch.nan)
    blocks = -(-tokens * order.pieces_of(inputs) // 4)
    kernel((blocks,), 128, [x, signs, operands, factors, tokens, inputs])
    return operands, factors


def halved(x: torch.Tensor, signs: torch.Tensor | int, padded: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Halves and factors of so many tokens, as the kernel ahead of that for more tokens leaves them."""
    tokens, inputs = x.shape
    numbers = dict(activations.half_definitions(inputs, x.dtype))
    kernel = on_fibers("half_activations", activations.HALF_FILES, numbers)
    halves, factors = activations.halves_room(padded, inputs, x.device)
    halves.fill_(torch.nan)
    factors.fill_(torch.nan)
    kernel((tokens,), activations.half_threads(inputs), [x, signs, halves, factors, padded, inputs])
    return halves, factors


def inputs_of(tokens: int, inputs: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return (torch.randn(tokens, inputs, generator=generator) * 3).to(dtype)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of what is expected; not finite where anything is."""
    difference = found.to(torch.float64).cpu() - expected
    return float(difference.square().mean().sqrt() / expected.square().mean().sqrt())
