"""What is wrong with a config.json by itself or against the names of the tensors, before any model is built of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from quantizers.checkpoint import Checkpoint, shown
from quantizers.errors import QuantizeError

OBJECT_KEYS = ("quantization_config", "compression_config", "text_config", "auto_map")
"""Keys whose value transformers asks for keys of its own."""
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_EXPERT = re.compile(r"\.experts\.(\d{1,9})\.")
_NUMBER = re.compile(r"(?<![^.])(\d{1,9})(?![^.])")


def unknown_model(config: Mapping[str, Any]) -> str | None:
    """Why transformers has no class for what config.json describes, and the way out; None: it has one, or may have."""
    from transformers import CONFIG_MAPPING, __version__

    kind = config.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return None
    if config.get("auto_map"):
        return "it needs its own code (auto_map), which is never run"
    if not isinstance(kind, str) or not kind:
        return "config.json names no model_type: get the complete model"
    return (
        f"transformers {__version__} does not know model_type {shown(kind)}, and quantgate takes what it has a class "
        "for: install a transformers that has one (pip install -U transformers); docs/architectures.md says what else "
        "it takes"
    )


def refuse_values(config: Mapping[str, Any]) -> None:
    """Refuse what no config.json can mean: numbers that are none, and other things where an object belongs."""
    if found := _not_a_number(config):
        raise QuantizeError(f"config.json says {found[0]} {found[1]}, which is no number: correct it")
    for key in OBJECT_KEYS:
        value = config.get(key)
        if value is not None and not isinstance(value, dict):
            raise QuantizeError(f"config.json says {key} {shown(value)}, which is no object: remove or correct it")


def _not_a_number(config: Any, key: str = "", limit: bool = False) -> tuple[str, str] | None:
    """Key and value of a number in a config that is none; in a list infinity may be a limit (Mamba's time steps)."""
    if isinstance(config, float) and (math.isnan(config) or (math.isinf(config) and not limit)):
        return key, json.dumps(config)
    inside = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    within = isinstance(config, list)
    found = (_not_a_number(value, f"{key}.{own}".strip("."), within) for own, value in inside)
    return next(filter(None, found), None)


def refuse_claims(checkpoint: Checkpoint, config: dict[str, Any]) -> None:
    """Refuse more layers or experts than the files hold, by a config.json or its text_config alone."""
    numbers = {int(m[1]) for name in checkpoint.tensors if (m := _EXPERT.search(name))}
    together = {info.shape[0] for info in checkpoint.tensors.values() if len(info.shape) == 3}
    for key in EXPERT_KEYS if config.get("is_moe") is not False else ():  # Doge says how many it would have
        if isinstance(count := config.get(key), int) and count > max(1, len(numbers)) and count not in together:
            missing = next(n for n in range(len(numbers) + 1) if n not in numbers)
            raise QuantizeError(
                f"config.json says {key} {count}, but {checkpoint.folder} holds tensors of {len(numbers)} experts: "
                f"experts.{missing}.* is missing"
            )
    heads = {int(m[0]): name[: m.start()] for name in checkpoint.tensors for m in _NUMBER.finditer(name)}
    for key in DEPTH_KEYS:
        if not isinstance(depth := config.get(key), int):
            continue
        if depth < 1:
            raise QuantizeError(
                f"config.json says {key} {depth}, but {checkpoint.folder} holds tensors of {len(heads)} layers: "
                "correct it"
            )
        if depth > len(heads):
            missing = next(n for n in range(len(heads) + 1) if n not in heads)
            head = heads[max(heads)] if heads else "layer "
            raise QuantizeError(
                f"config.json says {key} {depth}, but {checkpoint.folder} holds tensors of {len(heads)} layers: "
                f"{head}{missing}.* is missing"
            )
