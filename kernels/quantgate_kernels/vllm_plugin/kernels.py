"""Parts of a layer made ready to be run on a GPU: by a kernel where one knows their tier, else as plain weights."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from quantgate_kernels.cuda import moe_program
from quantgate_kernels.formats import trellis, vq
from quantgate_kernels.ops import linear, moe
from quantgate_kernels.vllm_plugin.parts import Part
from quantgate_kernels.vllm_plugin.shards import Tier

logger = logging.getLogger(__name__)

DTYPES = (torch.bfloat16, torch.float16)
"""Of activations that the kernels take."""
PROJECTIONS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
"""What the kernels call vLLM's."""
OLDEST = 90
"""Compute capability of Hopper, times ten."""
_said: set[str] = set()
_moved: dict[tuple[int, torch.device], tuple[Mapping[str, torch.Tensor], dict[str, torch.Tensor]]] = {}


@dataclass(frozen=True)
class Plain:
    """A weight [O, I] that is run as it is."""

    weight: torch.Tensor

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight)


@dataclass(frozen=True)
class Coded:
    """Codes that a kernel runs."""

    prepared: linear.Prepared

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return linear.apply(x, self.prepared)


def has_linear(tier: Tier, dtype: torch.dtype) -> bool:
    """Is there a kernel for Linears of this tier, whose activations have `dtype`, on the GPU here?"""
    from vllm.platforms import current_platform

    capable = current_platform.is_cuda() and current_platform.has_device_capability(OLDEST)
    return capable and tier["format"] in (vq.FORMAT, trellis.FORMAT) and dtype in DTYPES


def has_experts(
    projections: Iterable[tuple[str, Tier | None]], tables: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> bool:
    """Is there a kernel for a layer of experts on the GPU here?

    Args:
        projections: (projection, tier) of each: `w1` gate, `w3` up, `w2` down; None for a plain one.
        tables: of the model, by name.
        dtype: of activations.
    """
    found = list(projections)
    if not all(tier is not None and tier["format"] == vq.FORMAT and has_linear(tier, dtype) for _, tier in found):
        return False
    tiers = [(shard, tier) for shard, tier in found if tier is not None]
    turned = {(shard == "w2", tier["rotation"] is not None) for shard, tier in tiers}
    names = sorted({tier["table"] for _, tier in tiers})
    try:
        moe_program.places(tuple(moe_program.Book(tables[n].shape[1], len(tables[n]).bit_length() - 1) for n in names))
    except ValueError:  # tables that do not fit into a multiprocessor together
        return False
    return len(turned) == 2  # inputs of gate and up are turned or not, for all alike; so are those of down


def prepare_linear(
    parts: Sequence[Part], tables: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> list[Plain | Coded]:
    """Loaded parts of a layer as they are run, in their order; neighbours in one tier are one launch."""
    device = next(iter(parts[0].tensors.values())).device
    resident = on_device(tables, device)
    runs: list[Plain | Coded] = []
    for coded, group in itertools.groupby(parts, key=lambda part: part.tier if _coded(part, dtype) else None):
        together = list(group)
        if coded is None:
            warn_of_memory({part.tier["format"] for part in together if part.tier is not None})
            runs += [Plain(part.weight(resident, dtype)) for part in together]
        else:
            stored = {name: torch.cat([part.tensors[name] for part in together]) for name in vq.PARTS}
            runs.append(Coded(linear.prepare(stored, coded, together[0].tables(resident), device)))
        for part in together:
            part.tensors.clear()
    return runs


def prepare_experts(parts: Mapping[tuple[int, str], Part], tables: Mapping[str, torch.Tensor]) -> moe.PreparedMoE:
    """Loaded projections of a rank's experts, by local number and projection, as a kernel runs them."""
    device = next(iter(next(iter(parts.values())).tensors.values())).device
    resident = on_device(tables, device)
    numbers = sorted({local for local, _ in parts})
    stored = [{name: parts[e, shard].tensors for shard, name in PROJECTIONS.items()} for e in numbers]
    tiers = [{name: parts[e, shard].tier or {} for shard, name in PROJECTIONS.items()} for e in numbers]
    down = parts[numbers[0], "w2"]
    signs = down.tables(resident).get(f"signs.{down.local_shape[1]}")
    found = moe.prepare(stored, tiers, resident, device, signs)
    for part in parts.values():
        part.tensors.clear()
    return found


def on_device(tables: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The tables of a model, once on a device for all of its layers: they stay there."""
    key = id(tables), device
    if key not in _moved:
        _moved[key] = tables, {name: table.to(device) for name, table in tables.items()}
    return _moved[key][1]


def warn_of_memory(formats: Iterable[str]) -> None:
    """Say once of each format that it takes the memory of its plain weights."""
    for name in sorted(set(formats) - _said):
        _said.add(name)
        logger.warning("quantgate-kernels has no kernel for %s here: its weights take the memory of plain ones", name)


def _coded(part: Part, dtype: torch.dtype) -> Any:
    return part.tier is not None and has_linear(part.tier, dtype)
