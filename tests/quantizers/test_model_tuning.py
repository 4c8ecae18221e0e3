"""Tuning a whole model: it comes nearer to the original, and what is stored is what was tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantizers import pipeline
from quantizers.calibration import calibration_tokens, own_tokenizer
from quantizers.dequantize import dequantize
from quantizers.model_tuning import TUNED_FILE
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe
from quantizers.tuning import METHODS, Tuning, TuningSteps

pytestmark = pytest.mark.slow  # quantizes whole models


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    after = TuningSteps(4, 2, scales=4e-3, norms=2e-3)
    monkeypatch.setitem(METHODS, "blocks", Tuning(None, after))
    monkeypatch.setitem(METHODS, "model", Tuning(None, after, TuningSteps(30, 4, scales=1e-2, norms=1e-2)))


def recipe(tune: str, **settings: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "x", "tier": "vq2", "tune": tune, "calibration": {"samples": 8, "length": 32}} | settings
    )


def divergence(model: Path, quantized: Path, work: Path) -> float:
    """From the original, over the calibration."""
    from transformers import AutoModelForCausalLM

    ids = calibration_tokens(own_tokenizer(model), recipe("none").calibration)
    plain = dequantize(quantized, work / f"plain-{quantized.name}")
    with torch.no_grad():
        p, q = (
            AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)(ids).logits.log_softmax(-1)
            for f in (model, plain)
        )
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    "tiers", [{}, pytest.param({"re:.*down_proj": "int3", "re:.*o_proj": "fp8"}, marks=pytest.mark.long)]
)
def test_the_whole_comes_nearer(tiny_model: Path, tmp_path: Path, tiers: dict[str, str]) -> None:
    blocks = quantize(tiny_model, recipe("blocks", tiers=tiers), tmp_path / "blocks", device="cpu")
    whole = quantize(tiny_model, recipe("model", tiers=tiers), tmp_path / "whole", device="cpu")
    assert divergence(tiny_model, whole, tmp_path) < 0.95 * divergence(tiny_model, blocks, tmp_path)
    card = (whole / "README.md").read_text()
    assert "**the whole model towards the original's distribution over the calibration (30 steps)**" in card
    assert "whole model" not in (blocks / "README.md").read_text()
    assert not (tmp_path / "whole.partial").exists()


@pytest.mark.usefixtures("few_steps")
def test_it_goes_on_where_it_was_stopped(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantize(tiny_model, recipe("model"), tmp_path / "whole", device="cpu")

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "model" and done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        quantize(tiny_model, recipe("model"), out, device="cpu", progress=stop)
    written: list[Path] = []

    def breaks(job: Any, work: Any) -> None:
        written.append(work.folder / TUNED_FILE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_finish", breaks)
        with pytest.raises(KeyboardInterrupt):
            quantize(tiny_model, recipe("model"), out, device="cpu")
    assert written[0].exists()
    quantize(tiny_model, recipe("model"), out, device="cpu")
    assert {f.name: f.read_bytes() for f in out.iterdir()} == {f.name: f.read_bytes() for f in whole.iterdir()}


def test_it_does_not_go_with_folded_rotations() -> None:
    with pytest.raises(ValueError, match="goes with rotate: folded yet"):
        recipe("model", tier="int4", rotate="folded")
