"""Right and fast? Experts in vq tiers on one Hopper GPU, against the oracle and against bfloat16 experts.

    PYTHONPATH=.:kernels python -m benchmarks.moe_kernels --out FILE [--only correct,tiers,...] [--seconds 60]

First small layers of mixed tiers against float64, then one of GLM-5's sizes (6,144 x 2,048, 256 experts, 8 a token)
with random codes, at 1, 8 and 32 tokens, at 2 bits up to 2,048 too: microseconds of the whole layer (plan, gate and up,
SiLU, down, weighted sum), by CUDA graphs of many launches that go through different choices of experts, so that the L2
cache holds none of them; medians of replays. Bytes are codes and scales of the experts that were chosen, each once.

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

import torch
from quantgate_kernels.cuda import moe
from quantgate_kernels.cuda.launch import launch, multiprocessors
from quantgate_kernels.ops import moe as ops

from benchmarks.gpu_timing import Row, bandwidth, guarded, microseconds
from benchmarks.moe_layers import (
    EXPERTS,
    INPUTS,
    MIDDLE,
    MIX,
    ROUTES,
    TOP_K,
    expert_bytes,
    random_layer,
    reference,
    routes,
    small_layer,
)

BATCHES = (1, 8, 32)


def correct() -> Iterator[Row]:
    """Errors against float64, mixed tiers; the same bits of every division of work."""
    for inputs, middle, tokens in ((1024, 512, 1), (1024, 512, 9), (576, 192, 40), (1024, 512, 300), (6144, 2048, 2)):
        experts, tiers, tables = small_layer(inputs, middle, 2 if inputs > 4096 else 8)
        prepared = ops.ordered(experts, tiers, tables, torch.device("cuda"))  # kernels are compiled when needed
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


def tiers(tunings: tuple[moe.Tuning, ...] = (moe.DEFAULT,)) -> Iterator[Row]:
    """Every tier and the mix, at each batch."""
    for name in ("vq2", "mix", "vq1", "vq1.5", "vq3"):
        names = MIX if name == "mix" else ((name,) * 3,)
        layer = random_layer(names)
        for tuning in tunings:
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
        found = microseconds(launches, atleast=16 if tokens <= 64 else len(launches))
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
        "one_by_one": [partial(one_by_one, ids) for ids in chosen[: ROUTES if tokens == 1 else 1]],
    }
    failed = {}
    for name, launches in makers.items():
        try:
            ways[name] = microseconds(launches, replays=5, atleast=len(launches))["median"]
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return {"bf16_us": min(ways.values()), "bf16_ways": ways | failed}


def parts() -> Iterator[Row]:
    """2 bits: the plan alone, with gate and up, and all, each a launch, to see where time goes."""
    layer, tuning = random_layer((("vq2",) * 3,)), replace(moe.DEFAULT, one_launch=False)
    for tokens in BATCHES:
        x = torch.randn(tokens, INPUTS, device="cuda").to(torch.bfloat16)
        router, out = torch.rand(tokens, TOP_K, device="cuda"), torch.empty_like(x)
        row: Row = {"tier": "vq2", "tokens": tokens}
        for count, name in enumerate(("plan_us", "plan_gate_up_us", "all_us"), 1):
            launches = [partial(begun, layer, x, router, ids.cuda(), out, tuning, count) for ids in routes(tokens)]
            row[name] = microseconds(launches, atleast=16)["median"]
        yield row


def begun(
    layer: ops.PreparedMoE,
    x: torch.Tensor,
    router: torch.Tensor,
    ids: torch.Tensor,
    out: torch.Tensor,
    tuning: moe.Tuning,
    count: int,
) -> None:
    """The first launches of a layer."""
    shape, device = layer.shape, torch.cuda.current_device()
    split = moe.is_split(shape, ids.numel(), tuning)
    space = torch.empty(moe.room(shape, len(ids), TOP_K, tuning)[1], dtype=torch.uint8, device="cuda")
    given = (x, router, ids, None, out, space, multiprocessors(device), tuning)
    for step in moe.steps(shape, layer.weights, *given)[:count]:
        found = moe.kernel(device, shape, x.dtype, step.name, split, tuning)
        launch(found, step.blocks, step.arguments, x.device)


def many() -> Iterator[Row]:
    """2 bits, as many tokens as a prompt has."""
    names = (("vq2",) * 3,)
    layer = random_layer(names)
    for tokens in (64, 128, 512, 2048):
        yield {"tier": "vq2"} | guarded(partial(times, layer, names, tokens))


def sweep() -> Iterator[Row]:
    """What may be turned, at 2 bits, and numbers of warps for the other tables."""
    base = moe.DEFAULT
    warps = [replace(base, warps=20), replace(base, side=2), replace(base, side=2, warps=20), replace(base, side=1)]
    others = [replace(base, depth=12), replace(base, split=True), replace(base, split=False)]
    others += [replace(base, one_launch=False)]
    for name, tunings in (("vq2", warps + others), ("mix", warps), ("vq3", warps), ("vq1.5", warps), ("vq1", warps)):
        names = MIX if name == "mix" else ((name,) * 3,)
        layer = random_layer(names)
        for tuning in tunings:
            for tokens in BATCHES[:2]:
                row = guarded(partial(times, layer, names, tokens, tuning))
                yield {"tier": name, "tuning": asdict(tuning)} | row
        del layer
        torch.cuda.empty_cache()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="correct,tiers,parts,sweep,many")
    parser.add_argument("--seconds", type=float, default=60)
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
        walk = {"correct": correct, "tiers": tiers, "parts": parts, "many": many, "sweep": sweep}[name]()
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
