"""Right and fast? Experts in vq tiers on one Hopper GPU, against the oracle and against bfloat16 experts.

    PYTHONPATH=.:kernels python -m benchmarks.moe_kernels --out FILE [--only correct,tiers,sweep] [--seconds 110]

First small layers of mixed tiers against float64, then a layer of GLM-5's sizes (6,144 x 2,048, 256 experts, 8 a token)
with random codes, at 1, 8 and 32 tokens: microseconds of the whole layer (plan, gate and up, SiLU, down, weighted sum),
by CUDA graphs of many launches that go through different choices of experts, so that the L2 cache holds none of them;
medians of replays. Bytes are codes and scales of the experts that were chosen, each once.

The bfloat16 experts get less to do: their tokens lie sorted by expert already, and nothing is weighted or summed. The
faster counts of torch's grouped product and of one product an expert. FILE is written anew after each row; a row that
fails has `failed`, and the rest goes on. After `--seconds` no further row is begun.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels import oracle
from quantgate_kernels.cuda import moe, order
from quantgate_kernels.cuda.moe_program import Book
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.vq import VQLayout, encode
from quantgate_kernels.ops import moe as ops

from benchmarks.gpu_timing import bandwidth, microseconds

BOOKS = {"vq1": Book(8, 8), "vq1.5": Book(8, 12), "vq2": Book(4, 8), "vq3": Book(4, 12)}
INPUTS, MIDDLE, EXPERTS, TOP_K = 6144, 2048, 256, 8
BATCHES = (1, 8, 32)
ROUTES = 8
"""Different choices of experts that launches go through."""
MIX = (("vq2", "vq2", "vq3"), ("vq1.5", "vq1.5", "vq2"), ("vq1", "vq1", "vq1.5"), ("vq3", "vq2", "vq2"))
"""Gate, up and down of every fourth expert: 1.92 bits a weight in the mean, scales left out."""
Row = dict[str, Any]


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
    """Choices of experts [T, k] of a router that favours none."""
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.stack([torch.randperm(EXPERTS, generator=generator)[:TOP_K] for _ in range(tokens)]).int()
        for _ in range(ROUTES)
    ]


def correct() -> Iterator[Row]:
    """Errors against float64, mixed tiers; the same bits of every division of work."""
    for inputs, middle, tokens in ((1024, 512, 1), (1024, 512, 9), (576, 192, 40), (6144, 2048, 2)):
        experts, tiers, tables = small_layer(inputs, middle, 2 if inputs > 4096 else 8)
        prepared = ops.prepare(experts, tiers, tables, "cuda")
        x, router = torch.randn(tokens, inputs).to(torch.bfloat16), torch.rand(tokens, 2) + 0.1
        ids = torch.stack([torch.randperm(len(experts))[:2] for _ in range(tokens)]).int()
        expected = reference(experts, tiers, tables, x, router, ids)
        tunings = [
            moe.DEFAULT,
            moe.DEFAULT,
            replace(moe.DEFAULT, one_launch=False),
            replace(moe.DEFAULT, most_summed=0),
        ]
        found = []
        for tuning in tunings:
            out = torch.full((tokens, inputs), torch.nan, device="cuda")
            moe.run(prepared.shape, prepared.weights, x.cuda(), router.cuda(), ids.cuda(), None, out, tuning)
            found.append(out)
        yield {
            "layer": [inputs, middle, len(experts)],
            "tokens": tokens,
            "error": float((found[0].cpu().double() - expected).norm() / expected.norm()),
            "same_bits": all(torch.equal(found[0], other) for other in found),
        }


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


def tiers(tunings: tuple[moe.Tuning, ...] = (moe.DEFAULT,)) -> Iterator[Row]:
    """Every tier and the mix, at each batch."""
    for name in ("vq2", "mix", "vq1", "vq1.5", "vq3"):
        names = MIX if name == "mix" else ((name,) * 3,)
        layer = random_layer(names)
        for tuning in tunings:
            moe.compile_all(torch.cuda.current_device(), layer.shape, torch.bfloat16, tuning)
            for tokens in BATCHES:
                yield {"tier": name} | guarded(partial(times, layer, names, tokens, tuning))
        del layer
        torch.cuda.empty_cache()


def times(
    layer: ops.PreparedMoE, names: tuple[tuple[str, str, str], ...], tokens: int, tuning: moe.Tuning = moe.DEFAULT
) -> Row:
    """Microseconds of one layer, with overlapping launches and without."""
    x = torch.randn(tokens, INPUTS, device="cuda").to(torch.bfloat16)
    router = torch.rand(tokens, TOP_K, device="cuda")
    out = torch.empty_like(x)
    chosen = routes(tokens)
    row: Row = {"tokens": tokens}
    for key, overlap in (("us", True), ("us_without_overlap", False)):
        launches = [
            partial(moe.run, layer.shape, layer.weights, x, router, ids.cuda(), None, out, tuning, overlap)
            for ids in chosen
        ]
        found = microseconds(launches, atleast=16)
        row[key] = found["median"]
        row[f"{key}_range"] = [found["least"], found["most"]]
    size = sum(expert_bytes(names[e % len(names)]) for ids in chosen for e in set(ids.flatten().tolist())) / len(chosen)
    reference = bfloat(tokens)
    row |= {"bytes": size, "tb_s": size / row["us"] / 1e6, "of_read_bandwidth": size / row["us"] / 1e6 / read()}
    return row | reference | {"times_bf16": reference["bf16_us"] / row["us"]}


@cache
def read() -> float:
    """TB/s of reading on this GPU."""
    return bandwidth()["read"]


@cache
def plain() -> tuple[torch.Tensor, torch.Tensor]:
    """Gate and up [E, 2 I, D], and down [E, D, I], in bfloat16: 19 GB."""
    first = torch.empty(EXPERTS, 2 * MIDDLE, INPUTS, device="cuda", dtype=torch.bfloat16).normal_(0, 0.02)
    return first, torch.empty(EXPERTS, INPUTS, MIDDLE, device="cuda", dtype=torch.bfloat16).normal_(0, 0.02)


@cache
def bfloat(tokens: int) -> Row:
    """Microseconds of the same experts in bfloat16, the faster of two ways; `bf16_ways` has both."""
    first, second = plain()
    chosen = [ids.flatten().sort().values for ids in routes(tokens)]
    rows = torch.randn(tokens * TOP_K, INPUTS, device="cuda", dtype=torch.bfloat16)
    ends = [torch.bincount(ids, minlength=EXPERTS).cumsum(0).int().cuda() for ids in chosen]

    def activated(both: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(both[:, :MIDDLE]) * both[:, MIDDLE:]

    def grouped(end: torch.Tensor) -> torch.Tensor:
        middle = activated(torch._grouped_mm(rows, first.transpose(1, 2), end))
        return torch._grouped_mm(middle, second.transpose(1, 2), end)

    def one_by_one(ids: torch.Tensor) -> None:
        begin = 0
        for e, count in sorted(Counter(ids.tolist()).items()):
            middle = activated(rows[begin : begin + count] @ first[e].T)
            torch.mm(middle, second[e].T)
            begin += count

    ways: dict[str, float] = {}
    makers: dict[str, list[Callable[[], object]]] = {
        "grouped": [partial(grouped, end) for end in ends],
        "one_by_one": [partial(one_by_one, ids) for ids in chosen[: ROUTES if tokens == 1 else 2]],
    }
    failed = {}
    for name, launches in makers.items():
        try:
            ways[name] = microseconds(launches, replays=5, atleast=len(launches))["median"]
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return {"bf16_us": min(ways.values()), "bf16_ways": ways | failed}


def sweep() -> Iterator[Row]:
    """What may be turned, at 2 bits."""
    names = (("vq2",) * 3,)
    layer = random_layer(names)
    base = moe.DEFAULT
    tunings = [
        replace(base, one_launch=False),
        replace(base, most_summed=0),
        replace(base, ahead=0),
        replace(base, ahead=16),
        replace(base, prefetch=6),
        replace(base, prefetch=3),
        replace(base, warps=24, prefetch=3),
        replace(base, warps=12, prefetch=6),
        replace(base, down_tiles=2),
        replace(base, down_tiles=4),
        replace(base, gate_tiles=2, down_tiles=2),
        replace(base, gate_tiles=2, down_tiles=4),
    ]
    for tuning in tunings:
        for tokens in BATCHES[:2]:
            row = guarded(partial(times, layer, names, tokens, tuning))
            yield {"tier": "vq2", "tuning": asdict(tuning)} | row


def guarded(measure: Callable[[], Row]) -> Row:
    """What was measured, or what went wrong."""
    try:
        return measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="correct,tiers,sweep")
    parser.add_argument("--seconds", type=float, default=110)
    given = parser.parse_args()
    began = time.monotonic()
    torch.manual_seed(0)
    report: Row = {
        "command": " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "layer": {"inputs": INPUTS, "middle": MIDDLE, "experts": EXPERTS, "top_k": TOP_K},
        "rows": {},
    }
    print(json.dumps(report), flush=True)
    for name in given.only.split(","):
        rows = report["rows"].setdefault(name, [])
        walk = {"correct": correct, "tiers": tiers, "sweep": sweep}[name]()
        while time.monotonic() - began < given.seconds:
            try:
                row = next(walk)
            except StopIteration:
                break
            except Exception as error:
                row = {"failed": f"{type(error).__name__}: {error}"}
            rows.append(row)
            shown = {key: round(v, 3 if v > 0.1 else 7) if isinstance(v, float) else v for key, v in row.items()}
            report["seconds"] = time.monotonic() - began
            print(f"{report['seconds']:6.1f} {name} {json.dumps(shown)}", flush=True)
            given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
