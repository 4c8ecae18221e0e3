"""Is a checkpoint of ours one that can be loaded? Read are headers, config.json and the tables, no weights.

python -m quantgate_kernels.validate FOLDER --tensor-parallel 2
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantgate_kernels.formats.linears import READERS
from quantgate_kernels.headers import INDEX_FILE, Header, read_headers
from quantgate_kernels.settings import FormatError, Settings, read_json, read_settings, shown
from quantgate_kernels.shapes import shape_of
from quantgate_kernels.sharding import require_shards
from quantgate_kernels.tables import read_tables, require_signs

CODED = frozenset(part for parts, _ in READERS.values() for part in parts) - {"weight"}
"""Last names of tensors that only a quantized Linear has."""


@dataclass(frozen=True)
class Contents:
    """What a loader needs of a sound checkpoint before it reads weights."""

    settings: Settings
    tables: dict[str, torch.Tensor]
    headers: dict[str, Header]
    shapes: dict[str, tuple[int, int]]
    """[O, I] of each quantized Linear, by its full name."""


def validate(folder: Path, tensor_parallel: int = 1) -> Contents:
    """What is in the checkpoint in `folder`, which is sound but for the values of its weights.

    Those are not read: `require_values` is for a loader that has a Linear's tensors.

    Raises:
        FormatError: the checkpoint is of another method or version, damaged, contradicts itself, or does not split over
            `tensor_parallel` ranks.
    """
    settings = read_settings(folder)
    if settings.tables is not None and not (folder / INDEX_FILE).is_file():
        raise FormatError(f"{folder / INDEX_FILE} is missing: without it servers read the tables as weights")
    tables, headers = read_tables(folder, settings), read_headers(folder)
    heads = _heads(read_json(folder / "config.json"))
    coded = {name.rpartition(".")[0] for name in headers if name.rpartition(".")[2] in CODED}
    _require_markers(coded, headers, settings)
    shapes = {}
    for module in sorted(coded):
        tier = settings.tier_of(module)
        shapes[module] = shape_of(module, _parts(module, tier, headers), tier, tables)
        if tier["rotation"] is not None:
            require_signs(tables, module, shapes[module][1], tier["rotation"])
        require_shards(module, shapes[module], tier, tensor_parallel, heads)
    return Contents(settings, tables, headers, shapes)


def require_values(module: str, tensors: Mapping[str, torch.Tensor], tier: Mapping[str, Any]) -> None:
    """Refuse values that stand for no weight, in the tensors of a Linear by their last name, whose shapes are sound.

    A code of vq or of a trellis is never beyond its table: that has as many entries as the code's bits can tell.

    Raises:
        FormatError: naming the tensor with a code beyond its codebook, or a scale or value that is not finite.
    """
    for part, tensor in tensors.items():
        name = f"{shown(module)}.{part}"
        if part in ("scales", "weight_scale", "weight_scale_inv"):
            if not bool((torch.isfinite(tensor) & (tensor > 0)).all()):
                raise FormatError(f"{name} holds scales that are not positive and finite: download the model again")
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(torch.float32)).all()):
            raise FormatError(f"{name} holds values that are not finite: download the model again")
    if tier["format"] == "aqlm":
        half, codes = 1 << tier["nbits_per_codebook"] - 1, tensors["codes"]
        if codes.numel() and (int(codes.min()) < -half or int(codes.max()) >= half):
            raise FormatError(f"{shown(module)}.codes holds a code beyond {2 * half} entries: download the model again")
    if tier["format"] == "pack-quantized":
        rows, words = tensors["weight_packed"].shape
        if tensors["weight_shape"].tolist() != [rows, words * 32 // tier["bits"]]:
            raise FormatError(f"{shown(module)}.weight_shape is not that of weight_packed: download the model again")


def _require_markers(coded: set[str], headers: Mapping[str, Header], settings: Settings) -> None:
    """Every module that config.json gives a tier has codes, and no other."""
    names = set(settings.ignore)
    drafts = tuple(layer for entry in names if (layer := _draft_layer(entry)))

    def ignored(module: str) -> bool:
        return module in names or module.startswith(drafts)

    for module in sorted(settings.modules.keys() - coded):
        raise FormatError(f"{shown(module)} has a tier in config.json, and no codes are stored of it: {_COPY}")
    for module in sorted(coded):
        if ignored(module):
            raise FormatError(f"{shown(module)} has codes, and config.json has it in `ignore`: {_COPY}")
    for name, header in headers.items():
        module, _, last = name.rpartition(".")
        # Linears of a layer have a number in their name; an embedding is no Linear and stands nowhere in config.json.
        if last != "weight" or len(header.shape) != 2 or module in coded or not re.search(r"\.\d+\.", name):
            continue
        if "embed" not in module and not ignored(module):
            raise FormatError(
                f"{shown(name)} is stored as it was, and by config.json its module has the tier "
                f"{shown(settings.default_tier)}, whose tensors are missing: {_COPY}"
            )


_COPY = "get a sound copy of the model"


def _draft_layer(entry: str) -> str | None:
    """`model.layers.2.` of the entry `re:model\\.layers\\.2\\..*` that we write; a stranger's pattern is not run."""
    found = re.fullmatch(r"re:((?:[\w-]|\\[.-])+\\\.\d+\\\.)\.\*", entry)
    return found.group(1).replace("\\", "") if found else None


def _parts(module: str, tier: Mapping[str, Any], headers: Mapping[str, Header]) -> dict[str, Header]:
    """The tensors of a Linear by their last name: all that its format has, and no others."""
    name = tier.get("format")
    if not isinstance(name, str) or name not in READERS:
        raise FormatError(f"{shown(module)} has the format {shown(name)}, which is unknown: install a newer one")
    wanted = READERS[name][0]
    for part in wanted:
        if f"{module}.{part}" not in headers:
            raise FormatError(f"{shown(module)}.{part} is missing, and {name} stores it: {_COPY}")
    for part in sorted((CODED | {"weight"}) - set(wanted)):
        if f"{module}.{part}" in headers:
            raise FormatError(f"{shown(module)}.{part} is stored, which is no part of {name}: {_COPY}")
    return {part: headers[f"{module}.{part}"] for part in wanted}


def _heads(config: Mapping[str, Any]) -> int | None:
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(heads := place.get("num_key_value_heads"), int) and heads > 0:
            return heads
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m quantgate_kernels.validate", description="Check a checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tensor-parallel", type=int, default=1, help="ranks that it has to split over")
    asked = parser.parse_args()
    if asked.tensor_parallel < 1:
        parser.error("--tensor-parallel must be 1 or more")
    try:
        found = validate(asked.folder, asked.tensor_parallel)
    except FormatError as error:
        sys.exit(f"error: {error}")
    tiers = Counter(found.settings.modules.get(name, found.settings.default_tier) for name in found.shapes)
    print(f"{asked.folder}: sound; quantized Linears by tier: {dict(sorted(tiers.items()))}")


if __name__ == "__main__":
    main()
