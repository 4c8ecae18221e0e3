"""The draft (MTP) head of a model: layers beyond the last one, or under a name of their own, that are carried along."""

from __future__ import annotations

import re

from quantizers.checkpoint import CONFIG_FILE, Checkpoint
from quantizers.errors import QuantizeError

DRAFT_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers")
"""How config.json says how many layers the head has."""
NAMED = re.compile(r"(?:^|\.)(?:mtp|nextn)[a-z_]{0,20}(?:\.|$)")
"""In the name of a tensor of a head that has a name of its own, as in "mtp.layers.0.mlp.up_proj.weight"."""


def require_drafts(checkpoint: Checkpoint, prefix: str, depth: int) -> None:
    """Hold what config.json says of a draft head against the files.

    Args:
        prefix: full name of the decoder layers, as in "model.layers"; `depth` is their number.

    Raises:
        QuantizeError: a draft layer that it claims is in no shard.
    """
    places = (checkpoint.config, checkpoint.config.get("text_config"))
    claims = [(key, place.get(key)) for place in places if isinstance(place, dict) for key in DRAFT_KEYS]
    key, count = max(((k, n) for k, n in claims if isinstance(n, int)), key=lambda claim: claim[1], default=("", 0))
    if count < 1 or any(NAMED.search(name) for name in checkpoint.tensors):
        return
    layer = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
    stored = {int(match[1]) for name in checkpoint.tensors if (match := layer.match(name))}
    missing = next(number for number in range(depth, depth + len(stored) + 1) if number not in stored)
    if missing < depth + count:
        raise QuantizeError(
            f"config.json says {key} {count}, an MTP layer in no shard of {checkpoint.folder}: {prefix}.{missing}.* "
            f"and mtp.* are missing: get the complete model, or, if it is meant to have none, set {key} to "
            f"{missing - depth} in {CONFIG_FILE}"
        )
