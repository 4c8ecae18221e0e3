"""Of a weight in the basis of its scheme there is one copy, and only while it is encoded."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_llama import CALIBRATION, save_tiny_llama

from quantizers import tall
from quantizers.each import quantize_each
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe
from quantizers.schemes import TIERS, Parts, Scheme, stacked
from quantizers.tall import quantize_tall
from quantizers.workers.tasks import Task

Tensors = list[weakref.ref[torch.Tensor]]


def alive(tensors: Tensors) -> int:
    return sum(tensor() is not None for tensor in tensors)


def test_a_task_is_gone_when_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 128 * 32)
    monkeypatch.setitem(stacked.STACK_BYTES, "cpu", 2 * 4 * 16 * 128)
    seen: Tensors = []
    run = Task.run

    def watched(self: Task, tick: Callable[[], None]) -> Parts:
        assert not alive(seen)
        seen.append(weakref.ref(self.weights))
        return run(self, tick)

    monkeypatch.setattr(Task, "run", watched)
    generator, scheme = torch.Generator().manual_seed(0), TIERS["int4-rotated"]({"a": 128}, None, 0.01)
    weights = [torch.randn(16, 128, generator=generator) for _ in range(6)]
    assert len(list(quantize_tall(scheme, weights, torch.eye(128), lambda: None))) == 6 and len(seen) == 3
    assert len(list(quantize_each(scheme, weights, [torch.eye(128)] * 6, lambda: None))) == 6 and len(seen) == 6


@pytest.mark.slow
def test_weights_that_wait_are_held_once_unless_they_are_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(CALIBRATION, encoding="utf-8")
    calibration = Calibration(samples=4, length=32, file=tmp_path / "text.txt")
    model, turn = save_tiny_llama(tmp_path / "model", num_hidden_layers=1), Scheme.turn
    seen: Tensors = []
    most: list[int] = []

    def watched(self: Scheme, values: torch.Tensor) -> torch.Tensor:
        found = turn(self, values)
        seen.append(weakref.ref(found))
        most.append(alive(seen))
        return found

    monkeypatch.setattr(Scheme, "turn", watched)
    held = {}
    for tune in ("none", "blocks"):
        recipe = Recipe.model_validate(
            {"name": "held", "tier": "int4-rotated", "tune": tune, "calibration": calibration}
        )
        quantize(model, recipe, tmp_path / tune, device="cpu")
        held[tune] = max(most)
        seen.clear()
        most.clear()
    assert held["none"] <= 3 and held["blocks"] >= 7, held  # seven Linears; Hessians are turned too
