"""Experts calibrated on the tokens that the router gives them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_moe import save_tiny_moe
from torch import nn

from quantizers import routed as routed_module
from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.errors import QuantizeError
from quantizers.experts import Expert, Experts, Names
from quantizers.pipeline import USAGE_FILE, quantize
from quantizers.recipe import Recipe
from quantizers.routed import routed_hessians
from quantizers.writing import tensor_entry, write_shard

WIDTH, INNER, COUNT = 8, 6, 4


class Block(nn.Module):
    """Four experts, two a token; the last of them gets none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.router = nn.Linear(WIDTH, COUNT - 1, bias=False)
        self.experts = Experts(Expert(Names(), WIDTH, INNER, nn.functional.silu) for _ in range(COUNT))

    def routes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        top = self.router(x).softmax(-1).topk(2)
        return top.indices, top.values / top.values.sum(-1, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index, weights = self.routes(x)
        out: torch.Tensor = self.experts(x, index, weights)
        return out


@torch.no_grad()
def test_hessians_are_those_of_own_tokens_shrunk_toward_all() -> None:
    """Oracle: the formula, token by token, in float64."""
    block = Block()
    batches = [torch.randn(30, WIDTH) for _ in range(3)]
    linears: dict[str, Any] = {
        f"experts.{e}.{name}": block.experts[e].get_submodule(name)
        for e in range(COUNT)
        for name in ("gate_proj", "down_proj")
    }
    x = torch.cat(batches).double()
    index, weights = block.routes(torch.cat(batches))

    def entering(name: str, row: torch.Tensor) -> torch.Tensor:
        _, number, own = name.split(".")
        expert: Any = block.experts[int(number)].double()
        return row if own == "gate_proj" else nn.functional.silu(expert.gate_proj(row)) * expert.up_proj(row)

    pooled, expected = {}, {}
    for name in linears:
        all_rows = entering(name, x)
        size = all_rows.shape[1]
        total, first, second = torch.zeros(size, size).double(), 0.0, 0.0
        for token in range(len(x)):
            for place in range(2):
                if int(index[token, place]) == int(name.split(".")[1]):
                    square = float(weights[token, place]) ** 2
                    total += square * 2 * torch.outer(all_rows[token], all_rows[token])
                    first, second = first + square, second + square**2
        everything = 2 * all_rows.T @ all_rows / len(x)
        pooled[name] = everything.float()
        count = first**2 / second if second else 0.0
        mean = total / first if second else everything
        expected[name] = (count * mean + size / 10 * everything) / (count + size / 10)
    block.float()
    found = routed_hessians(block, linears, pooled, [partial(block, batch) for batch in batches])
    assert found.keys() == expected.keys()
    for name, hessian in found.items():
        torch.testing.assert_close(hessian.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(found["experts.3.gate_proj"], pooled["experts.3.gate_proj"])
    assert not any(linear._forward_pre_hooks for linear in linears.values()) and block.experts.shares is None
    with pytest.raises(QuantizeError, match=r"inputs of experts\.\d\.\w+ overflow"):
        routed_hessians(block, linears, pooled, [partial(block, torch.full((2, WIDTH), 1e30))])


def codes(folder: Path) -> dict[str, torch.Tensor]:
    """Packed codes by the name of the Linear inside the only layer."""
    suffix = ".weight_packed"
    stored = open_checkpoint(folder).tensors
    names = [name for name in stored if name.endswith(suffix)]
    return {n.removeprefix("model.layers.0.").removesuffix(suffix): read_tensor(stored[n]) for n in names}


@pytest.mark.slow
def test_an_expert_without_tokens_is_named_and_quantized_on_all_and_what_is_shared_stays(
    tmp_path: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_moe("qwen2_moe", tmp_path / "model", num_hidden_layers=1)
    weights = {info.name: read_tensor(info) for info in open_checkpoint(folder).tensors.values()}
    router = weights["model.layers.0.mlp.gate.weight"]
    router[1], router[2], router[3] = router[0] * 1.001, router[0] * 0.999, -router[0]  # never the third and the fourth
    write_shard(folder / "model.safetensors", [tensor_entry(name, tensor) for name, tensor in weights.items()])
    recipe = tiny_recipe.model_copy(update={"name": "moe"})
    on_all = codes(quantize(folder, recipe, tmp_path / "all", device="cpu"))
    recipe = recipe.model_copy(update={"moe_calibrate_all_experts": False})
    made = quantize(folder, recipe, tmp_path / "routed", device="cpu")
    routed = codes(made)
    (counts,) = json.loads((made / USAGE_FILE).read_text()).values()
    (unseen,) = [number for number, count in enumerate(counts) if not count]
    card = (made / "README.md").read_text()
    assert "4 in 1 layers, each calibrated on its own tokens, and on all where these are few" in card
    assert f"**none to 1**, calibrated on all: `model.layers.0.mlp.experts.{unseen}` |" in card
    assert routed.keys() == on_all.keys()
    for name, packed in routed.items():
        same = float((packed == on_all[name]).float().mean())
        own_tokens = ".experts." in name and f".experts.{unseen}." not in name
        assert same < 0.9 if own_tokens else same > 0.95, (name, same)
    monkeypatch.setattr(routed_module, "HESSIAN_BYTES", 1)
    one_by_one = codes(quantize(folder, recipe, tmp_path / "one by one", device="cpu"))
    assert all(torch.equal(packed, one_by_one[name]) for name, packed in routed.items())
