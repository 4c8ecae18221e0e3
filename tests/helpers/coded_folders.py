"""Checkpoints of ours with random codes, written in a moment: any tier for any Linear."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels.formats import aqlm, fp8_block, pack_quantized, trellis, vq
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.tables import NORMAL, SEED, SIGNS, UNIVERSAL, normal_table, sha256_of_table
from safetensors.torch import save_file

TABLES = "quantgate_tables.safetensors"
ROTATION = {"kind": SIGNS, "seed": 7}
BOOKS = {
    name: torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(5), dtype=torch.int8)
    for name, shape in {"codebooks.vq2": (256, 4), "codebooks.vq1": (256, 8), "codebooks.vq3": (4096, 4)}.items()
} | {"trellis.8": normal_table(8)}


def _vq(name: str, dimensions: int, entries: int) -> dict[str, Any]:
    book = {"kind": UNIVERSAL, "seed": SEED, "sha256": sha256_of_table(BOOKS[name])}
    sizes = {"dimensions": dimensions, "entries": entries, "table": name, "codebook": book}
    return {"format": vq.FORMAT, **sizes, "rotation": ROTATION}


TIERS: dict[str, dict[str, Any]] = {
    "vq2": _vq("codebooks.vq2", 4, 256),
    "vq1": _vq("codebooks.vq1", 8, 256),
    "vq3": _vq("codebooks.vq3", 4, 4096),
    "trellis2": {
        "format": trellis.FORMAT, "bits": 2, "state_bits": 8, "table": "trellis.8", "rotation": ROTATION,
        "codebook": {"kind": NORMAL, "seed": SEED, "sha256": sha256_of_table(BOOKS["trellis.8"])},
    },
    "int4": {"format": pack_quantized.FORMAT, "bits": 4, "group_size": 64, "rotation": None},
    "int4-rotated": {"format": pack_quantized.FORMAT, "bits": 4, "group_size": 64, "rotation": ROTATION},
    "int3": {"format": pack_quantized.FORMAT, "bits": 3, "group_size": 64, "rotation": None},
    "fp8": {"format": fp8_block.FORMAT, "rotation": None},
    "aqlm": {"format": aqlm.FORMAT, **aqlm.AQLMLayout(2, 8).settings(), "rotation": None},
}  # fmt: skip


def stored_linear(tier: str, rows: int, columns: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of a Linear [rows, columns] in a tier, by last name; `plain` for a bfloat16 weight."""
    random = torch.Generator().manual_seed(seed)
    if tier == "plain":
        return {"weight": torch.randn(rows, columns, generator=random).to(torch.bfloat16)}
    entry = TIERS[tier]
    group = entry["group_size"] if "group_size" in entry else block_of(columns)
    scales = torch.rand(rows, columns // group, generator=random) + 0.5
    match entry["format"]:
        case vq.FORMAT:
            layout = vq.VQLayout(entry["dimensions"], entry["entries"])
            shape = rows, columns // layout.dimensions
            return vq.encode(torch.randint(0, layout.entries, shape, generator=random), scales, layout)
        case trellis.FORMAT:
            kind = trellis.TrellisLayout(entry["bits"], entry["state_bits"])
            symbols = torch.randint(0, 1 << kind.bits, (rows // 16, columns // 16, 256), generator=random)
            return trellis.encode(symbols, scales, kind)
        case pack_quantized.FORMAT:
            half = 1 << entry["bits"] - 1
            codes = torch.randint(-half, half, (rows, columns), generator=random)
            dtype = torch.float16 if entry["bits"] == 3 or entry["rotation"] else torch.bfloat16
            return pack_quantized.encode(codes, scales, entry["bits"], dtype)
        case fp8_block.FORMAT:
            weight, inverse = fp8_block.encode(torch.randn(rows, columns, generator=random))
            return {"weight": weight, "weight_scale_inv": inverse}
    codes = torch.randint(0, 256, (rows, columns // 8, 2), generator=random)
    return aqlm.encode(codes, torch.randn(2, 256, 1, 8, generator=random), torch.rand(rows, generator=random) + 0.5)


def tables_of(columns: set[int]) -> dict[str, torch.Tensor]:
    """The tables of a model whose Linears have these inputs."""
    return BOOKS | {f"signs.{side}": signs_of(side, ROTATION["seed"]) for side in columns}


def save_coded(
    folder: Path,
    linears: Mapping[str, tuple[str, int, int]],
    config: Mapping[str, Any] | None = None,
    rest: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """A checkpoint of Linears, each (tier or `plain`, outputs, inputs) by its full name.

    Args:
        config: further entries of config.json.
        rest: further tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(rest or {})
    for number, (name, (tier, rows, columns)) in enumerate(linears.items()):
        tensors |= {f"{name}.{part}": t for part, t in stored_linear(tier, rows, columns, number).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(tables_of({columns for tier, _, columns in linears.values() if tier != "plain"}), folder / TABLES)
    coded = {name: tier for name, (tier, *_) in linears.items() if tier != "plain"}
    default = next(iter(coded.values()))
    settings = {
        "quant_method": "quantgate", "format_version": 1, "tables": TABLES, "default_tier": default,
        "tiers": {tier: TIERS[tier] for tier in set(coded.values())},
        "modules": {name: tier for name, tier in coded.items() if tier != default},
        "ignore": [name for name, (tier, *_) in linears.items() if tier == "plain"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**(config or {}), "quantization_config": settings}))
    return folder
