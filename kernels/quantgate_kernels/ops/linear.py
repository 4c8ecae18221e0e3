"""A quantized Linear on a GPU: `prepare` once when it is loaded, `apply` from then on.

`apply` is one custom op with a fake implementation, of plain tensors and integers, so that torch.compile sees one node
and a CUDA graph captures its launches. Nothing is compiled, loaded or waited for in it, and what it needs beside its
result comes from torch's allocator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quantgate_kernels.cuda import activations, dequantize, order, vq_gemm, vq_gemv
from quantgate_kernels.cuda.tier import tier_of, trellis_table
from quantgate_kernels.formats import trellis, vq
from quantgate_kernels.formats.rotation import block_of

MOST_DECODED = 256
"""Tokens up to which the codes are read anew for every 64 of them; more are cheaper by a dequantized weight."""


@dataclass(frozen=True)
class Prepared:
    """One Linear, or the rows of several of the same tier, in the kernels' order on its device."""

    codes: torch.Tensor
    """int32 [tiles, pieces, words] (cuda/order.py)."""
    scales: torch.Tensor
    """float16 [tiles, pieces, groups of a piece, 8, 2]."""
    table: torch.Tensor
    """int8 [entries, d], of a trellis [4096 or 65536, 1], of byte sums int16; if `tables` lay on the device, all
    Linears of a vq tier have the same storage."""
    signs: torch.Tensor | None
    """int8 [I], or None without a rotation."""
    rows: int
    inputs: int
    code_bits: int


