"""Additive quantization as the AQLM project stores it: groups of weights are sums of entries of M codebooks.

A Linear [O, I] in groups of o x i weights (o is 1 nearly always) is stored as `codes` [O/o, I/i, M], `codebooks` fp16
[M, 2^bits, o, i] and `scales` fp16 [O/o, 1, 1, 1]. A group is scale * sum over m of codebooks[m, codes[.., m]]. Codes
are int8 up to 8 bits and int16 up to 16, and wrap: the upper half of a codebook is stored as code - 2^bits. What
transformers reads (and vLLM read until its aqlm support was removed) has one layout for a whole model, in config.json:

    {"quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8, "out_group_size": 1, "in_group_size": 8,
     "linear_weights_not_to_quantize": ["lm_head.weight", ...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

FORMAT = "aqlm"
PARTS = ("codebooks", "codes", "scales")
"""What is stored of a Linear."""


@dataclass(frozen=True)
class AQLMLayout:
    """M codebooks of 2^bits entries (bits at most 16), each of `in_group` neighbouring inputs of `out_group` rows."""

    books: int
    bits: int
    in_group: int = 8
    out_group: int = 1

    @property
    def entries(self) -> int:
        return 1 << self.bits

    @property
    def dtype(self) -> torch.dtype:
        """Of stored codes."""
        return torch.int8 if self.bits <= 8 else torch.int16

    def settings(self) -> dict[str, int]:
        """The layout in the words of config.json."""
        return {
            "num_codebooks": self.books,
            "nbits_per_codebook": self.bits,
            "out_group_size": self.out_group,
            "in_group_size": self.in_group,
        }

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of the three tensors of a weight [rows, columns]."""
        codes = rows // self.out_group * (columns // self.in_group) * self.books * self.dtype.itemsize
        return codes + 2 * self.books * self.entries * self.out_group * self.in_group + 2 * (rows // self.out_group)


def encode(codes: torch.Tensor, codebooks: torch.Tensor, scales: torch.Tensor) -> dict[str, torch.Tensor]:
    """Store codes [O/o, I/i, M] (integers from 0), codebooks [M, 2^bits, o, i] and scales [O/o] by their last name.

    Raises:
        ValueError: they do not fit each other, a code is beyond its codebook, or an entry or scale is not finite in
            fp16, or a scale is not positive.
    """
    books, entries, out_group, in_group = codebooks.shape
    layout = AQLMLayout(books, entries.bit_length() - 1, in_group, out_group)
    if layout.entries != entries or layout.bits > 16:
        raise ValueError(f"codebooks of {entries} entries: a power of two up to 65,536 is needed")
    if codes.ndim != 3 or codes.shape[2] != books or scales.shape != (len(codes),):
        raise ValueError(f"scales {list(scales.shape)} and {books} codebooks do not fit codes {list(codes.shape)}")
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= entries):
        raise ValueError(f"codes must lie in 0..{entries - 1}")
    tables, stored = codebooks.to(torch.float16), scales.to(torch.float16)
    if not bool(torch.isfinite(tables).all() and (torch.isfinite(stored) & (stored > 0)).all()):
        raise ValueError("every entry must be finite, and every scale positive and finite")
    signed = codes.to(torch.int32) - (codes >= entries // 2).to(torch.int32) * entries
    return {
        "codebooks": tables.contiguous(),
        "codes": signed.to(layout.dtype).contiguous(),
        "scales": stored.view(-1, 1, 1, 1).contiguous(),
    }


def decode(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The weight float32 [O, I] that the stored tensors of any AQLM layout stand for.

    Raises:
        ValueError: the tensors do not fit each other.
        KeyError: one of them is absent.
    """
    codebooks, codes, scales = (tensors[part] for part in PARTS)
    if codebooks.ndim != 4 or codes.ndim != 3 or codes.shape[2] != len(codebooks) or codes.is_floating_point():
        raise ValueError(f"{codes.dtype} codes {list(codes.shape)} do not fit codebooks {list(codebooks.shape)}")
    if scales.shape != (len(codes), 1, 1, 1):
        raise ValueError(f"scales {list(scales.shape)} do not fit codes {list(codes.shape)}")
    entries, out_group = codebooks.shape[1:3]
    wide = codes.to(torch.int64)
    if wide.numel() and (int(wide.min()) < -(entries // 2) or int(wide.max()) >= entries):
        raise ValueError(f"codes from {int(wide.min())} to {int(wide.max())} lie beyond {entries} entries")
    return units(wide % entries, codebooks) * scales.to(torch.float32).view(-1, 1).repeat_interleave(out_group, 0)


def read(
    tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """`decode`, where the tensors have the layout that `tier` names in the words of config.json.

    Raises:
        ValueError: as `decode`, or the layout is another.
        KeyError: a tensor or a setting is absent.
    """
    books, entries, out_group, in_group = tensors["codebooks"].shape
    found = AQLMLayout(books, entries.bit_length() - 1, in_group, out_group)
    if any(tier[key] != value for key, value in found.settings().items()) or found.entries != entries:
        raise ValueError(f"codebooks {[books, entries, out_group, in_group]} are not those that the config describes")
    return decode(tensors)


def units(codes: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    """Sums float32 [O, I] of the entries that codes [O/o, I/i, M] from 0 name in codebooks [M, K, o, i]."""
    groups_out, groups_in, _ = codes.shape
    out_group, in_group = codebooks.shape[2:]
    total = torch.zeros(groups_out, groups_in, out_group, in_group, dtype=torch.float32, device=codes.device)
    for place, codebook in enumerate(codebooks.to(torch.float32)):
        total += codebook[codes[:, :, place].long()]
    return total.transpose(1, 2).reshape(groups_out * out_group, groups_in * in_group)
