"""Layers of experts to measure: of GLM-5's sizes with random codes, and small ones with what they should give."""

from __future__ import annotations

from typing import Any

import torch
from quantgate_kernels import oracle
from quantgate_kernels.cuda import moe, order
from quantgate_kernels.cuda.moe_program import Book
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.vq import VQLayout, encode
from quantgate_kernels.ops import moe as ops

BOOKS = {"vq1": Book(8, 8), "vq1.5": Book(8, 12), "vq2": Book(4, 8), "vq3": Book(4, 12)}
INPUTS, MIDDLE, EXPERTS, TOP_K = 6144, 2048, 256, 8
ROUTES = 8
"""Different choices of experts that launches go through."""
MIX = (("vq2", "vq2", "vq3"), ("vq1.5", "vq1.5", "vq2"), ("vq1", "vq1", "vq1.5"), ("vq3", "vq2", "vq2"))
"""Gate, up and down of every fourth expert: 1.92 bits a weight in the mean, scales left out."""


def random_layer(names: tuple[tuple[str, str, str], ...]) -> ops.PreparedMoE:
    """A layer of GLM-5's sizes in the kernels' order, expert e in tiers names[e % len(names)]: each bit pattern is a
    code, so it is made there at once.
    """
    own = sorted({name for each in names for name in each})
    books = tuple(BOOKS[name] for name in own)
    sizes = [(MIDDLE, INPUTS), (MIDDLE, INPUTS), (INPUTS, MIDDLE)]
    pieces = [order.tiles_of(rows) * order.pieces_of(inputs) for rows, inputs in sizes]
    tiers = [names[e % len(names)] for e in range(EXPERTS)]
    words = [[n * BOOKS[name].piece_words for n, name in zip(pieces, each, strict=True)] for each in tiers]
    dearest = sorted(range(EXPERTS), key=lambda e: -sum(words[e]))
    records, end = torch.zeros(EXPERTS, moe.RECORD_INTS, dtype=torch.int32), 0
    records[:, 7] = torch.arange(EXPERTS, dtype=torch.int32)
    for place, e in enumerate(dearest):
        begins = []
        for size in words[e]:
            begins.append(end)
            end += size
        records[place, :6] = torch.tensor(begins, dtype=torch.int64).view(torch.int32)
        records[place, 6] = sum(own.index(name) << 8 * n for n, name in enumerate(tiers[e]))
    positions = torch.empty(EXPERTS, dtype=torch.int32)
    positions[torch.tensor(dearest)] = torch.arange(EXPERTS, dtype=torch.int32)
    tables = [(torch.randn(1 << b.code_bits, b.dimensions) * 32).round().clamp(-128, 127).to(torch.int8) for b in books]
    weights = moe.Weights(
        codes=torch.randint(-(1 << 31), 1 << 31, (end,), dtype=torch.int32, device="cuda"),
        scales=(0.01 + 0.02 * torch.rand(EXPERTS * sum(pieces) * 16, device="cuda")).half(),
        records=records.cuda(),
        positions=positions.cuda(),
        books=torch.cat([table.flatten() for table in tables]).cuda(),
        signs_in=signs_of(INPUTS, 7).cuda(),
        signs_mid=signs_of(MIDDLE, 7).cuda(),
    )
    return ops.PreparedMoE(weights, moe.Shape(INPUTS, MIDDLE, EXPERTS, books))


def expert_bytes(names: tuple[str, str, str]) -> int:
    """Codes and scales of one expert."""
    pieces = INPUTS // 128 * (MIDDLE // 16)
    return sum(pieces * (BOOKS[name].piece_words * 4 + 32) for name in names)


def routes(tokens: int) -> list[torch.Tensor]:
    """Choices of experts [T, k] of a router that favours none; of many tokens two, for they go to all experts."""
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.stack([torch.randperm(EXPERTS, generator=generator)[:TOP_K] for _ in range(tokens)]).int()
        for _ in range(ROUTES if tokens <= 64 else 2)
    ]


def small_layer(inputs: int, middle: int, count: int) -> tuple[list[Any], list[Any], dict[str, torch.Tensor]]:
    """Stored experts of mixed tiers, as FORMAT.md has them."""
    tables = {f"signs.{size}": signs_of(size, 7) for size in (inputs, middle)}
    for name, book in BOOKS.items():
        values = torch.randn(1 << book.code_bits, book.dimensions) * 32
        tables[name] = values.round().clamp(-128, 127).to(torch.int8)
    experts, tiers = [], []
    for e in range(count):
        expert, tier = {}, {}
        for projection, name in zip(ops.PROJECTIONS, MIX[e % len(MIX)], strict=True):
            rows, columns = (inputs, middle) if projection == "down_proj" else (middle, inputs)
            book = BOOKS[name]
            codes = torch.randint(0, 1 << book.code_bits, (rows, columns // book.dimensions))
            scales = 0.01 + 0.02 * torch.rand(rows, columns // block_of(columns))
            expert[projection] = encode(codes, scales, VQLayout(book.dimensions, 1 << book.code_bits))
            tier[projection] = {"format": "vq", "table": name, "rotation": {}}
        experts.append(expert)
        tiers.append(tier)
    return experts, tiers, tables


def reference(
    experts: list[Any],
    tiers: list[Any],
    tables: dict[str, torch.Tensor],
    x: torch.Tensor,
    router: torch.Tensor,
    ids: torch.Tensor,
) -> torch.Tensor:
    """The layer's result in float64."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    for e, (expert, tier) in enumerate(zip(experts, tiers, strict=True)):
        gate, up, down = (oracle.weight(expert[name], tier[name], tables) for name in ops.PROJECTIONS)
        tokens, places = (ids == e).nonzero(as_tuple=True)
        own = x[tokens].double()
        middle = torch.nn.functional.silu(own @ gate.T) * (own @ up.T)
        out.index_add_(0, tokens, middle @ down.T * router[tokens, places].double()[:, None])
    return out
