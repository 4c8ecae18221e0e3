"""Bytes by part: those that the pipeline really writes, and GLM-5's at 1.71 and 4 bits."""

from pathlib import Path

import pytest
from model_configs import GLM_5, small_config, write_config
from tiny_llama import save_tiny_llama

from quantizers.checkpoint import open_checkpoint
from quantizers.errors import QuantizeError
from quantizers.mixed.choice import make_target
from quantizers.mixed.groups import groups_of
from quantizers.modeling import build
from quantizers.plan import make_plan
from quantizers.recipe import Recipe, load_recipe
from quantizers.sizing.parts import ATTENTION, DRAFT, EXPERTS, ModelParts, model_parts
from quantizers.sizing.tiers import OPEN, sizes_by_mean, sizes_by_recipe

GIB = 1024**3


@pytest.fixture(scope="module")
def glm_5(tmp_path_factory: pytest.TempPathFactory) -> ModelParts:
    return model_parts(write_config(tmp_path_factory.mktemp("configs") / "glm", **GLM_5))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> ModelParts:
    return model_parts(small_config(tmp_path_factory.mktemp("configs") / "moe", "qwen3_moe"))


RECIPES = [
    Recipe(name="r"),
    Recipe(name="r", tier="vq2", tiers={r"re:.*\.down_proj$": "int8"}),
    Recipe(name="r", tier="trellis3", ignore=("lm_head", r"re:.*layers\.0\..*")),
    Recipe(name="r", tier="fp8"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.tier)
def test_a_recipe_has_the_bytes_that_the_pipeline_writes(tiny_model: Path, recipe: Recipe) -> None:
    checkpoint = open_checkpoint(tiny_model)
    written = make_plan(checkpoint, build(checkpoint), recipe).output_bytes()
    assert sizes_by_recipe(model_parts(tiny_model), recipe, None).nbytes() == written


def test_biases_stay_as_they_are(tmp_path: Path) -> None:
    qwen2 = model_parts(small_config(tmp_path / "qwen2", "qwen2"))
    llama = model_parts(small_config(tmp_path / "llama", "llama", tie_word_embeddings=False))
    biases = 2 * 2 * (64 + 32 + 32)
    asked = make_target(2, None)
    assert sizes_by_mean(qwen2, asked, None).nbytes() == sizes_by_mean(llama, asked, None).nbytes() + biases
    by_recipe = [sizes_by_recipe(model, RECIPES[0], None).nbytes() for model in (qwen2, llama)]
    assert by_recipe[0] == by_recipe[1] + biases


def test_a_mix_has_the_budget_that_the_choice_keeps_to(tiny_model: Path) -> None:
    checkpoint = open_checkpoint(tiny_model)
    recipe = Recipe(name="r", mix=("vq1", "vq2", "kept"), tiers={r"re:.*\.o_proj$": "int8"})
    groups, others = groups_of(checkpoint, build(checkpoint), recipe)
    sizes = sizes_by_recipe(model_parts(tiny_model), recipe, make_target(4.0, None))
    chosen = [group for group in groups if len(group.nbytes) > 1]
    settled = sum(group.nbytes["int8"] for group in groups if group not in chosen)
    assert 0 < len(chosen) < len(groups)
    assert sizes.nbytes() == pytest.approx(others + settled + 4 * sum(group.weights for group in chosen) / 8, abs=2)
    least = others + sum(min(group.nbytes.values()) for group in groups)
    for size, end in ((least - 100, "below what the lowest tiers \\(vq1\\)"), (2 * others + 10**6, "above")):
        with pytest.raises(QuantizeError, match=end):
            sizes_by_recipe(model_parts(tiny_model), recipe, make_target(None, str(size)))
    assert sizes_by_recipe(model_parts(tiny_model), recipe, make_target(None, str(least))).nbytes() == least


def test_glm_5_at_1_71_bits(glm_5: ModelParts) -> None:
    sizes = sizes_by_mean(glm_5, make_target(1.71, None), None)
    by_part = {part.part: part for part in sizes.parts}
    assert by_part[EXPERTS].nbytes / GIB == pytest.approx(144, abs=0.5) and by_part[EXPERTS].bits == pytest.approx(1.71)
    assert by_part[ATTENTION].bits == by_part[DRAFT].bits == 16
    rest = sizes.nbytes(draft=False) - by_part[EXPERTS].nbytes
    assert rest / GIB == pytest.approx(35.6, abs=0.1)
    at_8 = sizes_by_mean(glm_5, make_target(1.71, None), 8)
    assert {part.part: part.bits for part in at_8.parts}[ATTENTION] == pytest.approx(8.125, abs=1e-3)
    assert at_8.tiers.keys() == {OPEN, "int8"}


def test_glm_5_by_recipes(glm_5: ModelParts) -> None:
    for name, gib in (("w4a16", 348), ("vq-2bit", 179)):
        sizes = sizes_by_recipe(glm_5, load_recipe(name), None)
        by_part = {part.part: part for part in sizes.parts}
        assert by_part[EXPERTS].nbytes / GIB == pytest.approx(gib, abs=0.7)


def test_the_largest_layer_and_its_hessians_are_those_of_the_facts(glm_5: ModelParts) -> None:
    sizes = sizes_by_mean(glm_5, make_target(1.71, None), None)
    assert 2 * sizes.largest_layer / GIB == pytest.approx(18, abs=0.6)
    assert 4 * sizes.hessians / GIB == pytest.approx(4 + 0.14, abs=0.01)


def test_bytes_are_the_whole_checkpoint(glm_5: ModelParts) -> None:
    sizes = sizes_by_mean(glm_5, make_target(None, "200GB"), 8)
    assert sizes.nbytes() == pytest.approx(200e9, abs=200) and 1.7 < sizes.bits < 1.8


def test_experts_alone_have_the_mean_where_there_are_some(moe: ModelParts, tmp_path: Path) -> None:
    experts = moe.parameters(EXPERTS)
    assert sizes_by_mean(moe, make_target(3, None), None).tiers == {OPEN: experts}
    dense = model_parts(small_config(tmp_path / "dense", "llama"))
    linears = sum(weight.parameters for weight in dense.weights if weight.linear)
    assert sizes_by_mean(dense, make_target(3, None), None).tiers == {OPEN: linears}


def test_a_recipe_may_name_one_expert(moe: ModelParts) -> None:
    recipe = Recipe(name="r", tier="vq2", tiers={"model.layers.1.mlp.experts.3.down_proj": "int8"})
    assert sizes_by_recipe(moe, recipe, None).tiers["int8"] == 64 * 32


def test_what_contradicts_the_model_is_one_line(moe: ModelParts, tmp_path: Path) -> None:
    dense = model_parts(small_config(tmp_path / "dense", "llama"))
    odd = model_parts(save_tiny_llama(tmp_path / "odd", intermediate_size=100))
    with pytest.raises(QuantizeError, match="no routed experts"):
        sizes_by_mean(dense, make_target(3, None), 8)
    with pytest.raises(QuantizeError, match="16 or 8 bits"):
        sizes_by_mean(moe, make_target(3, None), 4)
    with pytest.raises(QuantizeError, match=r"0\.5 bits is below what the lowest tiers \(vq1\)"):
        sizes_by_mean(dense, make_target(0.5, None), None)
    with pytest.raises(QuantizeError, match="12 bits is above"):
        sizes_by_mean(dense, make_target(12, None), None)
    with pytest.raises(QuantizeError, match=r"layers\.0\.mlp\.down_proj"):
        sizes_by_recipe(odd, load_recipe("vq-2bit"), None)
    with pytest.raises(QuantizeError, match=r"layers\.0\.mlp\.down_proj is \[64, 100\], which none of vq1, vq2 takes"):
        sizes_by_recipe(odd, Recipe(name="r", mix=("vq1", "vq2")), make_target(2, None))
    with pytest.raises(QuantizeError, match="stores 16 at a time"):
        sizes_by_recipe(odd, load_recipe("trellis-2bit").model_copy(update={"ignore": (r"re:.*\.down_proj$",)}), None)
    with pytest.raises(QuantizeError, match="no Linear in the decoder layers is left"):
        sizes_by_recipe(dense, Recipe(name="r", ignore=("re:.*",)), None)
    with pytest.raises(QuantizeError, match="leaves the tiers open"):
        sizes_by_recipe(dense, load_recipe("mixed"), None)
    settled = Recipe(name="r", mix=("vq1", "vq2"), tiers={"re:.*": "int8"})
    for target in (make_target(2, None), make_target(None, "1MB")):
        with pytest.raises(QuantizeError, match=r"has a mix, but its tiers and ignore settle every Linear of Llama"):
            sizes_by_recipe(dense, settled, target)
    for tiers in ({"re:.*\\.shared_experts\\.": "int8"}, {"model.layers.7.mlp.up_proj": "int8"}):
        with pytest.raises(QuantizeError, match=r"recipe r: tiers names .*, which fits no Linear of the"):
            sizes_by_recipe(dense, Recipe(name="r", tiers=tiers), None)
    with pytest.raises(QuantizeError, match="leaves no tier open"):
        sizes_by_recipe(dense, load_recipe("w4a16"), make_target(2, None))
