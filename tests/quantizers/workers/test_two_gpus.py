"""Two GPUs of one host write the bytes of one; skips where there are fewer.

On a machine that has them, without this project's environment:
    PYTHONPATH=.:kernels:tests/helpers pytest -c /dev/null --noconftest tests/quantizers/workers/test_two_gpus.py
"""

from __future__ import annotations

from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from tiny_llama import CALIBRATION, folder_bytes
from tiny_moe import save_tiny_moe

from quantizers import tall
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe
from quantizers.schemes import stacked


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@pytest.mark.parametrize("tier", ["int4", "vq2", "trellis2-l12"])
def test_two_gpus_write_the_bytes_of_one(tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 64 * 128)
    monkeypatch.setitem(stacked.STACK_BYTES, "cuda", 4 * 64 * 64)
    (tmp_path / "text.txt").write_text(CALIBRATION, encoding="utf-8")
    calibration = Calibration(samples=8, length=64, file=tmp_path / "text.txt")
    recipe = Recipe.model_validate({"name": "two", "tier": tier, "tune": "none", "calibration": calibration})
    model, found = save_tiny_moe("qwen3_moe", tmp_path / "model"), {}
    seen: set[int | None] = set()

    def progress(stage: str, done: int, total: int) -> None:
        seen.update(process.pid for process in active_children())

    before = {process.pid for process in active_children()}
    for device in ("cuda:0", "cuda"):
        assert not seen - before
        made = quantize(model, recipe, tmp_path / device[-2:], device=device, progress=progress)
        found[device] = folder_bytes(made)
    assert len(seen - before) == torch.cuda.device_count()
    assert found["cuda"] == found["cuda:0"]
