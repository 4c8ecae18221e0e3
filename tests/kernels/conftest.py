"""Checkpoints of ours as the pipeline makes them, to be read and spoiled."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tiny_llama import save_tiny_llama

from quantizers.pipeline import quantize
from quantizers.recipe import Recipe
from quantizers.schemes import TIERS, trellis

TIER_OF = {
    r"re:.*0\.self_attn": "trellis2",
    r"re:.*0\.mlp\.(gate|up)": "int4-rotated",
    r"re:.*1\.self_attn": "fp8",
    r"re:.*1\.mlp\.(gate|up)": "int3",
}


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose Linears have five tiers, `vq2` the most frequent: inputs are 64, and 192 of down_proj."""
    folder = tmp_path_factory.mktemp("mixed")
    model = save_tiny_llama(folder / "model", shards=True, intermediate_size=192, num_hidden_layers=3)
    settings = {"name": "mixed", "tier": "vq2", "tiers": TIER_OF, "tune": "none"}
    recipe = Recipe.model_validate(settings | {"calibration": {"samples": 8, "length": 32}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, "trellis2", partial(trellis.for_model, "trellis2", 2, 8))  # few states: seconds
        return quantize(model, recipe, folder / "codes", device="cpu")
