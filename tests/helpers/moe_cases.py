"""Layers of experts in mixed vq tiers to try kernels with, what they should give, and the kernels on CPU fibers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
    "into_l2": "",
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
    for token in range(len(x)):
        for place in range(ids.shape[1]):
            number = int(ids[token, place])
            if expert_map is not None:
                number = int(expert_map[number])
            if not 0 <= number < len(of.experts):
                continue
            expert, tiers = of.experts[number], of.tiers[number]
            gate, up = (
                oracle.linear(x[token], expert[name], tiers[name], of.tables) for name in ("gate_proj", "up_proj")
            )
            middle = torch.nn.functional.silu(gate) * up
            down = oracle.linear(middle, expert["down_proj"], tiers["down_proj"], of.tables)
            out[token] += down * router[token, place].to(torch.float64)
    return out


def routing(tokens: int, experts: int, top_k: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights float32 and ids int32 [T, k] of a random router, no expert twice."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(experts, generator=generator)[:top_k] for _ in range(tokens)])
    return torch.rand(tokens, top_k, generator=generator) + 0.1, ids.to(torch.int32)


def on_fibers(
    folder: Path,
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
    size = moe.room(prepared.shape, *ids.shape)[1] + 256
    space = torch.full((size,), 0xFF, dtype=torch.uint8)  # NaN, and numbers below 0
    space = space[-space.data_ptr() % 256 :]
    numbers = moe.definitions(prepared.shape, x.dtype, tuning)
    kernels: dict[str, Kernel] = {}
    folder = Path(tempfile.mkdtemp(dir=folder))  # a library of the same path would not be loaded again
    given = (x, router, ids, expert_map, out, space)
    for step in moe.steps(prepared.shape, prepared.weights, *given, processors, tuning):
        if step.name not in kernels:
            (folder / step.name).mkdir(exist_ok=True)
            source = HEAD + moe.source(prepared.shape)
            kernels[step.name] = Kernel(source, step.name, numbers, folder / step.name, SHIMS)
        arguments = [0 if each is None else each for each in step.arguments]
        kernels[step.name]((step.blocks,), moe.threads_of(step.name, tuning), arguments)
    return out
