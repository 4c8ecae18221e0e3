"""Tuning a small layer: what it reaches, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quantizers.layer import quantize_layer
from quantizers.modeling import LayerCall
from quantizers.recipe import Recipe
from quantizers.schemes import TIERS
from quantizers.tuning import METHODS, Tuning, TuningSteps

pytestmark = pytest.mark.slow  # tunes layers


class Small(nn.Module):
    """A norm, two Linears with one input, and one behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(128)
        self.gate, self.up, self.down = nn.Linear(128, 128), nn.Linear(128, 128), nn.Linear(128, 128)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        inner = self.norm(hidden)
        result: torch.Tensor = hidden + self.down(nn.functional.silu(self.gate(inner)) * self.up(inner))
        return result


def quantized(tier: str, tuning: Tuning | None) -> tuple[Small, dict[str, torch.Tensor], float]:
    """The quantized layer, what is stored of it, and how far its output is from the original's."""
    torch.manual_seed(0)
    layer = Small().requires_grad_(False)
    states = torch.randn(8, 16, 128)
    targets = layer(states)
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    schemes = dict.fromkeys(linears, TIERS[tier](dict.fromkeys(linears, 128), None, 0.01))
    call = LayerCall((), {}, "layers.0", 4)
    stored = quantize_layer(
        layer, linears, call, schemes, tuning, states, targets, None,
        device="cpu", batch=4, seed=0, report=lambda *_: None,
    )  # fmt: skip
    return layer, stored.tensors, float((layer(states) - targets).square().mean())


STEPS = TuningSteps(40, 4, scales=4e-3, norms=2e-3)
BETWEEN = TuningSteps(30, 4, scales=1e-3, norms=5e-4, weights=1e-3)


@pytest.mark.parametrize("tier", ["vq1", "vq2", "int4"])
def test_tuning_brings_the_output_nearer_and_each_stage_does(tier: str) -> None:
    plain = quantized(tier, None)[2]
    after = quantized(tier, Tuning(None, STEPS))[2]
    assert after < 0.97 * plain
    if tier != "int4":  # whose error is too small here for weights to make up for
        assert quantized(tier, Tuning(BETWEEN, STEPS))[2] < 0.98 * after


def test_what_is_stored_is_what_the_layer_computes_with() -> None:
    layer, stored, _ = quantized("vq2", Tuning(None, STEPS))
    assert stored.keys() == {
        "norm.weight", *(f"{name}.{part}" for name in ("gate", "up", "down") for part in ("codes", "scales", "bias"))
    }  # fmt: skip
    assert torch.equal(stored["norm.weight"], layer.norm.weight) and torch.equal(stored["up.bias"], layer.up.bias)
    assert not torch.equal(layer.norm.weight, torch.ones(128))


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = (quantized("vq2", Tuning(BETWEEN, STEPS))[1] for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_recipe_names_a_known_way() -> None:
    assert {"none", "fast", "blocks", "model"} == METHODS.keys() and Recipe(name="a").tune == "blocks"
    with pytest.raises(ValueError, match="'hard' is unknown: use one of none, fast, blocks, model"):
        Recipe(name="a", tune="hard")


def test_fewer_sequences_take_their_share_of_what_a_layer_is_called_with() -> None:
    mask, angles = torch.zeros(4, 1, 3, 3), torch.zeros(1, 3, 8)
    call = LayerCall((mask,), {"position_embeddings": (angles, angles), "flag": True}, "l", 4).narrowed(2)
    assert call.args[0].shape == (2, 1, 3, 3) and call.kwargs["position_embeddings"][0].shape == (1, 3, 8)
    assert call.kwargs["flag"] is True and call.sequences == 2


def test_long_sequences_are_tuned_in_batches_no_larger_than_those_that_ran() -> None:
    """A mask captured for two sequences fits no batch of four."""

    class Masked(Small):
        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(hidden * mask)

    torch.manual_seed(0)
    module = Masked().requires_grad_(False)
    states, mask = torch.randn(8, 4, 128), torch.ones(2, 4, 1)
    linears = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    schemes = dict.fromkeys(linears, TIERS["int4"](dict.fromkeys(linears, 128), None, 0.01))
    stored = quantize_layer(
        module, linears, LayerCall((mask,), {}, "layers.0", 2), schemes, Tuning(None, STEPS), states, states, None,
        device="cpu", batch=2, seed=0, report=lambda *_: None,
    )  # fmt: skip
    assert "norm.weight" in stored.tensors
