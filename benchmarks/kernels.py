"""Right and fast? The kernels of vq and trellis tiers on a Hopper GPU, against the oracle and bfloat16 in cuBLAS.

    PYTHONPATH=.:kernels python -m benchmarks.kernels --out FILE [--only correct,shapes,batch,prefill,sweep,divide]

First each tier against float64 (relative root mean square error of float32 results, then of float16 ones), then
microseconds: CUDA graphs of many launches over fresh random weights, more of them than the L2 holds; medians of
replays. FILE is written anew after each row, so what was measured is there if the rest is not. A row that fails has
`error`, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from quantgate_kernels import oracle
from quantgate_kernels.cuda import activations, dequantize, order, vq_gemm, vq_gemv
from quantgate_kernels.cuda.tier import Tier
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.vq import VQLayout, encode
from quantgate_kernels.ops.linear import decode
from quantgate_kernels.tables import byte_sums

from benchmarks.gpu_timing import Row, bandwidth, copies_of, guarded, microseconds

TIERS = {
    "vq1": Tier(8, 8),
    "vq1.5": Tier(8, 12),
    "vq2": Tier(4, 8),
    "vq3": Tier(4, 12),
    **{f"trellis{bits}": Tier(1, bits, 16, True) for bits in (2, 3, 4)},
    "trellis2-table": Tier(1, 2, 16),
    "trellis2-l12": Tier(1, 2, 12),
    "trellis3-l12": Tier(1, 3, 12),
}
SHAPES = ((8192, 8192), (28672, 8192), (8192, 28672), (6144, 2048), (2048, 6144), (4096, 4096))
MODEL_SHAPES = ((17920, 1536), (1536, 8960), (2048, 1536), (1536, 1536))
"""Of qwen2.5-coder-1.5b: gate and up, down, queries with keys and values, what comes after attention."""
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Weight(NamedTuple):
    """A Linear in the kernels' order; `table` and `signs` may be shared."""

    codes: torch.Tensor
    scales: torch.Tensor
    table: torch.Tensor
    signs: torch.Tensor | None
    code_bits: int

    @property
    def size(self) -> int:
        return sum(each.numel() * each.element_size() for each in (self.codes, self.scales))


def random_weight(tier: str, rows: int, inputs: int) -> Weight:
    """A Linear of random codes, made in the kernels' order at once: each bit pattern is one."""
    dimensions, bits, *_ = TIERS[tier]
    tiles, pieces = order.tiles_of(rows), order.pieces_of(inputs)
    shape = (tiles, pieces, 32 * order.words_of(dimensions, bits))
    codes = torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int32, device="cuda")
    scales = 0.01 + 0.02 * torch.rand(tiles, pieces, order.groups_of(inputs), 8, 2, device="cuda")
    return Weight(codes, scales.half(), table_of(tier).cuda(), signs_of(inputs, 7).cuda(), bits)


def table_of(tier: str) -> torch.Tensor:
    """A random table int8 [entries, weights a code]; that of byte sums is what it is."""
    dimensions, bits, state_bits, sums = TIERS[tier]
    if sums:
        return byte_sums()[:, None]
    entries = 1 << (state_bits or bits)
    return (torch.randn(entries, dimensions) * 32).round().clamp(-128, 127).to(torch.int8)


def weights(tier: str, rows: int, inputs: int) -> list[Weight]:
    """As many of them as the L2 cannot hold, of one table."""
    first = random_weight(tier, rows, inputs)
    others = [random_weight(tier, rows, inputs) for _ in range(copies_of(first.size) - 1)]
    return [first, *(each._replace(table=first.table, signs=first.signs) for each in others)]


