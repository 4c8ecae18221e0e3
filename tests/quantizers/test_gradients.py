"""The pass back, layer by layer, against one backward call through the whole model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantizers.checkpoint import open_checkpoint
from quantizers.gradients import BackwardPass, backward_pass, output_sides, token_weights
from quantizers.modeling import Architecture, build, capture_calls, empty, fill
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe

TOKENS = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(3))


def passed(model: Path, folder: Path, report: Any = lambda *_: None) -> tuple[Architecture, BackwardPass, list[Any]]:
    checkpoint = open_checkpoint(model)
    architecture = build(checkpoint)
    whole: Any = architecture.model
    fill(whole, whole.base_model, "model", checkpoint, device="cpu", dtype=torch.float32, skip=architecture.apart)
    first, calls = capture_calls(architecture, TOKENS[:2])
    hidden = torch.cat([first, capture_calls(architecture, TOKENS[2:])[0]])
    for child in whole.base_model.children():
        empty(child)
    done = backward_pass(architecture, checkpoint, TOKENS, hidden, calls, folder, device="cpu", batch=2, report=report)
    return architecture, done, calls


@pytest.fixture(scope="module")
def whole_model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def test_it_is_the_gradient_of_the_whole_model(tiny_model: Path, tmp_path: Path, whole_model: Any) -> None:
    architecture, done, calls = passed(tiny_model, tmp_path)
    outputs: list[torch.Tensor] = []
    linear_gradients: dict[str, torch.Tensor] = {}
    entering: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        entering.append(inputs[0].detach())
        output = output[0] if isinstance(output, tuple) else output
        output.retain_grad()
        outputs.append(output)

    for layer in whole_model.model.layers:
        layer.register_forward_hook(keep)
    up = whole_model.model.layers[1].mlp.up_proj

    def arrives(_: nn.Module, __: object, output: torch.Tensor) -> None:
        output.register_hook(lambda g: linear_gradients.setdefault("up", g.detach()))  # type: ignore[no-untyped-call]

    up.register_forward_hook(arrives)
    logits = whole_model(input_ids=TOKENS).logits
    generator = torch.Generator().manual_seed(11)
    labels = [torch.multinomial(row.detach().softmax(-1), 1, generator=generator)[:, 0] for row in logits]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), torch.cat(labels), reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    for index, output in enumerate(outputs):
        assert output.grad is not None
        error = (done.load(index) - output.grad).norm() / output.grad.norm()
        assert error < 0.01, "bf16 on the disk"
    linears: dict[str, Any] = {"mlp.up_proj": architecture.layers[1].get_submodule("mlp.up_proj")}
    fill(
        architecture.model, architecture.layers[1], "model.layers.1", open_checkpoint(tiny_model),
        device="cpu", dtype=torch.float32,
    )  # fmt: skip
    sides = output_sides(
        architecture.layers[1],
        linears,
        calls[1],
        entering[1],
        done.load(1),
        device="cpu",
        batch=2,
    )
    rows = linear_gradients["up"].flatten(0, 1)
    side = sides["mlp.up_proj"]
    assert (side.hessian - rows.t() @ rows).norm() < 0.02 * (rows.t() @ rows).norm()
    assert torch.allclose(side.tokens, rows.square().sum(1), rtol=0.05, atol=1e-6)
    weights = token_weights([side])
    assert float(weights.min()) >= 0.5 and float(weights.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_an_interrupted_pass_goes_on_where_it_was(tiny_model: Path, tmp_path: Path) -> None:
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    _, whole, _ = passed(tiny_model, folder("whole"))
    expected = [whole.gradient(index).read_bytes() for index in range(2)]
    for stop in range(5):
        calls: list[int] = []

        def ends(stage: str, done: int, total: int, stop: int = stop, calls: list[int] = calls) -> None:
            calls.append(done)
            if len(calls) > stop:
                raise KeyboardInterrupt

        broken = folder(f"broken{stop}")
        with pytest.raises(KeyboardInterrupt) if stop < 3 else nullcontext():
            passed(tiny_model, broken, ends)
        _, again, _ = passed(tiny_model, broken)
        assert [again.gradient(index).read_bytes() for index in range(2)] == expected
        assert not list(broken.glob("states-*"))


@pytest.mark.slow
def test_a_model_is_quantized_by_both_sides(tiny_model: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {"name": "both", "tier": "vq2", "tune": "none", "two_sided": True, "calibration": {"samples": 8, "length": 32}}
    )
    out = quantize(tiny_model, recipe, tmp_path / "out", device="cpu")
    once = quantize(tiny_model, recipe.model_copy(update={"two_sided": False}), tmp_path / "once", device="cpu")
    shard = "model-00001-of-00004.safetensors"
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted(p.name for p in once.iterdir())
    assert any((out / n).read_bytes() != (once / n).read_bytes() for n in names if n.startswith("model-0")), shard
