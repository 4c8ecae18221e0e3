"""Recipes from names and files."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from quantizers.card import calibration_words
from quantizers.errors import QuantizeError
from quantizers.recipe import Calibration, Recipe, Source, load_recipe
from quantizers.recipes import RECIPES


@pytest.mark.parametrize(
    ("name", "tier", "tune", "two_sided"),
    [
        ("w4a16", "int4", "blocks", False),
        ("w4a16-fast", "int4", "fast", False),
        ("w4a16-folded", "int4", "blocks", False),
        ("mixed", "int4", "blocks", True),
        ("trellis-2bit", "trellis2", "blocks", False),
        ("vq-2bit", "vq2", "blocks", True),
        ("fp8-block", "fp8", "blocks", False),  # data-free: nothing of it is tuned
    ],
)
def test_the_built_in_recipes(name: str, tier: str, tune: str, two_sided: bool) -> None:
    recipe = load_recipe(name)
    assert (recipe.name, recipe.tier, recipe.tune, recipe.two_sided) == (name, tier, tune, two_sided)
    assert recipe.group_size is None
    with pytest.raises(ValidationError):
        setattr(recipe, "name", "other")  # noqa: B010 - mypy knows already that it is frozen


@pytest.mark.parametrize(
    ("module", "ignored"),
    [
        ("lm_head", True),
        ("model.layers.3.mlp.gate", True),
        ("model.layers.3.mlp.router.classifier", True),
        ("model.layers.3.mlp.shared_expert_gate", True),
        ("mtp.layers.0.mlp.up_proj", True),
        ("model.layers.3.mlp.gate_proj", False),
        ("model.layers.3.self_attn.q_proj", False),
        ("model.lm_head_like", False),
    ],
)
def test_default_ignore(module: str, ignored: bool) -> None:
    assert load_recipe("w4a16").ignores(module) is ignored


def test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ngroup_size: 32\nignore: [lm_head, 're:.*down_proj']\ncalibration: {file: my.txt}\n")
    recipe = load_recipe(file)
    assert recipe.group_size == 32 and recipe.calibration.file == tmp_path / "my.txt"
    assert recipe.ignores("model.layers.0.mlp.down_proj")


def test_sources(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    source = {"dataset": "a/b", "revision": "0" * 40, "language": "ja", "weight": 2}
    file.write_text(f"name: mine\ncalibration: {{sources: [en, my.jsonl, {source}, {{traces: 8, weight: 0.5}}]}}\n")
    settings = load_recipe(file).calibration
    assert settings.sources == (
        Source(shipped="en"),
        Source(file=tmp_path / "my.jsonl"),
        Source.model_validate(source),
        Source(traces=8, weight=0.5),
    )
    assert settings.files == [tmp_path / "my.jsonl"]
    assert calibration_words(settings) == (
        "shipped en (weight 1), my.jsonl (weight 1), a/b (train, text) at 000000000000 [ja] (weight 2), "
        "8 traces of the model itself (weight 0.5)"
    )
    assert calibration_words(Calibration(file=Path("x/my.txt"))) == "my.txt"


def test_damping_is_the_tiers_own_unless_named() -> None:
    assert [load_recipe("w4a16").damping_of(tier) for tier in ("int4", "vq2")] == [0.05, 0.01]
    assert Recipe(name="a", damping=0.1).damping_of("vq2") == 0.1


def test_the_digest_covers_every_setting_but_not_the_path_of_the_text(tmp_path: Path) -> None:
    base = Recipe(name="a")
    changes: list[dict[str, object]] = [
        {"name": "b"},
        {"damping": 0.02},
        {"group_size": 64},
        {"tune": "none"},
        {"ignore": []},
        {"calibration": {"seed": 1}},
        {"calibration": {"sources": ["en"]}},
        {"calibration": {"sources": [{"traces": 4}]}},
    ]
    assert base.digest() == Recipe.model_validate({"name": "a", "calibration": {"file": "/x/y.txt"}}).digest()
    mine, other = (
        Recipe.model_validate({"name": "a", "calibration": {"sources": [f"/{folder}/y.txt"]}}) for folder in "xz"
    )
    assert mine.digest() == other.digest()
    for changed in changes:
        assert base.digest() != Recipe.model_validate({"name": "a"} | changed).digest(), changed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\ncolour: red\n", "colour: Extra inputs"),
        ("name: x\ntier: int5\n", "tier: .*unknown: use one of int2"),
        ("name: x\nmix: [vq2, int5]\n", "mix: .*unknown: use one of int2"),
        ("name: x\nmix: [vq2, vq2]\n", "mix: .*name different tiers"),
        ("name: x\ngroup_size: many\n", "group_size:"),
        ("name: x\ndamping: 0\n", "damping:"),
        ("name: x\ndamping: .nan\n", "damping:"),
        ("name: x\ncalibration: {samples: 0}\n", "calibration.samples:"),
        ("name: x\ncalibration: {file: a.txt, sources: [en]}\n", "calibration: .*make the file one of the sources"),
        ("name: x\ncalibration: {sources: [klingon]}\n", "calibration.sources.0: .*'klingon' is unknown: use one of"),
        ("name: x\ncalibration: {sources: [{weight: 2}]}\n", "sources.0: .*names no text: give one of"),
        ("name: x\ncalibration: {sources: [{shipped: en, traces: 2}]}\n", "names shipped and traces: give one"),
        ("name: x\ncalibration: {sources: [{dataset: a/b}]}\n", "a/b needs its revision, a commit"),
        ("name: x\ncalibration: {sources: [{shipped: en, split: test}]}\n", "split is of a dataset, and shipped is"),
        ("name: x\ncalibration: {sources: [{shipped: en, weight: 0}]}\n", "sources.0.weight:"),
        ("name: x\ncalibration: {sources: [{shipped: en, weight: .inf}]}\n", "sources.0.weight:"),
        ("name: x\ncalibration: {sources: en}\n", "calibration.sources:"),
        ("name: x\nignore: ['re:(']\n", "ignore: .*not a regular expression"),
        ("name: ../x\n", "name:"),
        ("[]", "must be a YAML mapping"),
        ("name: x\nrotate: online", "rotate: "),
        ("name: x\nrotate: folded\ntwo_sided: true", "two_sided does not go with rotate: folded"),
        ("{", "cannot be read"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_bad_yaml(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(QuantizeError, match=message) as caught:
        load_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_known_ones() -> None:
    known = ", ".join(sorted(RECIPES)) + ", or a .yaml file"
    with pytest.raises(QuantizeError, match=f"unknown recipe 'w4a17': use one of {known}"):
        load_recipe("w4a17")
    with pytest.raises(QuantizeError, match="cannot be read"):
        load_recipe("/nowhere/x.yaml")
