"""The check of int4 experts in vLLM, with transformers in vLLM's place."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch

from benchmarks import served_experts
from benchmarks.served_experts import MODELS, check, divergence
from quantizers.checkpoint import open_checkpoint

SMALL: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 128, "moe_intermediate_size": 128, "num_hidden_layers": 1,
    "num_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip


ONE_AT_A_TIME = Lock()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_experts, "SIZE", served_experts.SIZE | SMALL)
    # Settings of this process: the models are made in it.
    monkeypatch.setattr(served_experts, "in_own_process", lambda make, *given: make(*given))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    file = tmp_path / "fast.yaml"
    file.write_text("name: int4\ntune: none\n")
    return str(file)


def answers(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    # Two loads at once leave transformers without tied weights: each puts back what the other had put in its place.
    with ONE_AT_A_TIME:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(64).view(2, 32)).logits.log_softmax(-1)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernels", ["sound", *(pytest.param(name, marks=pytest.mark.long) for name in ("broken", "refused"))]
)
def test_int4_is_held_against_its_own_bf16(kernels: str, tmp_path: Path, recipe: str) -> None:
    original, int4, plain = (tmp_path / name for name in MODELS)

    def ask(folder: Path) -> torch.Tensor:
        if folder == int4 and kernels == "refused":
            raise RuntimeError("No backend\nfor experts")
        return answers(original if folder == int4 and kernels == "broken" else plain if folder == int4 else folder)

    found = check(tmp_path, recipe, "cpu", ask)
    assert found["4 bits cost"]["mean"] > 1e-3 and found["ok"] is (kernels == "sound")
    if kernels == "refused":
        assert found["refused"] == "No backend for experts"
    else:
        assert (found["kernels cost"]["mean"] == 0) is (kernels == "sound")
    stored = open_checkpoint(int4).tensors
    assert "model.layers.0.mlp.experts.3.down_proj.weight_packed" in stored


def test_divergence_is_over_the_whole_distribution() -> None:
    p, q = (torch.tensor([[values]]).log() for values in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    found = divergence(p, q)
    assert found["mean"] == pytest.approx(0.25 * torch.log(torch.tensor(2.0)).item()) and found["flips"] == 1
