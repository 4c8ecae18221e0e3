"""The `quantization_config` of a quantized model: a stock server's where one scheme has one, else ours.

Ours, for codes in two tiers (`tables` is null where no tier stores any):

    {"quant_method": "quantgate", "format_version": 1, "tables": "quantgate_tables.safetensors",
     "tiers": {"vq2": {"format": "vq", ...}, "vq3": {"format": "vq", ...}},
     "default_tier": "vq2", "modules": {"model.layers.0.self_attn.q_proj": "vq3"}, "ignore": ["lm_head"]}
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate_kernels.formats import aqlm, fp8_block, pack_quantized
from quantgate_kernels.settings import FORMAT_VERSION, METHOD

from quantizers.schemes.base import TABLES_FILE, Scheme


def quantization_config(schemes: Mapping[str, Scheme], ignore: Sequence[str]) -> dict[str, Any]:
    """What config.json says of a model whose Linears have these `schemes`, by full name.

    Args:
        ignore: every Linear that stays as it was.
    """
    if (stock := stock_config(schemes, ignore)) is not None:
        return stock
    tiers = {scheme.tier: scheme for scheme in schemes.values()}
    default = Counter(scheme.tier for scheme in schemes.values()).most_common(1)[0][0]
    return {
        "quant_method": METHOD,
        "format_version": FORMAT_VERSION,
        "tables": TABLES_FILE if any(s.rotation_seed is not None or s.tables([]) for s in tiers.values()) else None,
        "tiers": {tier: tiers[tier].entry() for tier in sorted(tiers)},
        "default_tier": default,
        "modules": {name: scheme.tier for name, scheme in schemes.items() if scheme.tier != default},
        "ignore": list(ignore),
    }


def stock_config(schemes: Mapping[str, Scheme], ignore: Sequence[str]) -> dict[str, Any] | None:
    """A stock server's config, where there is one tier and it has one; arguments as above."""
    tiers = {scheme.tier: scheme for scheme in schemes.values()}
    return next(iter(tiers.values())).stock_config(ignore) if len(tiers) == 1 else None


def misread(stock: Mapping[str, Any], targets: Sequence[str]) -> tuple[str, str] | None:
    """An entry of a stock config for what was left alone, and one of the quantized `targets` that it means too.

    For transformers such an entry is a regular expression that a name begins with (`mlp.gate`: `mlp.gate_proj` too),
    or how a name ends (`proj`: `mlp.up_proj` too); its `should_convert_module`.
    """
    for key in ("modules_to_not_convert", "linear_weights_not_to_quantize"):
        for entry in stock.get(key, ()):
            try:
                begins = re.compile(entry)
            except re.error:
                return entry, "a regular expression"
            for target in targets:
                if begins.match(target) or target.endswith(entry):
                    return entry, target
    return None


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as ours: a whole model in one of the public layouts that we read becomes one tier, all others stay.

    Those are the AQLM project's, DeepSeek's block fp8, and compressed-tensors' packed integers of one width.
    """
    tier = _public_tier(settings)
    if tier is None:
        return dict(settings)
    name = tier["format"]
    return {
        "quant_method": METHOD,
        "format_version": FORMAT_VERSION,
        "tables": None,
        "tiers": {name: tier | {"rotation": None}},
        "default_tier": name,
        "modules": {},
    }


def is_block_fp8(settings: Mapping[str, Any]) -> bool:
    """Whether they are those of DeepSeek's block fp8."""
    return settings.get("quant_method") == "fp8" and settings.get("weight_block_size") == [fp8_block.BLOCK] * 2


def _public_tier(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    method = settings.get("quant_method")
    if method == aqlm.FORMAT:
        usual = aqlm.AQLMLayout(books=1, bits=16).settings()  # what transformers takes where a config is silent
        return {**usual, **settings, "format": aqlm.FORMAT}
    if is_block_fp8(settings):
        return {"format": fp8_block.FORMAT}
    groups = settings.get("config_groups")
    if method == "compressed-tensors" and isinstance(groups, dict) and len(groups) == 1:
        group = next(iter(groups.values()))
        weights = group.get("weights") if isinstance(group, dict) else None
        if settings.get("format") == pack_quantized.FORMAT and isinstance(weights, dict) and _plain(weights, settings):
            return {"format": pack_quantized.FORMAT, "bits": weights.get("num_bits")}
    return None


def _plain(weights: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Integers without zero points, whose groups are neighbours (no `weight_g_idx`) and whose inputs are not turned."""
    order = weights.get("actorder") in (None, False, "static", "weight")
    plain = weights.get("type") == "int" and weights.get("symmetric") is True
    return plain and order and not settings.get("transform_config")


def tier_of(module: str, settings: Mapping[str, Any]) -> str:
    """The tier of a module in such a config."""
    return str(settings.get("modules", {}).get(module, settings["default_tier"]))
