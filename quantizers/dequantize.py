"""From a codebook checkpoint back to bf16, to serve or to judge it anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels.formats.linears import READERS, read_linear

from quantizers.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    TensorInfo,
    fingerprint,
    one_line,
    open_checkpoint,
    quantization_settings,
    read_header,
    read_tensor,
)
from quantizers.codebooks import sha256_of_table
from quantizers.errors import QuantizeError
from quantizers.quantization_config import FORMAT_VERSION, METHOD, own_settings, tier_of
from quantizers.side_files import copy_side_files
from quantizers.work_folder import open_work
from quantizers.writing import Entry, copy_entry, tensor_entry, write_index, write_shard, write_text

CODED = {parts[0] for parts, _ in READERS.values()} | {"weight_g_idx", "weight_zero_point"}
"""Last names of tensors that stand for weights: one that no reader takes is a weight lost, or read wrongly."""

LARGEST_GROWTH = dict.fromkeys(("F64", "F32", "F16", "BF16"), 1) | {"F8_E4M3": 2}
"""From stored bytes to those in bf16: floats are copied, and what else there is may be codes of one bit a weight."""


def dequantize(folder: Path, out: Path) -> Path:
    """Write the model in `folder` as plain bf16 into the new folder `out`, shard by shard, and return `out`.

    The checkpoint is one of ours, or in a public layout that we read, whoever made it: see `own_settings`.

    Raises:
        QuantizeError: the checkpoint is of neither, is of another version, or contradicts itself; `out` exists; the
            disk is full. Nothing is left under the name of `out`.
    """
    checkpoint = open_checkpoint(folder)
    settings = own_settings(quantization_settings(folder, checkpoint.config) or {})
    if settings.get("quant_method") != METHOD:
        if not settings:
            raise QuantizeError(f"{folder} does not say that it is quantized: there is nothing to turn back")
        method = str(settings.get("quant_method"))[:40]
        raise QuantizeError(f"{folder} is no codebook checkpoint of quantgate (quant_method {method})")
    if settings.get("format_version") != FORMAT_VERSION:
        raise QuantizeError(f"{folder} has format version {settings.get('format_version')}: this is {FORMAT_VERSION}")
    tables = _tables(folder, settings)
    shards: dict[Path, list[TensorInfo]] = {}
    for info in checkpoint.tensors.values():
        shards.setdefault(info.file, []).append(info)
    needed = sum(LARGEST_GROWTH.get(info.dtype, 16) * info.nbytes for info in checkpoint.tensors.values())
    with open_work(out, {"dequantized model": fingerprint(checkpoint)}, needed) as work:
        for file, infos in shards.items():
            write_shard(work.model / file.name, _entries(checkpoint, infos, settings, tables))
        write_index(work.model, [work.model / file.name for file in shards])
        copy_side_files(folder, work.model)
        dropped = ("quantization_config", "torch_dtype")
        config = {k: v for k, v in checkpoint.config.items() if k not in dropped} | {"dtype": "bfloat16"}
        write_text(work.model / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        work.publish(out)
    return out


def _tables(folder: Path, settings: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Codebooks and signs beside the shards, if there are any, the codebooks held against the hash in the config."""
    name, tables = settings.get("tables"), {}
    if name is not None:
        if Path(str(name)).name != name:
            raise QuantizeError(f"{folder}: the tables lie outside of the folder ({str(name)[:80]}): refused")
        tables = {info.name: read_tensor(info) for info in read_header(folder / name)}
    try:
        tiers, used = settings["tiers"], {settings["default_tier"], *settings["modules"].values()}
        books = {tiers[t]["table"]: tiers[t]["codebook"]["sha256"] for t in used if "table" in tiers[t]}
        _ = [(hash(tiers[t]["format"]), tiers[t]["rotation"]) for t in used]  # needed later
    except (AttributeError, KeyError, TypeError):
        raise QuantizeError(
            f"{folder}/{CONFIG_FILE} does not describe its tiers: get a sound copy of the model"
        ) from None
    for book, sha256 in books.items():
        if book not in tables or sha256_of_table(tables[book]) != sha256:
            raise QuantizeError(f"{folder}/{name}: the table {book} is not the one that config.json names")
    return tables


def _entries(
    checkpoint: Checkpoint, infos: list[TensorInfo], settings: Mapping[str, Any], tables: Mapping[str, torch.Tensor]
) -> Iterator[Entry]:
    for info in infos:
        module, _, kind = info.name.rpartition(".")
        tier = settings["tiers"][tier_of(module, settings)]
        parts = READERS[tier["format"]][0] if tier["format"] in READERS else ("codes",)
        if kind in CODED and kind not in parts:
            named = str(tier["format"])[:40]
            raise QuantizeError(f"{info.name} is nothing that {named} stores: {CONFIG_FILE} is not of these files")
        # A norm has a `weight` too, as block fp8 has: the other parts tell.
        held = [part for part in parts if part != "weight" and f"{module}.{part}" in checkpoint.tensors]
        if not held:
            yield copy_entry(info)
        elif kind == held[0]:
            try:
                stored = {part: read_tensor(checkpoint.tensors[f"{module}.{part}"]) for part in parts}
                weight = read_linear(stored, tier, tables)
            except (ValueError, KeyError, IndexError, TypeError, ArithmeticError, RuntimeError) as error:
                # A config may say anything: what it makes of the tensors is one kind of mistake.
                raise QuantizeError(f"{module}: its codes cannot be read: {one_line(error)}") from None
            yield tensor_entry(f"{module}.weight", weight.to(torch.bfloat16))
        elif kind not in parts:
            yield copy_entry(info)
