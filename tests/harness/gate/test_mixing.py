"""From a model and a size to a mixed checkpoint, and the files that are kept beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_llama import CALIBRATION, save_tiny_llama

from harness.contract.errors import BadInput
from harness.gate import quantization
from harness.gate.mixing import Size, choose_recipe, measure_model
from harness.runs.progress import Reporter
from quantizers.mixed.damage import read_damage
from quantizers.recipe import load_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny", shards=True)


def recipe_of(folder: Path, settings: str) -> str:
    (folder / "text.txt").write_text(CALIBRATION)
    file = folder / "mine.yaml"
    file.write_text(f"name: mine\n{settings}\ncalibration: {{samples: 8, length: 32, file: text.txt}}\n")
    return str(file)


@pytest.mark.slow
def test_a_mixed_checkpoint_and_its_files(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe, out = recipe_of(tmp_path, "mix: [vq2, int4]\ntune: none"), tmp_path / "out"
    quantization.quantize_model(model, recipe, out, Reporter(), None, Size(bits=3.4))
    said = capfd.readouterr().err
    assert "bits a weight" in said and "Measured KL of the finished mix" in said
    beside = sorted(file.name for file in tmp_path.glob("out.*"))
    assert beside == ["out.damage.json", "out.recipe.correction.json", "out.recipe.yaml"]
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    chosen = load_recipe(tmp_path / "out.recipe.yaml")
    assert settings["quant_method"] == "quantgate" and set(settings["tiers"]) == {"vq2", "int4"}
    damage = read_damage(tmp_path / "out.damage.json")
    for group in damage.groups:
        for linear in group.linears:
            assert settings["modules"].get(linear, settings["default_tier"]) == chosen.tier_of(linear)
    assert damage.bits({group.name: chosen.tier_of(group.linears[0]) for group in damage.groups}) <= 3.4
    assert "| down_proj | " in (out / "README.md").read_text()

    with pytest.raises(BadInput, match="out exists already"):
        quantization.quantize_model(model, recipe, out, Reporter(), None, Size(bits=3.4))
    out.rename(tmp_path / "before")
    with pytest.raises(BadInput, match=r"correction.json is of 3.4 bits, or of other damages or weights: remove it"):
        quantization.quantize_model(model, recipe, out, Reporter(), None, Size(bits=3.3))
    text = (tmp_path / "out.recipe.yaml").read_text()
    (tmp_path / "out.recipe.yaml").write_text(text.replace(": vq2 ", ": int4 "))
    quantization.quantize_model(model, recipe, out, Reporter(), None, Size(bits=3.4))
    assert "out.recipe.yaml is used as it is" in capfd.readouterr().err.replace("\n", "")
    assert '"vq2"' not in (out / "config.json").read_text()

    (tmp_path / "out.recipe.correction.json").unlink()
    (tmp_path / "out").rename(tmp_path / "second")
    with pytest.raises(BadInput, match="exists, but not what it was chosen by"):
        quantization.quantize_model(model, recipe, out, Reporter(), None, Size(bits=3.4))


@pytest.mark.slow
def test_the_steps_one_by_one(model: Path, tmp_path: Path) -> None:
    recipe, damage = recipe_of(tmp_path, "tune: fast"), tmp_path / "files" / "damage.json"
    measure_model(model, recipe, ["vq2", "int4", "kept"], damage, 3, Reporter(), None)
    assert read_damage(damage).kinds == {"text": 3}
    out = tmp_path / "chosen.yaml"
    said = choose_recipe(damage, Size(bits=4), ["text=2"], out, None, Reporter(), None)
    assert said.startswith(("3.", "4.0000 bits")) and "The KL of the whole was not measured" in out.read_text()
    assert load_recipe(out).tune == "fast" and load_recipe(out).calibration.file == tmp_path / "text.txt"
    with pytest.raises(BadInput, match=r"chosen.yaml exists already: remove it"):
        choose_recipe(damage, Size(bits=4), [], out, None, Reporter(), None)
    said = choose_recipe(damage, Size(nbytes="110KB"), [], tmp_path / "b.yaml", model, Reporter(), None)
    assert "Measured KL of the finished mix" in said and (tmp_path / "b.correction.json").is_file()
    measure_model(model, recipe, ["vq2", "int4", "kept"], damage, 3, Reporter(), None)  # which is there already


@pytest.mark.parametrize(
    ("settings", "size", "says"),
    [
        ("mix: [vq2, int4]", Size(), "give the size of a mix either in bits a weight or in bytes"),
        ("mix: [vq2, int4]", Size(2, "1GB"), "give the size of a mix either"),
        ("mix: [vq2, int4]", Size(nbytes="x"), "'x' is no size"),
        (
            "tier: vq2",
            Size(bits=2),
            "recipe mine leaves no tier open: --bits and --bytes are for recipes such as mixed",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_work(
    model: Path, tmp_path: Path, settings: str, size: Size, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        quantization.quantize_model(model, recipe_of(tmp_path, settings), tmp_path / "out", Reporter(), None, size)
    assert not list(tmp_path.glob("out*"))


def test_bad_arguments_are_named(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    with pytest.raises(BadInput, match=r"--tiers: .*'vq9' is unknown: use one of"):
        measure_model(model, "mixed", ["vq9"], tmp_path / "d.json", 8, Reporter(), None)
    with pytest.raises(BadInput, match=r"--tiers: .*name different tiers, one of them not kept"):
        measure_model(model, "mixed", ["kept"], tmp_path / "d.json", 8, Reporter(), None)
    with pytest.raises(BadInput, match="--weight ja: write a kind of text and a number"):
        choose_recipe(tmp_path / "d.json", Size(2), ["ja"], out, None, Reporter(), None)
    with pytest.raises(BadInput, match=r"d.json is no file: quantgate measure-tiers makes"):
        choose_recipe(tmp_path / "d.json", Size(2), [], out, None, Reporter(), None)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write .*file/d.json \(.*\): choose another place"):
        measure_model(model, "mixed", None, tmp_path / "file" / "d.json", 8, Reporter(), None)
    with pytest.raises(BadInput, match=r"recipes are files that end in .yaml"):
        choose_recipe(tmp_path / "d.json", Size(2), [], tmp_path / "x.txt", None, Reporter(), None)
