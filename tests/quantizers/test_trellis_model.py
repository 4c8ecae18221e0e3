"""A whole model in trellis codes: what is written, what it is said to be, and the way back to bf16."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from quantgate_kernels.formats.trellis import TrellisLayout, decode
from safetensors.torch import load_file
from tiny_llama import save_tiny_llama

from harness.checkpoint.models import describe
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe
from quantizers.schemes import TIERS, trellis
from quantizers.schemes.base import TABLES_FILE

pytestmark = pytest.mark.slow  # quantizes a whole model

RECIPE = {"name": "t", "damping": 0.01, "tune": "fast", "calibration": {"samples": 8, "length": 32}}


@pytest.fixture(autouse=True)
def few_states(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (2, 3):
        monkeypatch.setitem(TIERS, f"trellis{bits}", partial(trellis.for_model, f"trellis{bits}", bits, 8))


def test_codes_of_two_widths_and_the_way_back(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    recipe = Recipe.model_validate(RECIPE | {"tier": "trellis2", "tiers": {"re:.*down_proj$": "trellis3"}})
    codes = quantize(tiny_model, recipe, tmp_path / "codes", device="cpu")
    stored: dict[str, torch.Tensor] = {}
    for file in sorted(codes.glob("model-*.safetensors")):
        stored |= load_file(file)
    settings = json.loads((codes / "config.json").read_text())["quantization_config"]
    tables = load_file(codes / TABLES_FILE)
    assert sorted(tables) == ["signs.64", "signs.96", "trellis.8"]
    assert settings["default_tier"] == "trellis2" and set(settings["modules"].values()) == {"trellis3"}
    model: Any = AutoModelForCausalLM.from_pretrained(dequantize(codes, tmp_path / "bf16"), dtype=torch.bfloat16)
    names = [name.removesuffix(".codes") for name in stored if name.endswith(".codes")]
    assert len(names) == 14
    weights = 0
    for name in names:
        linear = model.get_submodule(name)
        layout = TrellisLayout(3 if name.endswith("down_proj") else 2, 8)
        parts = {key: stored[f"{name}.{key}"] for key in ("codes", "scales")}
        weight = decode(parts, tables["trellis.8"], layout, tables[f"signs.{linear.in_features}"])
        assert torch.equal(linear.weight.data, weight.to(torch.bfloat16))
        weights += weight.numel()

    facts = describe("trellis", codes)
    assert facts.quantization == "quantgate" and facts.layout_known and not facts.doubts
    held = sum(tensor.nbytes for name, tensor in stored.items() if name.endswith((".codes", ".scales")))
    assert facts.low_bit_share == 1.0 and facts.linear_parameters == weights
    assert facts.linear_bits == pytest.approx(8 * held / weights, abs=0.01)
    card = (codes / "README.md").read_text()
    assert "2 bits each, one of 256 values" in card and "3 bits each" in card


def test_outputs_that_fill_no_tile_are_refused_before_work(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model", num_key_value_heads=1, num_attention_heads=8)
    recipe = Recipe.model_validate(RECIPE | {"tier": "trellis2"})
    with pytest.raises(QuantizeError, match=r"k_proj has 8 outputs, and tier trellis2 stores 16 at a time"):
        quantize(model, recipe, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
