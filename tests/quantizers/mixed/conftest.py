"""The damages of a tiny model, measured once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantizers.mixed.damage import Damage
from quantizers.mixed.measure import measure_tiers
from quantizers.recipe import Calibration, Recipe, Source


@pytest.fixture(scope="session")
def mixed_recipe(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Three tiers and 16 bits to choose from, calibrated on two kinds of text."""
    text = tiny_recipe.calibration.file
    assert text is not None
    other = tmp_path_factory.mktemp("other") / "numbers.txt"
    other.write_text("\n%%\n".join(f"{i} times {i} is {i * i}, and {i + 1} more." for i in range(200)), "utf-8")
    sources = (Source(file=text, language="en"), Source(file=other))
    return Recipe(
        name="mixed",
        mix=("vq1", "vq2", "int4", "kept"),
        tune="none",
        calibration=Calibration(samples=12, length=32, sources=sources),
    )


@pytest.fixture(scope="session")
def damage_file(tiny_model: Path, mixed_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """damage.json of the tiny Llama."""
    file = tmp_path_factory.mktemp("damage") / "damage.json"
    measure_tiers(tiny_model, mixed_recipe, file, sequences=5, device="cpu")
    return file


@pytest.fixture(scope="session")
def damage(damage_file: Path) -> Damage:
    """What is in it."""
    from quantizers.mixed.damage import read_damage

    return read_damage(damage_file)
