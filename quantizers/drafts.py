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

NUMBERED = ("eh_proj.weight", "enorm.weight", "hnorm.weight")
"""What servers read of a draft layer beyond the last (DeepSeek-V3, GLM-5) beside a decoder layer's tensors."""
EXPERT = re.compile(r"(.*\.experts)\.(\d{1,9})\.(.+)")
"""The experts of a layer, the number of one, and a part of it."""


def require_drafts(checkpoint: Checkpoint, prefix: str, depth: int) -> None:
    """Hold what config.json says of a draft head against the files.

    Args:
        prefix: full name of the decoder layers, as in "model.layers"; `depth` is their number.

    Raises:
        QuantizeError: a draft layer that it claims is in no shard, or one that is there lacks a tensor, or has one of
            another shape than the decoder layers.
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
    if key == DRAFT_KEYS[0]:
        _require_like_the_others(checkpoint, prefix, depth, [number for number in sorted(stored) if number >= depth])
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


def _require_like_the_others(checkpoint: Checkpoint, prefix: str, depth: int, drafts: list[int]) -> None:
    """A draft layer beyond the last is a decoder layer with `NUMBERED` beside it.

    Weights that all decoder layers have must be there (all with experts, where the draft layer has some; experts are
    held against each other), in one of the shapes that they have in those.
    """
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    layer = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.(.+)")
    for name, info in checkpoint.tensors.items():
        if match := layer.match(name):
            layers.setdefault(int(match[1]), {})[match[2]] = info.shape
    for number in drafts:
        own = layers[number]
        others = [found for index, found in layers.items() if index < depth]
        if any(EXPERT.match(name) for name in own):
            others = [found for found in others if any(EXPERT.match(name) for name in found)] or others
        common = set.intersection(*map(set, others)) if others else set()
        weights = (name for name in common if name.endswith(".weight") and not EXPERT.match(name))
        needed = sorted(weights) + list(NUMBERED)
        for name in (name for name in needed if name not in own):
            raise QuantizeError(
                f"tensor {prefix}.{number}.{name} of an MTP layer is missing in {checkpoint.folder}: get the complete "
                "model"
            )
        for name, shape in own.items():
            shapes = [found[name] for found in others if name in found]
            if shapes and shape not in shapes:
                raise QuantizeError(
                    f"tensor {prefix}.{number}.{name} of an MTP layer is {list(shape)}, and in the other layers "
                    f"{list(shapes[0])}: get the complete model"
                )
