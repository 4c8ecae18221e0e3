"""Layers of experts in mixed vq tiers to try kernels with, what they should give, and the kernels on CPU fibers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from cuda_fibers import Kernel
from kernel_cases import PTX, linear
from quantgate_kernels import oracle
from quantgate_kernels.cuda import moe
from quantgate_kernels.ops.moe import PROJECTIONS, PreparedMoE

SHIMS = PTX | {
    "peek": "static long turns; if (++turns > 50000000) abort(); pause_(); return *place;",
    "acquire": "",
    "release": "return atomicAdd(counter, by);",
    "nap": "",
    "bulk_into_l2": "",
}
HEAD = r"""
static int atomicAdd(int* place, int by) { const int before = *place; *place += by; return before; }
"""


@dataclass
class Layer:
    """Experts as they are stored."""

    experts: list[dict[str, dict[str, torch.Tensor]]]
    tiers: list[dict[str, dict[str, Any]]]
    tables: dict[str, torch.Tensor]


def layer(names: Sequence[Sequence[str]], inputs: int, middle: int, rotated: bool = True) -> Layer:
    """Random experts [D, I], of the tiers `names` of each one's gate, up and down."""
    found = Layer([], [], {})
    for number, each in enumerate(names):
        expert, tiers = {}, {}
        for place, (projection, name) in enumerate(zip(PROJECTIONS, each, strict=True)):
            rows, columns = (inputs, middle) if projection == "down_proj" else (middle, inputs)
            stored, tier, tables = linear(name, rows, columns, rotated, seed=3 * number + place)
            expert[projection], tiers[projection] = stored, tier
            found.tables = tables | found.tables  # the first table of a tier serves all its Linears
        found.experts.append(expert)
        found.tiers.append(tiers)
    return found


def expected(
    of: Layer, x: torch.Tensor, router: torch.Tensor, ids: torch.Tensor, expert_map: torch.Tensor | None = None
) -> torch.Tensor:
    """What the oracle says, float64 [T, D]."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    local = ids.to(torch.int64) if expert_map is None else expert_map.to(torch.int64)[ids.to(torch.int64)]
    for number, (expert, tiers) in enumerate(zip(of.experts, of.tiers, strict=True)):
        tokens, places = (local == number).nonzero(as_tuple=True)
        if len(tokens):
            gate, up, down = (oracle.weight(expert[name], tiers[name], of.tables) for name in PROJECTIONS)
            own = x[tokens].to(torch.float64)
            middle = torch.nn.functional.silu(own @ gate.T) * (own @ up.T)
            weighted = middle @ down.T * router[tokens, places].to(torch.float64)[:, None]
            out.index_add_(0, tokens, weighted)
    return out


def routing(tokens: int, experts: int, top_k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights float32 and ids int32 [T, k] of a random router, no expert twice."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(experts, generator=generator)[:top_k] for _ in range(tokens)])
    return torch.rand(tokens, top_k, generator=generator) + 0.1, ids.to(torch.int32)


def on_fibers(
    prepared: PreparedMoE,
    x: torch.Tensor,
    router: torch.Tensor,
    ids: torch.Tensor,
    expert_map: torch.Tensor | None = None,
    processors: int = 1,
    tuning: moe.Tuning = moe.DEFAULT,
    out_dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The layer's result by its kernels, on a CPU: one block alone where all is in one launch, for blocks wait."""
    out = torch.empty(x.shape, dtype=out_dtype)
    out.fill_(torch.nan)
    size = moe.room(prepared.shape, len(ids), ids.shape[1], tuning)[1] + 256
    space = torch.full((size,), 0xFF, dtype=torch.uint8)  # NaN, and numbers below 0
    space = space[-space.data_ptr() % 256 :]
    split = moe.is_split(prepared.shape, ids.numel(), tuning)
    kernels: dict[str, Kernel] = {}
    given = (x, router, ids, expert_map, out, space)
    for step in moe.steps(prepared.shape, prepared.weights, *given, processors, tuning):
        if step.name not in kernels:
            source, numbers = (
                moe.source(prepared.shape, step.name),
                moe.definitions(prepared.shape, x.dtype, step.name, split, tuning),
            )
            shims = {name: body for name, body in SHIMS.items() if f" {name}(" in source}
            kernels[step.name] = Kernel(HEAD + source, step.name, numbers, shims)
        arguments = [0 if each is None else each for each in step.arguments]
        kernels[step.name]((step.blocks,), moe.threads_of(step.name, tuning), arguments)
    return out
