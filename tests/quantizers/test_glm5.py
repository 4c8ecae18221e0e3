"""A GLM-5 in small: sparse attention, a dense layer, experts, an MTP head; mixed bits as its recipe has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_moe import DRAFT, save_tiny_glm

from harness.gate.mixing import NO_SIZE, Size
from harness.gate.quantization import quantize_model
from harness.runs.progress import Reporter
from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.mixed.choice import choose_tiers, make_target, recipe_text
from quantizers.mixed.measure import measure_tiers
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe, load_recipe
from quantizers.recipes import RECIPES

GLM_RECIPES = [name for name in RECIPES if name.startswith("glm-")]


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_glm(tmp_path_factory.mktemp("glm") / "glm-5")


def require_carried(glm: Path, made: Path, tmp_path: Path) -> None:
    """The draft head, and whatever else is stored under its name, has the bytes of the original."""
    before, after = (open_checkpoint(folder).tensors for folder in (glm, made))
    drafts = [name for name in before if name.startswith(DRAFT)]
    assert len(drafts) > 20 and {before[name].dtype for name in drafts} == {"BF16"}
    assert set(drafts) < before.keys() & after.keys()
    for name in before.keys() & after.keys():
        assert after[name].dtype == before[name].dtype, name
        assert torch.equal(read_tensor(after[name]), read_tensor(before[name])), name
    settings = json.loads((made / "config.json").read_text())["quantization_config"]
    assert r"re:model\.layers\.2\..*" in settings["ignore"]
    assert json.loads((made / "model.safetensors.index.json").read_text())["weight_map"].keys() == after.keys()
    plain = open_checkpoint(dequantize(made, tmp_path / "plain")).tensors
    assert plain.keys() == before.keys()


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
    require_carried(glm, quantize(glm, load_recipe(tmp_path / "mix.yaml"), tmp_path / "made", device="cpu"), tmp_path)


class Reached(Exception):
    """As far as a test goes."""


@pytest.mark.parametrize("name", GLM_RECIPES)
def test_the_recipes_of_the_releases_begin_as_they_ship(glm: Path, tmp_path: Path, name: str) -> None:
    """With the whole of their calibration: up to where the weights are looked through, or the first layer runs."""
    recipe = load_recipe(name)
    seen: list[str] = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append(stage)
        if stage == ("load" if recipe.mix else "inputs") and total > 1:  # the codebooks of a mix take a minute here
            raise Reached

    with pytest.raises(Reached):
        if recipe.mix:
            measure_tiers(glm, recipe, tmp_path / "damage.json", progress=stop, device="cpu")
        else:
            quantize(glm, recipe, tmp_path / "out", progress=stop, device="cpu")
    assert seen[0] == "load"


@pytest.mark.slow
@pytest.mark.parametrize("name", GLM_RECIPES)
def test_the_recipes_of_the_releases_go_through_with_less_text(
    glm: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    less = RECIPES[name]["calibration"] | {"samples": 8, "length": 16}
    mix = {"mix": ["vq1", "vq2"]} if "mix" in RECIPES[name] else {}  # codebooks of 4,096 entries take long
    monkeypatch.setitem(RECIPES, name, RECIPES[name] | {"calibration": less} | mix)
    size = Size(bits=1.8) if RECIPES[name].get("mix") else NO_SIZE
    made = quantize_model(glm, name, tmp_path / "out", Reporter(), size=size, device="cpu")
    settings = json.loads((made / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == ("quantgate" if "mix" in RECIPES[name] else "compressed-tensors")
    assert (made / "quantgate_experts.json").is_file()


@pytest.mark.long
@pytest.mark.parametrize("name", GLM_RECIPES)
def test_the_recipes_of_the_releases_go_through_as_they_ship(glm: Path, tmp_path: Path, name: str) -> None:
    """All tiers and the whole calibration; docs/experts.md has the minutes."""
    size = Size(bits=1.8) if RECIPES[name].get("mix") else NO_SIZE
    made = quantize_model(glm, name, tmp_path / "out", Reporter(), size=size, device="cpu")
    require_carried(glm, made, tmp_path)
    card = (made / "README.md").read_text()
    assert "40 x 512 tokens of shipped ja (weight 3), shipped reasoning (weight 3)" in card


@pytest.mark.long
@pytest.mark.parametrize("name", GLM_RECIPES)
def test_so_does_a_checkpoint_of_some_hundred_megabytes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"hidden_size": 1024, "moe_intermediate_size": 256, "n_routed_experts": 64, "num_local_experts": 64}
    large = save_tiny_glm(tmp_path / "glm", **size)
    assert sum(file.stat().st_size for file in large.iterdir()) > 200e6
    test_the_recipes_of_the_releases_go_through_with_less_text(large, tmp_path, name, monkeypatch)
    require_carried(large, tmp_path / "out", tmp_path)


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
