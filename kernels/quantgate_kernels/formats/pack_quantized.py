"""W4A16 in the compressed-tensors "pack-quantized" format, which stock vLLM and transformers load.

A Linear [O, I] with groups of g input columns is stored as `weight_packed` int32 [O, I/8], `weight_scale` bf16
[O, I/g] and `weight_shape` int64 [2]; the weight is code * scale, code in -8..7. Code j of a word sits in bits
4j..4j+3 as `code + 8` (lowest nibble first). Words run along the input dimension, so a row of a weight stays one
contiguous run and can be split by rows or by whole words.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quantgate_kernels.formats import words

FORMAT = "pack-quantized"
BITS, CODES_PER_WORD = 4, 8
LOWEST, HIGHEST = -8, 7


def pack_int4(codes: torch.Tensor) -> torch.Tensor:
    """Pack signed codes [O, I] (any integer dtype, each in -8..7) into int32 words [O, I/8].

    Raises:
        ValueError: `codes` is no matrix of integers, I is not a multiple of 8, or a code is out of range.
    """
    if codes.ndim != 2 or codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"codes must be a matrix of integers, not {codes.dtype} {list(codes.shape)}")
    if codes.shape[1] % CODES_PER_WORD:
        raise ValueError(f"the {codes.shape[1]} columns of the codes are not a multiple of {CODES_PER_WORD}")
    if codes.numel() and (int(codes.min()) < LOWEST or int(codes.max()) > HIGHEST):
        raise ValueError(f"codes must lie in {LOWEST}..{HIGHEST}")
    return words.pack(codes.to(torch.int32) - LOWEST, BITS)


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """Unpack int32 words [O, I/8] into int8 codes [O, I], each in -8..7: the inverse of `pack_int4`.

    Raises:
        ValueError: `packed` is no int32 matrix.
    """
    if packed.ndim != 2 or packed.dtype != torch.int32:
        raise ValueError(f"packed words must be an int32 matrix, not {packed.dtype} {list(packed.shape)}")
    return (words.unpack(packed, BITS) + LOWEST).to(torch.int8)


def encode(codes: torch.Tensor, scales: torch.Tensor) -> dict[str, torch.Tensor]:
    """Store integer codes [O, I] and scales [O, I/g] as the three tensors of the format, by their last name.

    Raises:
        ValueError: the scales do not fit the codes or are not all positive and finite.
    """
    _require_fit(codes, scales)
    stored = scales.to(torch.bfloat16)
    if not bool((torch.isfinite(stored) & (stored > 0)).all()):
        raise ValueError("every scale must be positive and finite")
    return {
        "weight_packed": pack_int4(codes),
        "weight_scale": stored.contiguous(),
        "weight_shape": torch.tensor(list(codes.shape), dtype=torch.int64),
    }


def decode(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The bf16 weight [O, I] that `encode`'s tensors stand for: code * scale, rounded to bf16 once.

    Raises:
        ValueError: the three tensors contradict each other.
        KeyError: one of them is absent.
    """
    codes, scales = unpack_int4(tensors["weight_packed"]), tensors["weight_scale"]
    shape = tensors["weight_shape"].tolist()
    if shape != list(codes.shape):
        raise ValueError(f"weight_shape says {shape} but weight_packed holds {list(codes.shape)}")
    return dequantize(codes, scales)


def dequantize(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Codes [O, I] times scales [O, I/g] as bf16 [O, I].

    Raises:
        ValueError: the shapes do not fit.
    """
    _require_fit(codes, scales)
    rows, columns = codes.shape
    grouped = codes.to(torch.float32).view(rows, scales.shape[1], -1)
    weight = torch.mul(grouped, scales.to(torch.float32).unsqueeze(2))
    return weight.view(rows, columns).to(torch.bfloat16)


def _require_fit(codes: torch.Tensor, scales: torch.Tensor) -> None:
    rows, columns = codes.shape
    if scales.ndim != 2 or scales.shape[0] != rows or scales.shape[1] == 0 or columns % scales.shape[1]:
        raise ValueError(f"scales {list(scales.shape)} do not fit codes {list(codes.shape)}")
