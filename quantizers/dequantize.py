"""From a codebook checkpoint back to bf16, to serve or to judge it anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels.formats.linears import READERS, read_linear
from quantgate_kernels.settings import METHOD, FormatError
from quantgate_kernels.validate import Contents, require_values, validate

from quantizers.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    TensorInfo,
    fingerprint,
    one_line,
    open_checkpoint,
    quantization_settings,
    read_tensor,
)
from quantizers.errors import QuantizeError
from quantizers.quantization_config import own_settings, tier_of
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
    stated = quantization_settings(folder, checkpoint.config) or {}
    settings = own_settings(stated)
    if settings.get("quant_method") != METHOD:
        if not settings:
            raise QuantizeError(f"{folder} does not say that it is quantized: there is nothing to turn back")
        method = str(settings.get("quant_method"))[:40]
        raise QuantizeError(f"{folder} is no codebook checkpoint of quantgate (quant_method {method})")
    try:
        contents = validate(folder) if stated.get("quant_method") == METHOD else None
    except FormatError as error:
        raise QuantizeError(f"{folder}: {error}") from None
    shards: dict[Path, list[TensorInfo]] = {}
    for info in checkpoint.tensors.values():
        shards.setdefault(info.file, []).append(info)
    with open_work(out, {"dequantized model": fingerprint(checkpoint)}, _size(checkpoint, contents)) as work:
        for file, infos in shards.items():
            write_shard(work.model / file.name, _entries(checkpoint, infos, settings, contents))
        write_index(work.model, [work.model / file.name for file in shards])
        copy_side_files(folder, work.model)
        dropped = ("quantization_config", "torch_dtype")
        config = {k: v for k, v in checkpoint.config.items() if k not in dropped} | {"dtype": "bfloat16"}
        write_text(work.model / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        work.publish(out)
    return out


def _size(checkpoint: Checkpoint, contents: Contents | None) -> int:
    """Bytes of tensors that are written; where a config of others says what they are, no less than that."""
    if contents is None:
        return sum(LARGEST_GROWTH.get(info.dtype, 16) * info.nbytes for info in checkpoint.tensors.values())
    coded = sum(2 * rows * columns for rows, columns in contents.shapes.values())
    found = [(*info.name.rpartition("."), info.nbytes) for info in checkpoint.tensors.values()]
    return coded + sum(size for module, _, last, size in found if last == "bias" or module not in contents.shapes)


def _entries(
    checkpoint: Checkpoint, infos: list[TensorInfo], settings: Mapping[str, Any], contents: Contents | None
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
                if contents is not None:
                    require_values(module, stored, tier)
                weight = read_linear(stored, tier, {} if contents is None else contents.tables)
            except (ValueError, KeyError, IndexError, TypeError, ArithmeticError, RuntimeError) as error:
                # A config may say anything: what it makes of the tensors is one kind of mistake.
                raise QuantizeError(f"{module}: its codes cannot be read: {one_line(error)}") from None
            yield tensor_entry(f"{module}.weight", weight.to(torch.bfloat16))
        elif kind not in parts:
            yield copy_entry(info)
