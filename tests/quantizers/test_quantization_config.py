"""Which public layouts are read as ours: those that are what they seem, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from quantizers.quantization_config import own_settings


def packed(group: Any = None, **weights: Any) -> dict[str, Any]:
    plain = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128} | weights
    groups = {"group_0": {"targets": ["Linear"], "weights": plain} if group is None else group}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}


@pytest.mark.parametrize("order", [None, "static", "weight"])
def test_packed_integers_are_a_tier(order: str | None) -> None:
    tiers = own_settings(packed(actorder=order))["tiers"]
    assert tiers == {"pack-quantized": {"format": "pack-quantized", "bits": 4, "rotation": None}}


@pytest.mark.parametrize(
    "settings",
    [
        packed(actorder="group"),  # columns in another order, by `weight_g_idx`
        packed(actorder="dynamic"),
        packed(symmetric=False),
        packed(type="float"),
        packed() | {"transform_config": {"config_groups": {}}, "format": "pack-quantized"},
        packed() | {"format": "marlin-24"},
        packed(group=3),
        packed(group={"weights": [1]}),
        packed(group={}),
        packed() | {"config_groups": []},
        {"quant_method": "fp8", "weight_block_size": [64, 64]},
        {},
    ],
)
def test_what_would_be_read_wrongly_is_not_read(settings: dict[str, Any]) -> None:
    assert own_settings(settings) == settings
