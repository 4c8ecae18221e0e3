"""Weights as integers and scales, and back; which tensors of a checkpoint are what."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from harness.prove.editing import edit_tensors, link_files, read_tensors, tensor_files
from harness.prove.entries import NotApplicable

GROUP = 64
LAYER = re.compile(r"\blayers\.(\d+)\.")
EMBEDDINGS = re.compile(r"\b(embed_tokens|lm_head)\.weight$")
ROUTER = re.compile(r"\.(gate|router)\.weight$")
SHARED_GATE = re.compile(r"\bshared_expert_gate\.weight$")


def round_to_nearest(weight: torch.Tensor, bits: int, group: int = GROUP) -> torch.Tensor:
    """A weight [outputs, inputs] as symmetric integers of `bits`, one scale for `group` inputs of a row, and back.

    Where the inputs do not divide into groups, a row has one scale. 2 bits are -1, 0 and 1 times the scale.
    """
    codes, scales = encode(weight, bits, group)
    return decode(codes, scales, weight)


def encode(weight: torch.Tensor, bits: int, group: int = GROUP) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [outputs, groups, inputs of a group] and scales [outputs, groups, 1], in float32."""
    rows, columns = weight.shape
    groups = weight.float().view(rows, -1, group if columns % group == 0 else columns)
    scales = (groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp_min(1e-12)
    return (groups / scales).round(), scales


def decode(codes: torch.Tensor, scales: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A weight like `like` of codes and scales as `encode` gives them."""
    return (codes * scales).view(like.shape).to(like.dtype)


def is_linear(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is the weight of a linear layer inside a block. Routers are not: quantizers leave them alone."""
    routes = ROUTER.search(name) or SHARED_GATE.search(name)
    return tensor.ndim == 2 and name.endswith(".weight") and LAYER.search(name) is not None and not routes


def rounded(
    source: Path, out: Path, bits: float, wanted: Callable[[str, torch.Tensor], bool], group: int = GROUP
) -> None:
    """The good checkpoint with the wanted weights rounded to nearest, stored in 16 bits again: every server loads them.

    `group` 0: one scale a row.
    """
    link_files(source, out)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        return round_to_nearest(tensor, int(bits), group or tensor.shape[-1]) if wanted(name, tensor) else None

    edit_tensors(out, change)


def rescaled(source: Path, out: Path, owner: Callable[[str], str | None]) -> None:
    """8-bit linears, of which some have the scales of others: `owner(name)` says whose, None for their own."""
    link_files(source, out)
    wanted = {other for name in tensor_files(out) if (other := owner(name)) is not None}
    others = read_tensors(out, wanted.__contains__)
    scales = {name: encode(tensor, 8)[1] for name, tensor in others.items() if is_linear(name, tensor)}
    if not scales:
        raise NotApplicable("the model has no such weights")

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if not is_linear(name, tensor):
            return None
        codes, own = encode(tensor, 8)
        return decode(codes, scales.get(owner(name) or "", own), tensor)

    edit_tensors(out, change)


def layers_of(folder: Path) -> int:
    """How many layers a checkpoint has. Raises NotApplicable: fewer than three."""
    found = {int(match[1]) for name in tensor_files(folder) if (match := LAYER.search(name))}
    if len(found) < 3:
        raise NotApplicable("the model has fewer than three layers")
    return len(found)


def ladder(most: int) -> list[int]:
    """Counts from 1 to `most`, each about 1.4 times the one before."""
    steps = {round(2 ** (half / 2)) for half in range(2 * most.bit_length() + 2)}
    return sorted({step for step in steps if step < most} | {most})
