"""A checkpoint as a server meets it: validated once a process, and its modules under the server's names.

vLLM's `language_model.model.layers.0.mlp.gate_up_proj` is stored as `model.language_model.layers.0.mlp.gate_proj` and
`….up_proj`: the model's mapper renames, and its `packed_modules_mapping` says what was fused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantgate_kernels.formats import aqlm
from quantgate_kernels.headers import read_headers
from quantgate_kernels.settings import METHOD, FormatError, Settings, read_json, shown
from quantgate_kernels.shapes import shape_of
from quantgate_kernels.sharding import require_shards
from quantgate_kernels.validate import Contents, validate

FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "fused_qkv_a_proj": ("q_a_proj", "kv_a_proj_with_mqa"),
    "wk_weights_proj": ("wk", "weights_proj"),
}
"""Fusions that some models do without saying so in their `packed_modules_mapping`."""
EXPERT = re.compile(r"\.experts\.\d+\.")
NUMBERED = re.compile(r"\.(\d+)\.")

Rename = Callable[[str], str | None]
"""From a tensor's name to the server's; None where the server has none."""


@dataclass(frozen=True)
class Checkpoint:
    """Contents that were found sound, and where a server's names lead to."""

    contents: Contents
    names: Mapping[str, str]
    """Stored names of modules by the server's."""
    layers: int | None
    """Decoder layers, if config.json says how many: servers number those of draft heads from there on."""

    def stored(self, prefix: str, packed: Mapping[str, Sequence[str]]) -> list[str]:
        """Stored names of what the server's module `prefix` holds, in its order; none where nothing is stored of it."""
        if prefix in self.names:
            return [self.names[prefix]]
        parent, dot, last = prefix.rpartition(".")
        found = [self.names.get(f"{parent}{dot}{part}") for part in packed.get(last) or FUSED.get(last, ())]
        return [name for name in found if name is not None] if all(found) else []

    def coded(self, modules: Sequence[str]) -> bool:
        return any(module in self.contents.shapes for module in modules)

    def must_store(self, prefix: str) -> bool:
        """Would a server run a layer on nothing where nothing is stored of `prefix`?

        Layers of draft heads have names of the server's own, and what stands outside of layers may be tied.
        """
        numbers = [int(number) for number in NUMBERED.findall(prefix)]
        return bool(numbers) and (self.layers is None or numbers[0] < self.layers)


@functools.lru_cache(maxsize=2)
def read_contents(folder: Path, method: str) -> Contents:
    """What is in the checkpoint in `folder`: its headers and tables; one of ours, or of the AQLM project.

    Raises:
        FormatError: it is damaged, contradicts itself, or would be read wrongly by a server.
    """
    with torch.device("cpu"):  # a worker's first look is while it loads, when its default is the GPU
        return validate(folder) if method == METHOD else _aqlm_contents(folder)


def named(contents: Contents, renames: Sequence[Rename], config: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint under the names that the server's mappers make, one after the other; `config` is config.json."""
    names = {}
    for stored in {name.rpartition(".")[0] for name in contents.headers}:
        name: str | None = f"{stored}.weight"
        for rename in renames:
            name = None if name is None else rename(name)
        if name is not None:
            names[name.removesuffix(".weight")] = stored
    layers = _text(config).get("num_hidden_layers")
    return Checkpoint(contents, names, layers if isinstance(layers, int) else None)


def require_split(contents: Contents, config: Mapping[str, Any], ranks: int, expert_ranks: int) -> None:
    """Refuse where a quantized Linear does not split over the ranks, those of experts over theirs.

    Raises:
        FormatError: naming the Linear.
    """
    heads = _text(config).get("num_key_value_heads")
    for module, shape in contents.shapes.items():
        parts = expert_ranks if EXPERT.search(module) else ranks
        require_shards(module, shape, contents.settings.tier_of(module), parts, heads)


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model that may keep its language model's settings apart."""
    inner = config.get("text_config")
    return {**(inner if isinstance(inner, dict) else {}), **config}


def _aqlm_contents(folder: Path) -> Contents:
    """Of a checkpoint in the AQLM project's own layout, one for the whole model."""
    found: Any = read_json(folder / "config.json").get("quantization_config")
    usual = aqlm.AQLMLayout(books=1, bits=16).settings()  # what transformers takes where a config is silent
    tier = {**usual, **{key: found[key] for key in usual if key in found}, "format": aqlm.FORMAT, "rotation": None}
    headers = read_headers(folder)
    plain = [name.removesuffix(".weight") for name in found.get("linear_weights_not_to_quantize") or ()]
    shapes = {}
    for module in sorted({name.removesuffix(".codes") for name in headers if name.endswith(".codes")}):
        for part in aqlm.PARTS:
            if f"{module}.{part}" not in headers:
                raise FormatError(f"{shown(module)}.{part} is missing, and {aqlm.FORMAT} stores it: get a sound copy")
        parts = {part: headers[f"{module}.{part}"] for part in aqlm.PARTS}
        shapes[module] = shape_of(module, parts, tier, {})
    return Contents(Settings(None, {aqlm.FORMAT: tier}, aqlm.FORMAT, {}, tuple(plain)), {}, headers, shapes)
