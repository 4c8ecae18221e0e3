"""Integers of 2, 3, 4 or 8 bits in the compressed-tensors format "pack-quantized", which transformers loads.

A Linear [O, I] with groups of g input columns is stored as `weight_packed` int32 [O, I*bits/32], `weight_scale`
[O, I/g] and `weight_shape` int64 [2]; the weight is code * scale. A code is stored as `code + 2^(bits-1)`, the first
in the lowest bits of a word (formats/words.py). Words run along the input dimension, so a row of a weight stays one
contiguous run and can be split by rows or by whole groups.

At 2, 4 and 8 bits these are the words of compressed-tensors. At 3 bits there is no common layout: compressed-tensors
puts ten codes into a word and leaves two bits unused, vLLM 0.32 asks for ceil(I*3/32) words, which that is not. Here
codes of 3 bits are one stream without gaps, in checkpoints of ours only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from quantgate_kernels.formats import rotation, words

FORMAT = "pack-quantized"
PARTS = ("weight_packed", "weight_scale", "weight_shape")
"""What is stored of a Linear."""
WIDTHS = (2, 3, 4, 8)
"""Bits of a code."""


def limits(bits: int) -> tuple[int, int]:
    """The lowest and the highest code of `bits` bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack signed codes [O, I] (any integer dtype) of `bits` bits into int32 words [O, I*bits/32].

    Raises:
        ValueError: `codes` is no matrix of integers, a row does not fill whole words, or a code is out of range.
    """
    if codes.ndim != 2 or codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"codes must be a matrix of integers, not {codes.dtype} {list(codes.shape)}")
    lowest, highest = _limits(bits)
    if codes.numel() and (int(codes.min()) < lowest or int(codes.max()) > highest):
        raise ValueError(f"codes must lie in {lowest}..{highest}")
    return words.pack(codes.to(torch.int32) - lowest, bits)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpack int32 words [O, W] into int8 codes [O, W*32/bits]: the inverse of `pack`.

    Raises:
        ValueError: `packed` is no int32 matrix of whole groups of words.
    """
    if packed.ndim != 2 or packed.dtype != torch.int32:
        raise ValueError(f"packed words must be an int32 matrix, not {packed.dtype} {list(packed.shape)}")
    lowest, _ = _limits(bits)
    return (words.unpack(packed, bits) + lowest).to(torch.int8)


def encode(
    codes: torch.Tensor, scales: torch.Tensor, bits: int, scale_dtype: torch.dtype = torch.bfloat16
) -> dict[str, torch.Tensor]:
    """Store integer codes [O, I] and scales [O, I/g] as the three tensors of the format, by their last name.

    Raises:
        ValueError: the scales do not fit the codes or are not all positive and finite in `scale_dtype`; as `pack`.
    """
    _require_fit(codes, scales)
    stored = scales.to(scale_dtype)
    if not bool((torch.isfinite(stored) & (stored > 0)).all()):
        raise ValueError("every scale must be positive and finite")
    return {
        "weight_packed": pack(codes, bits),
        "weight_scale": stored.contiguous(),
        "weight_shape": torch.tensor(list(codes.shape), dtype=torch.int64),
    }


def decode(tensors: Mapping[str, torch.Tensor], bits: int) -> torch.Tensor:
    """The weight float32 [O, I] that `encode`'s tensors stand for: code * scale.

    Raises:
        ValueError: the three tensors contradict each other.
        KeyError: one of them is absent.
    """
    codes, scales = unpack(tensors["weight_packed"], bits), tensors["weight_scale"]
    shape = tensors["weight_shape"].tolist()
    if shape != list(codes.shape):
        raise ValueError(f"weight_shape says {shape} but weight_packed holds {list(codes.shape)}")
    return dequantize(codes, scales)


def read(
    tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """`decode` of a tier as config.json has it: `bits`, and `rotation` says whether inputs are turned.

    Raises:
        ValueError: as `decode`; the bits are none of `WIDTHS`.
        KeyError: a tensor, a table or a setting is absent.
    """
    weight = decode(tensors, tier["bits"])
    return weight if tier["rotation"] is None else rotation.unrotate(weight, tables[f"signs.{weight.shape[1]}"])


def dequantize(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Codes [O, I] times scales [O, I/g] as float32 [O, I].

    Raises:
        ValueError: the shapes do not fit.
    """
    _require_fit(codes, scales)
    grouped = codes.to(torch.float32).view(len(codes), scales.shape[1], -1)
    return torch.mul(grouped, scales.to(torch.float32).unsqueeze(2)).view(codes.shape)


def _limits(bits: int) -> tuple[int, int]:
    if bits not in WIDTHS:
        raise ValueError(f"codes have {', '.join(map(str, WIDTHS))} bits, not {bits}")
    return limits(bits)


def _require_fit(codes: torch.Tensor, scales: torch.Tensor) -> None:
    rows, columns = codes.shape
    if scales.ndim != 2 or scales.shape[0] != rows or scales.shape[1] == 0 or columns % scales.shape[1]:
        raise ValueError(f"scales {list(scales.shape)} do not fit codes {list(codes.shape)}")