def prepare(
    stored: Mapping[str, torch.Tensor],
    tier: Mapping[str, Any],
    tables: Mapping[str, torch.Tensor],
    device: torch.device | str,
) -> Prepared:
    """Reorder a stored Linear for the kernels, and have every kernel that `apply` may need compiled and loaded.

    Args:
        stored: `codes` int32 [O, W] (of a trellis [O / 16, W]) and `scales` float16 [O, I / g] (FORMAT.md), found
            sound by the validator; rows of several Linears of one tier may be concatenated. `signs` int8 [I], if
            there, are a shard's own: those of its inputs among all.
        tier: as config.json has it.
        tables: of the model, by name.
        device: a Hopper GPU or newer.

    Raises:
        ValueError: no kernel knows the tier, or its tensors do not fit each other.
        CompileError, LaunchError: the GPU, its driver or the compiler is missing or refuses.
    """
    if tier["format"] not in (vq.FORMAT, trellis.FORMAT):
        raise ValueError(f"no GPU kernel reads the format {tier['format']!r}: requantize to a tier of vq or trellis")
    place = torch.device(device)
    if place.type != "cuda":
        raise ValueError(f"these kernels run on a GPU, not on {place}: use quantgate_kernels.formats there")
    place = torch.device("cuda", torch.cuda.current_device() if place.index is None else place.index)
    is_vq = tier["format"] == vq.FORMAT
    table, words = tables[tier["table"]], stored["codes"].shape[1]
    if is_vq:
        kind = tier_of(table, len(table).bit_length() - 1)
        rows, inputs = len(stored["codes"]), words * 32 // kind.code_bits * kind.dimensions
    else:
        table = trellis_table(table)
        kind = tier_of(table, tier["bits"])
        rows, inputs = len(stored["codes"]) * order.ROWS, words * 2 // kind.code_bits
    if stored["scales"].shape != (rows, inputs // block_of(inputs)):
        raise ValueError(f"scales {list(stored['scales'].shape)} do not fit codes of [{rows}, {inputs}] weights")
    signs = None
    if tier["rotation"] is not None:
        signs = stored["signs"] if "signs" in stored else tables[f"signs.{inputs}"]
        if signs.shape != (inputs,):
            raise ValueError(f"signs {list(signs.shape)} do not fit {inputs} inputs: slice them as the codes are")
    vq_gemv.compile_all(place.index, rows, inputs, kind, vq_gemm.least_tokens(rows, inputs) - 1)
    vq_gemm.compile_all(place.index, rows, inputs, kind)
    for dtype in activations.DTYPES:
        activations.kernel(place.index, inputs, dtype)
        activations.half_kernel(place.index, inputs, dtype)
        dequantize.compile_all(place.index, inputs, kind, dtype)
    codes = stored["codes"].to(place)
    found = Prepared(
        codes=order.ordered_codes(codes, *kind[:2]) if is_vq else order.ordered_trellis(codes, kind.code_bits),
        scales=order.ordered_scales(stored["scales"].to(place), inputs),
        table=table.to(place).contiguous(),
        signs=None if signs is None else signs.to(place).contiguous(),
        rows=rows,
        inputs=inputs,
        code_bits=kind.code_bits,
    )
    torch.cuda.current_stream(place).synchronize()  # kernels read codes before they wait for what is ahead of them
    return found


def apply(x: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """y = x W^T [..., O] of activations [..., I], bfloat16 or float16, in their dtype."""
    found: torch.Tensor = torch.ops.quantgate.vq_linear(
        x,
        prepared.codes,
        prepared.scales,
        prepared.table,
        prepared.signs,
        prepared.rows,
        prepared.code_bits,
    )
    return found


_LIBRARY = torch.library.Library("quantgate", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "vq_linear(Tensor x, Tensor codes, Tensor scales, Tensor table, Tensor? signs, int rows, int code_bits) -> Tensor"
)


def _vq_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    signs: torch.Tensor | None,
    rows: int,
    code_bits: int,
) -> torch.Tensor:
    flat = x.reshape(-1, x.shape[-1]).contiguous()
    if flat.data_ptr() % 16:  # a part of another tensor's only row; kernels read 16 bytes at once
        flat = flat.clone()
    out = torch.empty(len(flat), rows, dtype=x.dtype, device=x.device)
    weight = (codes, scales, table)
    if len(flat) > MOST_DECODED:
        dequantize.linear(flat, *weight, signs, code_bits, out)
    elif len(flat):
        decode(flat, *weight, signs, code_bits, out)
    return out.view(*x.shape[:-1], rows)


def decode(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    signs: torch.Tensor | None,
    code_bits: int,
    out: torch.Tensor,
    overlap: bool = True,
    tuning: vq_gemv.Tuning | None = None,
) -> None:
    """y [M, O] of x [M, I] into `out`, from the codes themselves, 64 tokens at a time.

    With `tuning` it is `vq_gemv` however many tokens there are, and that in place of `vq_gemv.tuning_of`.
    """
    inputs, tier = x.shape[1], tier_of(table, code_bits)
    for first in range(0, len(x), vq_gemv.MOST_TOKENS):
        part, rows = x[first : first + vq_gemv.MOST_TOKENS], out[first : first + vq_gemv.MOST_TOKENS]
        chosen = tuning or vq_gemv.tuning_of(x.device.index, out.shape[1], inputs, tier, len(part))
        if chosen.fused and vq_gemv.can_fuse(len(part), inputs, tier):
            vq_gemv.gemv_of_token(codes, scales, table, part, signs, rows, code_bits, overlap, chosen)
            continue
        if tuning is None and len(part) >= vq_gemm.least_tokens(out.shape[1], inputs):
            halves = activations.halves_room(8 * vq_gemm.n_tiles_of(len(part)), inputs, x.device)
            activations.to_halves(part, signs, *halves, overlap)
            vq_gemm.gemm(codes, scales, table, *halves, rows, inputs, code_bits, overlap)
            continue
        operands = activations.room(len(part), inputs, vq_gemv.n_tiles_of(len(part)), x.device)
        activations.to_operands(part, signs, *operands, overlap)
        vq_gemv.gemv(codes, scales, table, *operands, rows, inputs, code_bits, overlap, chosen)


def _fake(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    table: torch.Tensor,
    signs: torch.Tensor | None,
    rows: int,
    code_bits: int,
) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], rows))


_LIBRARY.impl("vq_linear", _vq_linear, "CUDA")  # type: ignore[no-untyped-call]
torch.library.register_fake("quantgate::vq_linear", _fake, lib=_LIBRARY)
