"""What a quantized model is said to be of: never a guess that some earlier step left in the config."""

import json
from pathlib import Path

import pytest
import yaml

from quantizers.card import model_card, original_name
from quantizers.checkpoint import open_checkpoint
from quantizers.modeling import build
from quantizers.plan import make_plan
from quantizers.recipe import Recipe


def model(folder: Path, card: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_name_or_path": "owner/stale"}))
    if card:
        (folder / "README.md").write_text(f"---\n{card}\n---\n")
    return folder


@pytest.mark.parametrize(
    ("path", "card", "name"),
    [
        ("hub/models--owner--name/snapshots/abc", "base_model: owner/older", "owner/name"),
        ("copies/name", "base_model: owner/name", "owner/name"),
        ("copies/name", "base_model: [owner/name]", "owner/name"),
        (".cache/quantgate/models/name", "base_model: owner/name", "owner/name"),
        (".cache/quantgate/models/name", "", None),
        (".cache/owner--name", "base_model: owner/name", "owner/name"),
        ("copies/Na-Me", "base_model: Owner/na.me", "Owner/na.me"),
        ("copies/name", "base_model: owner/name\nmodel-index: [{name: x}]", "owner/name"),
        # A fine-tune, by its relation or by its name: gated against what it was made of, it would fail or mislead.
        ("copies/name", "base_model: owner/name\nbase_model_relation: finetune", "FOLDER"),
        ("copies/mine", "base_model: owner/name", "FOLDER"),
        ("copies/name", "base_model: [owner/name, owner/other]", "FOLDER"),
        ("copies/name", "base_model: ../name", "FOLDER"),
        ("copies/name", "", "FOLDER"),
    ],
)
def test_the_original_is_what_its_place_or_its_card_says(
    tmp_path: Path, path: str, card: str, name: str | None
) -> None:
    folder = model(tmp_path / path, card)
    assert original_name(folder) == (str(folder) if name == "FOLDER" else name)


@pytest.mark.parametrize("variable", ["QUANTGATE_CACHE", "HF_HOME"])
def test_a_path_in_a_cache_is_nobodys_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    folder = model(tmp_path / "kept" / "models" / "name")
    assert original_name(folder) == str(folder)
    monkeypatch.setenv(variable, str(tmp_path / "kept"))
    assert original_name(folder) is None
    (folder / "README.md").write_text("---\nbase_model: owner/name\n---\n")
    assert original_name(folder) == "owner/name"


def test_a_folder_is_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert original_name(Path("owner/name")) == str(tmp_path / "owner" / "name")


def test_a_card_without_an_original_says_nothing_of_a_path(
    tmp_path: Path, tiny_model: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(tiny_model)
    plan = make_plan(checkpoint, build(checkpoint), tiny_recipe)
    card = model_card(model(tmp_path / ".cache" / "name"), tiny_recipe, plan, {})
    front = yaml.safe_load(card.split("---\n")[1])
    assert "base_model" not in front and front["base_model_relation"] == "quantized"
    assert "# name, w4a16" in card and str(tmp_path) not in card
