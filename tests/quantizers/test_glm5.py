"""A GLM-5 in small: sparse attention, a dense layer, experts, an MTP head; mixed bits as its recipe has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_moe import DRAFT, save_tiny_glm

from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.mixed.choice import choose_tiers, make_target, recipe_text
from quantizers.mixed.measure import measure_tiers
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe, load_recipe
from quantizers.recipes import RECIPES


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_glm(tmp_path_factory.mktemp("glm") / "glm-5")


@pytest.mark.slow
def test_a_mix_is_chosen_and_the_draft_head_is_carried_byte_for_byte(
    glm: Path, tmp_path: Path, tiny_recipe: Recipe
) -> None:
    settings = RECIPES["glm-5.2-mixed"] | {"mix": ["vq1", "vq2"], "calibration": tiny_recipe.calibration}
    recipe = Recipe.model_validate(settings)
    damage = measure_tiers(glm, recipe, tmp_path / "damage.json", sequences=3, device="cpu")
    open_groups = [group for group in damage.groups if len(group.bytes) > 1]
    assert len(open_groups) == 2 * 4 and all(".mlp.experts." in group.name for group in open_groups)
    fixed = {name for group in damage.groups if group not in open_groups for name in group.bytes}
    assert fixed == {"int8"} and not any("indexer" in group.name for group in damage.groups)
    mix = choose_tiers(damage, make_target(1.8, None), {})
    assert damage.bits(mix) <= 1.8
    assert {mix[group.name] for group in open_groups} == {"vq1", "vq2"}
    (tmp_path / "mix.yaml").write_text(recipe_text(damage, mix, {}, []))
    made = quantize(glm, load_recipe(tmp_path / "mix.yaml"), tmp_path / "made", device="cpu")
    before, after = (open_checkpoint(folder).tensors for folder in (glm, made))
    drafts = [name for name in before if name.startswith(DRAFT)]
    assert len(drafts) > 20
    for name in drafts:
        assert after[name].dtype == before[name].dtype and torch.equal(
            read_tensor(after[name]), read_tensor(before[name])
        )
    settings = json.loads((made / "config.json").read_text())["quantization_config"]
    assert r"re:model\.layers\.2\..*" in settings["ignore"]
    index = json.loads((made / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(drafts) <= set(index)
    plain = open_checkpoint(dequantize(made, tmp_path / "plain")).tensors
    assert plain.keys() == before.keys()


def test_the_recipes_of_the_releases_are_sound() -> None:
    mixed, w4a16 = load_recipe("glm-5.2-mixed"), load_recipe("glm-5.2-w4a16-mtp")
    assert mixed.mix == ("vq1", "vq1.5", "vq2", "vq3") and w4a16.tier == "int4"
    layer = "model.layers.40"
    assert mixed.tier_named(f"{layer}.self_attn.kv_b_proj") == "int8"
    assert mixed.tier_named(f"{layer}.mlp.shared_experts.up_proj") == "int8"
    assert mixed.tier_named("model.layers.1.mlp.up_proj") == "int8"
    assert mixed.tier_named(f"{layer}.mlp.experts.255.down_proj") is None
    for kept in (f"{layer}.self_attn.indexer.wq_b", f"{layer}.mlp.gate", "lm_head"):
        assert mixed.ignores(kept) and w4a16.ignores(kept)
    assert sum(source.weight for source in mixed.calibration.sources if source.shipped in ("ja", "reasoning")) == 6