def correct() -> Iterator[Row]:
    """Errors against float64, of shapes with groups of 128, 64 and 32 and with rows that fill no tile."""
    shapes = [((1, 3, 8, 17, 64), 512, 1024), ((1, 5), 200, 576), ((1, 70), 53, 4096)]
    for tier, (batches, rows, inputs) in product(TIERS, shapes):
        dimensions, bits, state_bits, _ = TIERS[tier]
        trellis = dimensions == 1
        if trellis and rows % 16:
            continue
        table = table_of(tier)
        settings: Row = {"format": "trellis" if trellis else "vq", "table": "table", "rotation": {}}
        tables = {"table": table.flatten() if trellis else table, f"signs.{inputs}": signs_of(inputs, 7)}
        scales = 0.01 + 0.02 * torch.rand(rows, inputs // block_of(inputs))
        if trellis:
            shape = (rows // 16, inputs // 2 * bits)
            stored = {"codes": torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int32), "scales": scales.half()}
            settings |= {"bits": bits, "state_bits": state_bits}
            ordered = order.ordered_trellis(stored["codes"].cuda(), bits)
        else:
            codes = torch.randint(0, 1 << bits, (rows, inputs // dimensions))
            stored = encode(codes, scales, VQLayout(dimensions, 1 << bits))
            ordered = order.ordered_codes(stored["codes"].cuda(), dimensions, bits)
        in_order = order.ordered_scales(stored["scales"].cuda(), inputs)
        weight = Weight(ordered, in_order, table.cuda(), tables[f"signs.{inputs}"].cuda(), bits)
        truth = oracle.weight(stored, settings, tables)
        for tokens in batches:
            x = torch.randn(tokens, inputs).to(torch.bfloat16)
            expected = x.double() @ truth.T
            found = [torch.full((tokens, rows), torch.nan, device="cuda") for _ in range(2)]
            for out, overlap in zip(found, (True, False), strict=True):
                decode(x.cuda(), *weight, out, overlap)
            many = torch.full((tokens, rows), torch.nan, device="cuda", dtype=torch.float16)
            dequantize.linear(x.half().cuda(), *weight, many)
            yield {
                "tier": tier,
                "shape": [rows, inputs],
                "tokens": tokens,
                "error": relative(found[0], expected),
                "same_bits": torch.equal(found[0], found[1]),
                "error_dequantized_float16": relative(many, expected),
            }


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the error over that of what is expected."""
    return float((found.cpu().double() - expected).norm() / expected.norm())


def times(
    tier: str, rows: int, inputs: int, tokens: int, reference: float, tuning: vq_gemv.Tuning | None = None
) -> Row:
    """Microseconds of activations and product, and of the product alone, with and without overlap; `us` is what
    `decode` takes.
    """
    own = weights(tier, rows, inputs)
    x = torch.randn(tokens, inputs, device="cuda").to(torch.bfloat16)
    outs = [torch.empty(tokens, rows, dtype=torch.bfloat16, device="cuda") for _ in own]
    by_gemm = tuning is None and tokens >= vq_gemm.least_tokens(rows, inputs)
    operands = halves_of(x, own[0].signs) if by_gemm else operands_of(x, own[0].signs)

    def both(weight: Weight, out: torch.Tensor, overlap: bool) -> Callable[[], None]:
        return partial(decode, x, *weight, out, overlap, tuning)

    def alone(weight: Weight, out: torch.Tensor, overlap: bool) -> Callable[[], None]:
        codes, scales, table, _, bits = weight
        if by_gemm:
            return partial(vq_gemm.gemm, codes, scales, table, *operands, out, inputs, bits, overlap)
        return partial(vq_gemv.gemv, codes, scales, table, *operands, out, inputs, bits, overlap, chosen)

    row: Row = {"tier": tier, "shape": [rows, inputs], "tokens": tokens, "bytes": own[0].size, "bf16_us": reference}
    chosen = tuning or vq_gemv.tuning_of(x.device.index, rows, inputs, TIERS[tier], tokens)
    fused = chosen.fused and vq_gemv.can_fuse(tokens, inputs, TIERS[tier])
    measured = [("us", both, True), ("us_without_overlap", both, False), ("product_us", alone, True)]
    for name, make, overlap in measured[: 2 if fused else 3]:
        found = microseconds([make(weight, out, overlap) for weight, out in zip(own, outs, strict=True)])
        row[name] = found["median"]
        row[f"{name}_range"] = [found["least"], found["most"]]
    return row | {"times_bf16": reference / row["us"], "tb_s": own[0].size / row["us"] / 1e6}


def operands_of(x: torch.Tensor, signs: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What `vq_gemv.gemv` reads of tokens."""
    found = activations.room(len(x), x.shape[1], vq_gemv.n_tiles_of(len(x)), x.device)
    activations.to_operands(x, signs, *found)
    return found


def halves_of(x: torch.Tensor, signs: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What `vq_gemm.gemm` reads of tokens."""
    found = activations.halves_room(8 * vq_gemm.n_tiles_of(len(x)), x.shape[1], x.device)
    activations.to_halves(x, signs, *found)
    return found


def bfloat(rows: int, inputs: int, tokens: int) -> float:
    """Microseconds of torch's Linear in bfloat16."""
    own = [torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16) for _ in range(copies_of(rows * inputs * 2))]
    x = torch.randn(tokens, inputs, device="cuda", dtype=torch.bfloat16)
    return microseconds([partial(torch.nn.functional.linear, x, w) for w in own], atleast=10)["median"]


def shapes() -> Iterator[Row]:
    """Every tier at batch 1."""
    for rows, inputs in SHAPES:
        reference = bfloat(rows, inputs, 1)
        for tier in TIERS:
            yield guarded(partial(times, tier, rows, inputs, 1, reference))


def batch() -> Iterator[Row]:
    """Up to 64 tokens; beside the kernel that is taken, the other one."""
    for (rows, inputs), tiers in ((8192, 8192), TIERS), *((shape, ("vq2",)) for shape in (*SHAPES[1:], *MODEL_SHAPES)):
        for tokens in BATCHES[1:]:
            if tokens == 2 and (rows, inputs) != (8192, 8192):
                continue
            reference = bfloat(rows, inputs, tokens)
            for tier in tiers:
                yield guarded(partial(times, tier, rows, inputs, tokens, reference))
                if tokens > 4 and (tokens <= 16 or (rows, inputs) == (8192, 8192)):
                    row = guarded(partial(times, tier, rows, inputs, tokens, reference, vq_gemv.DEFAULT))
                    yield row | {"tuning": vq_gemv.DEFAULT.__dict__}


def divide() -> Iterator[Row]:
    """The product of 8 to 64 tokens alone, by every division of its work."""
    of_gpu = vq_gemm.rooms_of(0), vq_gemm.together_of(0)
    for rows, inputs in (*SHAPES, *MODEL_SHAPES):
        own, tier = weights("vq2", rows, inputs), TIERS["vq2"]
        for n_tiles in (1, 2, 4, 8):
            tokens = 8 * n_tiles
            x = torch.randn(tokens, inputs, device="cuda").to(torch.bfloat16)
            outs = [torch.empty(tokens, rows, dtype=torch.bfloat16, device="cuda") for _ in own]
            operands = halves_of(x, own[0].signs)
            for division in vq_gemm.divisions(*of_gpu, rows, inputs, tier, n_tiles):
                launches = [
                    partial(vq_gemm.gemm, *weight[:3], *operands, out, inputs, weight.code_bits, True, division)
                    for weight, out in zip(own, outs, strict=True)
                ]
                row = {"shape": [rows, inputs], "tokens": tokens, "division": division.__dict__}
                yield row | guarded(partial(_product_us, launches))


def _product_us(launches: Sequence[Callable[[], None]]) -> Row:
    found = microseconds(launches, replays=3, atleast=20)
    return {"product_us": found["median"], "range": [found["least"], found["most"]]}


def sweep() -> Iterator[Row]:
    """What may be turned, at batch 1: warps, pieces ahead, tiles and blocks side by side, one launch or two."""
    of_blocks = [
        *(vq_gemv.Tuning(16, 8, fused=fused) for fused in (False, True)),
        *(vq_gemv.Tuning(8, 8, 4, 0, 2, blocks, fused) for blocks, fused in product((1, 2), (False, True))),
        vq_gemv.Tuning(16, 12),
        vq_gemv.Tuning(16, 4, 0, 0, 2, 1, True),
    ]
    several = ((8192, 8192), (28672, 8192), (8192, 28672), (6144, 2048), (2048, 6144), (4096, 4096))
    tunings = [(shape, tier, tuning) for shape, tuning, tier in product(several, of_blocks, ("vq2", "vq1"))]
    tunings += [
        ((8192, 8192), tier, vq_gemv.Tuning(copies=count)) for tier, count in product(("vq3", "vq1.5"), (1, 2, 4))
    ]
    of_trellises = [
        *(vq_gemv.Tuning(16, 8, 4, fused=fused) for fused in (False, True)),
        *(vq_gemv.Tuning(warps, 8, tiles, 0, 2, 1, True) for warps, tiles in ((8, 4), (8, 2), (16, 2), (16, 1))),
        vq_gemv.Tuning(8, 8, 4, 0, 2, 2),
        vq_gemv.Tuning(8, 8, 4, 0, 2, 2, True),
    ]
    tunings += [(shape, "trellis2", tuning) for shape, tuning in product(several, of_trellises)]
    references = {shape: bfloat(*shape, 1) for shape in {shape for shape, _, _ in tunings}}
    for shape, tier, tuning in tunings:
        row = guarded(partial(times, tier, *shape, 1, references[shape], tuning))
        yield row | {"tier": tier, "shape": shape, "tuning": tuning.__dict__}


def prefill(tokens: int = 4096, rounds: int = 5) -> Iterator[Row]:
    """Dequantize and multiply 4,096 tokens, by how many of them go through cuBLAS at once: medians of rounds in turns,
    since a GPU under such load changes its clock.
    """
    for rows, inputs in ((8192, 8192), (4096, 4096)):
        own, tier = random_weight("vq2", rows, inputs), TIERS["vq2"]
        x = torch.randn(tokens, inputs, device="cuda").to(torch.bfloat16)
        plain = torch.randn(rows, inputs, device="cuda").to(torch.bfloat16)
        out, products = (torch.empty(tokens, rows, dtype=each, device="cuda") for each in (x.dtype, torch.float16))
        dense = torch.empty(rows, inputs, dtype=torch.float16, device="cuda")
        turned, factors = torch.empty_like(x, dtype=torch.float16), torch.ones(tokens, device="cuda")
        launches: dict[str, Callable[[], object]] = {
            "bf16": partial(torch.nn.functional.linear, x, plain),
            **{str(count): partial(dequantize.linear, x, *own, out, count) for count in (1024, 2048, 4096)},
            "dequantize": partial(dequantize.dequantize, *own[:3], dense, 0, own.code_bits, x.dtype),
            "rotate": partial(dequantize.rotate, x, own.signs, turned, factors, tier),
            "product": partial(torch.mm, turned, dense.T, out=products),
            "rescale": partial(dequantize.rescale, products, factors, out, inputs, tier),
        }
        found: dict[str, list[float]] = {name: [] for name in launches}
        for _ in range(rounds):
            for name, launch in launches.items():
                found[name].append(microseconds([launch], atleast=8)["median"])
        us = {name: statistics.median(each) for name, each in found.items()}
        for count in (1024, 2048, 4096):
            row = {"tier": "vq2", "shape": [rows, inputs], "tokens": tokens, "tokens_at_once": count}
            yield (
                row
                | {"us": us[str(count)], "times_bf16": us["bf16"] / us[str(count)]}
                | {f"{name}_us": us[name] for name in ("bf16", "dequantize", "rotate", "product", "rescale")}
            )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="correct,shapes,batch,prefill,sweep")
    given = parser.parse_args()
    report: Row = {
        "command": " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "bandwidth_tb_s": bandwidth(),
        "clusters_at_once": list(vq_gemm.rooms_of(0)),
        "rows": {},
    }
    began = time.monotonic()
    print(json.dumps(report), flush=True)
    parts = {each.__name__: each for each in (correct, shapes, batch, prefill, sweep, divide)}
    for name in given.only.split(","):
        rows = report["rows"].setdefault(name, [])
        walk = parts[name]()
        while True:
            try:
                row = next(walk)
            except StopIteration:
                break
            except Exception as error:
                row = {"failed": f"{type(error).__name__}: {error}"}
            rows.append(row)
            shown = {key: round(v, 3 if v > 0.1 else 7) if isinstance(v, float) else v for key, v in row.items()}
            print(f"{time.monotonic() - began:6.1f} {name} {json.dumps(shown)}", flush=True)
            report["seconds"] = time.monotonic() - began
            given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
