"""Models of integer, rotated, folded and fp8 tiers: what is written, what it is said to be, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from quantgate_kernels.formats import fp8_block
from quantgate_kernels.formats.linears import READERS, read_linear
from safetensors.torch import load_file
from tiny_llama import save_tiny_llama

from harness.checkpoint.models import describe
from quantizers import pipeline
from quantizers.checkpoint import open_checkpoint
from quantizers.dequantize import dequantize
from quantizers.modeling import build
from quantizers.pipeline import quantize
from quantizers.plan import Plan, make_plan
from quantizers.quantization_config import tier_of
from quantizers.recipe import Recipe, load_recipe
from quantizers.recipes import RECIPES
from quantizers.schemes import served
from quantizers.schemes.base import TABLES_FILE

CALIBRATION = {"samples": 8, "length": 32}
UNTUNED = {"tune": "none", "calibration": CALIBRATION}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        found |= load_file(file)
    return found


def logits(folder: Path, **settings: Any) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings)
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(40).view(2, 20)).logits
    return found


def stop_after_a_layer(stage: str, done: int, total: int) -> None:
    if (stage, done) == ("layer", 1):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_many_tiers_in_one_model(tmp_path: Path, tiny_model: Path) -> None:
    tiers = {r"re:.*0\.self_attn": "int4-rotated", r"re:.*0\.mlp": "int3", r"re:.*1\.self_attn": "fp8"}
    recipe = Recipe.model_validate({"name": "many", "tier": "int8", "tiers": tiers} | UNTUNED)
    folder = quantize(tiny_model, recipe, tmp_path / "codes", device="cpu")
    settings, held = json.loads((folder / "config.json").read_text())["quantization_config"], stored(folder)
    assert settings["quant_method"] == "quantgate" and not served(set(settings["tiers"]))
    tables = load_file(folder / TABLES_FILE)
    back = stored(dequantize(folder, tmp_path / "bf16"))
    original = stored(tiny_model)
    errors: dict[str, float] = {}
    weights, nbytes = 0, 0
    for name in (name.removesuffix(".weight") for name in original if "_proj" in name):
        tier = settings["tiers"][tier_of(name, settings)]
        parts = {part: held[f"{name}.{part}"] for part in READERS[tier["format"]][0]}
        weight = read_linear(parts, tier, tables)
        assert torch.equal(back[f"{name}.weight"], weight.to(torch.bfloat16))
        error = (weight - original[f"{name}.weight"].float()).norm() / original[f"{name}.weight"].float().norm()
        errors[tier_of(name, settings)] = max(errors.get(tier_of(name, settings), 0.0), float(error))
        weights, nbytes = weights + weight.numel(), nbytes + sum(part.nbytes for part in parts.values())
    assert errors["int8"] < 0.02 < errors["fp8"] < 0.05 < errors["int4-rotated"] < 0.2 < errors["int3"] < 0.45
    facts = describe("many", folder)
    assert facts.quantization == "quantgate" and facts.layout_known and not facts.doubts
    assert facts.low_bit_share == 1.0 and facts.linear_parameters == weights
    assert facts.linear_bits == pytest.approx(8 * nbytes / weights, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["int2", "int8"])
def test_stock_readers_read_other_widths(tier: str, tmp_path: Path, tiny_model: Path) -> None:
    recipe = Recipe.model_validate({"name": tier, "tier": tier} | UNTUNED)
    folder = quantize(tiny_model, recipe, tmp_path / "codes", device="cpu")
    facts = describe(tier, folder)
    assert facts.quantization == "compressed-tensors" and not facts.doubts
    # A bf16 scale for 32 inputs, and 16 bytes a Linear that say its shape.
    assert facts.linear_bits == pytest.approx(int(tier[3:]) + 0.5, abs=0.05)
    card = (folder / "README.md").read_text()
    assert ("vllm serve" in card) == (tier == "int8") and ("`humming`" in card) == (tier == "int2")


@pytest.mark.slow
def test_rotated_int4_alone_is_ours(tmp_path: Path, tiny_model: Path) -> None:
    recipe = Recipe.model_validate({"name": "r", "tier": "int4-rotated", "tune": "fast", "calibration": CALIBRATION})
    folder = quantize(tiny_model, recipe, tmp_path / "codes", device="cpu")
    assert sorted(load_file(folder / TABLES_FILE)) == ["signs.64", "signs.96"]
    assert all(t.dtype == torch.float16 for n, t in stored(folder).items() if n.endswith("weight_scale"))
    assert not describe("r", folder).doubts and "quantgate dequantize" in (folder / "README.md").read_text()
    far = logits(tiny_model) - logits(dequantize(folder, tmp_path / "bf16"))
    assert float(far.norm() / logits(tiny_model).norm()) < 0.25


def test_a_recipe_whose_tiers_are_all_data_free_is_neither_calibrated_nor_tuned(tiny_model: Path) -> None:
    """fp8 alone runs no text, though tuning by blocks is the default; with one Linear of another tier one runs."""
    checkpoint = open_checkpoint(tiny_model)
    architecture = build(checkpoint)

    def plan(**settings: Any) -> Plan:
        return make_plan(checkpoint, architecture, Recipe.model_validate({"name": "mine", "tier": "fp8"} | settings))

    assert not plan().calibrated and not plan(two_sided=True).calibrated
    assert all(plan(tiers={r"re:.*\.down_proj$": "int4"}, tune=tune).calibrated for tune in ("none", "blocks"))


def test_fp8_asks_for_no_text_and_goes_on_after_a_stop(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> torch.Tensor:
        raise AssertionError("no calibration is needed")

    monkeypatch.setattr(pipeline, "calibration_tokens", never)
    monkeypatch.setattr(pipeline, "capture_calls", never)
    whole = quantize(tiny_model, load_recipe("fp8-block"), tmp_path / "whole", device="cpu")

    with pytest.raises(KeyboardInterrupt):
        quantize(tiny_model, load_recipe("fp8-block"), tmp_path / "again", device="cpu", progress=stop_after_a_layer)
    again = quantize(tiny_model, load_recipe("fp8-block"), tmp_path / "again", device="cpu")
    for file in whole.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()
    held, original = stored(whole), stored(tiny_model)
    settings = json.loads((whole / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "fp8" and settings["weight_block_size"] == [128, 128]
    assert settings["modules_to_not_convert"] == ["lm_head"]
    back = stored(dequantize(whole, tmp_path / "bf16"))
    for name, tensor in original.items():
        module = name.removesuffix(".weight")
        if "_proj" in name:
            floats, scales = fp8_block.encode(tensor.float())
            assert torch.equal(held[name].float(), floats.float()) and torch.equal(
                held[f"{module}.weight_scale_inv"], scales
            )
            weight = fp8_block.decode({"weight": floats, "weight_scale_inv": scales})
            assert torch.equal(back[name], weight.to(torch.bfloat16))
        else:
            assert torch.equal(held[name], tensor) and torch.equal(back[name], tensor)
    facts = describe("fp8", whole)
    assert facts.quantization == "fp8" and not facts.doubts and facts.low_bit_share == 1.0
    card = (whole / "README.md").read_text()
    assert "| calibration | none |" in card and "| tuning | none |" in card
    assert "vLLM refuses it" in card and "q_proj has 64 outputs" in card


def test_transformers_serves_fp8_as_it_is_read_back(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    model = save_tiny_llama(tmp_path / "model", **sizes)
    folder = quantize(model, load_recipe("fp8-block"), tmp_path / "fp8", device="cpu")
    assert "Serve it with" in (folder / "README.md").read_text()
    theirs, ours = logits(folder), logits(dequantize(folder, tmp_path / "bf16"))
    # They multiply in float32, what is read back is rounded to bf16.
    assert float((theirs - ours).norm() / ours.norm()) < 0.02
    assert float((theirs - logits(model)).norm() / ours.norm()) < 0.2


@pytest.mark.parametrize("tied", [False, True])
def test_a_folded_model_is_the_model(tmp_path: Path, tied: bool) -> None:
    """Folded and stored as fp8 with a tier that keeps all but one Linear: what was folded is written, head and all."""
    model = save_tiny_llama(tmp_path / "model", tie_word_embeddings=tied)
    recipe = Recipe.model_validate(
        {"name": "f", "rotate": "folded", "tier": "fp8", "ignore": ["lm_head", r"re:.*(layers\.1\.|self_attn|gate|up)"]}
    )
    folder = quantize(model, recipe, tmp_path / "folded", device="cpu")
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    held = stored(folder)
    assert {"lm_head.weight", "model.layers.0.mlp.down_proj.weight_scale_inv"} <= set(held)
    assert all(bool((tensor == 1).all()) for name, tensor in held.items() if "norm" in name)
    before, after = logits(model), logits(dequantize(folder, tmp_path / "bf16"))
    assert float((after - before).norm() / before.norm()) < 0.03  # bf16 weights, and one of 8 bits
    assert "folded into all weights" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_folded_w4a16_is_served_as_any(tmp_path: Path, tiny_model: Path) -> None:
    recipe = Recipe.model_validate(RECIPES["w4a16-folded"] | {"tune": "fast", "calibration": CALIBRATION})
    folder = quantize(tiny_model, recipe, tmp_path / "folded", device="cpu")
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "compressed-tensors"
    assert not describe("folded", folder).doubts and "vllm serve" in (folder / "README.md").read_text()
    before, after = logits(tiny_model), logits(folder)
    assert float((after - before).norm() / before.norm()) < 0.25

    with pytest.raises(KeyboardInterrupt):
        quantize(tiny_model, recipe, tmp_path / "again", device="cpu", progress=stop_after_a_layer)
    again = quantize(tiny_model, recipe, tmp_path / "again", device="cpu")
    assert all(file.read_bytes() == (again / file.name).read_bytes() for file in folder.iterdir())
