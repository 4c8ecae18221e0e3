"""The draft (MTP) head of a model: layers beyond the last one, or under a name of their own, that are carried along."""

from __future__ import annotations

import re
from itertools import product

from quantizers.checkpoint import CONFIG_FILE, Checkpoint
from quantizers.errors import QuantizeError

DRAFT_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
"""How config.json says how many layers the head has."""
NAMED = re.compile(r"(?:^|\.)(?:mtp|nextn)[a-z_]{0,20}(?:\.|$)")
"""In the name of a tensor of a head that has a name of its own, as in "mtp.layers.0.mlp.up_proj.weight"."""

EXPERT = re.compile(r"(.*\.experts)\.(\d{1,9})\.(.+)")
"""The experts of a layer, the number of one, and a part of it."""


def require_drafts(checkpoint: Checkpoint, prefix: str, depth: int) -> None:
    """Hold what config.json says of a draft head against the files.

    Args:
        prefix: full name of the decoder layers, as in "model.layers"; `depth` is their number.

    Raises:
        QuantizeError: a draft layer that it claims is in no shard, or one that is there lacks a part of an expert.
    """
    _require_whole_experts(checkpoint, prefix, depth)
    places = (checkpoint.config, checkpoint.config.get("text_config"))
    claims = [(key, place.get(key)) for place in places if isinstance(place, dict) for key in DRAFT_KEYS]
    key, count = max(((k, n) for k, n in claims if isinstance(n, int)), key=lambda claim: claim[1], default=("", 0))
    if count < 1 or any(NAMED.search(name) for name in checkpoint.tensors):
        return
    layer = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
    stored = {
        int(match[1]) for n, info in checkpoint.tensors.items() if len(info.shape) > 1 and (match := layer.match(n))
    }
    missing = next(number for number in range(depth, depth + len(stored) + 1) if number not in stored)
    if missing < depth + count:
        raise QuantizeError(
            f"config.json says {key} {count}, an MTP layer in no shard of {checkpoint.folder}: {prefix}.{missing}.* "
            f"and mtp.* are missing: get the complete model, or, if it is meant to have none, set {key} to "
            f"{missing - depth} in {CONFIG_FILE}"
        )


def _require_whole_experts(checkpoint: Checkpoint, prefix: str, depth: int) -> None:
    """No class of transformers asks for a draft layer's experts: they are held against each other and their router."""
    layer = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
    found: dict[str, dict[int, set[str]]] = {}
    for name in checkpoint.tensors:
        number = layer.match(name)
        if (expert := EXPERT.match(name)) and (int(number[1]) >= depth if number else NAMED.search(name)):
            found.setdefault(expert[1], {}).setdefault(int(expert[2]), set()).add(expert[3])
    for experts, parts in found.items():
        router = checkpoint.tensors.get(f"{experts.rpartition('.')[0]}.gate.weight")
        count = max(max(parts) + 1, router.shape[0] if router is not None and len(router.shape) == 2 else 0)
        for expert_number, part in product(range(count), sorted(set[str]().union(*parts.values()))):
            if part not in parts.get(expert_number, ()):
                raise QuantizeError(
                    f"tensor {experts}.{expert_number}.{part} of an MTP layer is missing in {checkpoint.folder}: "
                    "get the complete model"
                )
