"""Vector quantization: groups of d weights are entries of one codebook for the whole model, times a scale.

A Linear [O, I] whose d neighbouring weights share a code is stored as `codes` int32 [O, W] and `scales` fp16 [O, I/g].
The codes of a group of g inputs fill whole words (formats/words.py), so a row may be cut between groups. The weight is
codebook[code] * scale in the rotated basis (formats/rotation.py). Codebooks are int8, in units of CODEBOOK_STEP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quantgate_kernels.formats import rotation
from quantgate_kernels.formats.words import WORD_BITS, pack, unpack

FORMAT = "vq"
PARTS = ("codes", "scales")
"""What is stored of a Linear."""
CODEBOOK_STEP = 1 / 32
"""Value of one unit of a codebook: +-3.97 is as far as an entry reaches, in units of the weights' RMS."""


@dataclass(frozen=True)
class VQLayout:
    """How many weights a code stands for, and how many entries the codebook has (a power of two)."""

    dimensions: int
    entries: int

    @property
    def code_bits(self) -> int:
        return self.entries.bit_length() - 1

    def words(self, columns: int) -> int:
        """Words in a row of `columns` weights.

        Raises:
            ValueError: a group's codes do not fill whole words.
        """
        group = rotation.block_of(columns)
        if group // self.dimensions * self.code_bits % WORD_BITS:
            raise ValueError(f"groups of {group} inputs do not fill whole words at {self.code_bits} bits a code")
        return columns // self.dimensions * self.code_bits // WORD_BITS


def encode(codes: torch.Tensor, scales: torch.Tensor, layout: VQLayout) -> dict[str, torch.Tensor]:
    """Store codes [O, I/d] (integers) and scales [O, I/g] as the two tensors of the format, by their last name.

    Raises:
        ValueError: a code is beyond the codebook, or a scale is not positive and finite in fp16.
    """
    columns = codes.shape[1] * layout.dimensions
    layout.words(columns)
    stored = scales.to(torch.float16)
    if stored.shape != (len(codes), columns // rotation.block_of(columns)):
        raise ValueError(f"scales {list(scales.shape)} do not fit codes {list(codes.shape)}")
    if not bool((torch.isfinite(stored) & (stored > 0)).all()):
        raise ValueError("every scale must be positive and finite")
    return {"codes": pack(codes, layout.code_bits), "scales": stored.contiguous()}


def decode(tensors: Mapping[str, torch.Tensor], codebook: torch.Tensor, signs: torch.Tensor | None) -> torch.Tensor:
    """The weight float32 [O, I] that the stored tensors stand for, turned back by `signs` [I] where it was rotated.

    `codebook` is int8 [entries, d].

    Raises:
        ValueError: the tensors do not fit each other or the codebook.
        KeyError: one of them is absent.
    """
    layout = VQLayout(codebook.shape[1], len(codebook))
    codes = unpack(tensors["codes"], layout.code_bits)
    scales = tensors["scales"]
    columns = codes.shape[1] * layout.dimensions
    if scales.shape != (len(codes), columns // rotation.block_of(columns)):
        raise ValueError(f"scales {list(scales.shape)} do not fit {columns} columns of codes")
    weight = units(codes, codebook) * scales.to(torch.float32).repeat_interleave(rotation.block_of(columns), dim=1)
    return weight if signs is None else rotation.unrotate(weight, signs)


def read(
    tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """`decode` of a tier as config.json has it: `table` names the codebook, `rotation` says whether inputs are turned.

    Raises:
        ValueError: as `decode`.
        KeyError: a tensor, a table or a setting is absent.
    """
    codebook = tables[tier["table"]]
    layout = VQLayout(codebook.shape[1], len(codebook))
    columns = tensors["codes"].shape[1] * WORD_BITS // layout.code_bits * layout.dimensions
    return decode(tensors, codebook, None if tier["rotation"] is None else tables[f"signs.{columns}"])


def units(codes: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The entries float32 [O, I] that codes [O, I/d] name in a codebook int8 [entries, d], before any scale."""
    entries = codebook.to(torch.float32) * CODEBOOK_STEP
    return entries[codes.long()].flatten(1)
