"""The `quantization_config` of a quantized model: a stock server's where one scheme has one, else ours.

Ours, for codes in two tiers:

    {"quant_method": "quantgate", "format_version": 1, "tables": "quantgate_tables.safetensors",
     "tiers": {"vq2": {"format": "vq", ...}, "vq3": {"format": "vq", ...}},
     "default_tier": "vq2", "modules": {"model.layers.0.self_attn.q_proj": "vq3"}, "ignore": ["lm_head"]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate_kernels.formats import aqlm

from quantizers.schemes.base import TABLES_FILE, Scheme

METHOD = "quantgate"
FORMAT_VERSION = 1


def quantization_config(schemes: Mapping[str, Scheme], ignore: Sequence[str]) -> dict[str, Any]:
    """What config.json says of a model whose Linears have these `schemes`, by full name.

    Args:
        ignore: every Linear that stays as it was.
    """
    tiers = {scheme.tier: scheme for scheme in schemes.values()}
    if len(tiers) == 1 and (stock := next(iter(tiers.values())).stock_config(ignore)) is not None:
        return stock
    default = Counter(scheme.tier for scheme in schemes.values()).most_common(1)[0][0]
    return {
        "quant_method": METHOD,
        "format_version": FORMAT_VERSION,
        "tables": TABLES_FILE,
        "tiers": {tier: tiers[tier].entry() for tier in sorted(tiers)},
        "default_tier": default,
        "modules": {name: scheme.tier for name, scheme in schemes.items() if scheme.tier != default},
        "ignore": list(ignore),
    }


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as ours: those of a whole model in the AQLM project's format become one tier, all others stay."""
    if settings.get("quant_method") != aqlm.FORMAT:
        return dict(settings)
    usual = aqlm.AQLMLayout(books=1, bits=16).settings()  # what transformers takes where a config is silent
    tier = {**usual, **settings, "format": aqlm.FORMAT, "rotation": None}
    return {
        "quant_method": METHOD,
        "format_version": FORMAT_VERSION,
        "tables": TABLES_FILE,
        "tiers": {aqlm.FORMAT: tier},
        "default_tier": aqlm.FORMAT,
        "modules": {},
    }


def tier_of(module: str, settings: Mapping[str, Any]) -> str:
    """The tier of a module in such a config."""
    return str(settings.get("modules", {}).get(module, settings["default_tier"]))
