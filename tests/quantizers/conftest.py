"""Shared fixtures: a tiny model, quantized once per session."""

from pathlib import Path

import pytest
from tiny_llama import CALIBRATION, save_tiny_llama

from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in several shards."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", shards=True)


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """w4a16, not tuned, with a calibration text of a few hundred tokens."""
    file = tmp_path_factory.mktemp("text") / "calibration.txt"
    file.write_text(CALIBRATION, encoding="utf-8")
    return Recipe(name="w4a16", tune="none", calibration=Calibration(samples=24, length=64, file=file))


@pytest.fixture(scope="session")
def tiny_quantized(tiny_model: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama, quantized without interruption."""
    return quantize(tiny_model, tiny_recipe, tmp_path_factory.mktemp("quantized") / "out", device="cpu")
