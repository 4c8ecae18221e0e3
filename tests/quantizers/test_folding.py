"""Folded rotations: the same model in other weights, and a checkpoint that stock servers read."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import save_tiny_llama

from quantizers.checkpoint import open_checkpoint
from quantizers.errors import QuantizeError
from quantizers.folding import EMBEDDINGS, FINAL_NORM, HEAD, Folding, fold, folding_of, orthogonal, untied
from quantizers.modeling import Architecture, build


def tiny(kind: str, **settings: Any) -> Any:
    """A random model in float64 whose norms and biases are not what they start as."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 61, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2, "head_dim": 24,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(3)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | settings))).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for norm in (m for m in model.modules() if type(m).__name__.endswith("RMSNorm") and hasattr(m, "variance_epsilon")):
        norm.forward = partial(double_norm, norm)
    return model


def double_norm(norm: Any, states: torch.Tensor) -> torch.Tensor:
    """What transformers computes in float32, whatever the model is in."""
    normal = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return torch.mul(norm.weight, normal)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"hidden_size": 64, "head_dim": 16}),
        ("qwen2", {"head_dim": 24}),
        ("qwen3", {}),
        ("mistral", {}),
    ],
)
def test_it_is_the_same_model(kind: str, settings: dict[str, Any]) -> None:
    model = tiny(kind, **settings)
    tokens = torch.randint(0, 61, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(tokens).logits
        folding = folding_of(Architecture(model, model.model.layers, "model.layers"))
        first = model.model.layers[0].self_attn.v_proj.weight.clone()
        for layer in model.model.layers:
            fold(layer, folding)
        head, norm = model.lm_head.weight.data, model.model.norm.weight.data
        head.copy_(folding.head(head, norm))
        norm.fill_(1.0)
        embeddings = model.model.embed_tokens.weight.data
        embeddings.copy_(folding.turned(embeddings))
        after = model(tokens).logits
    assert float((after - before).abs().max()) < 1e-9 * float(before.abs().max())
    assert not torch.allclose(first, model.model.layers[0].self_attn.v_proj.weight)
    norms = [p for name, p in model.named_parameters() if "layernorm" in name]
    assert len(norms) == 4 and all(bool((p == 1).all()) for p in norms)


@pytest.mark.parametrize("size", [1, 7, 24, 64, 96, 576])
def test_matrices_are_orthogonal_and_spread_an_outlier(size: int) -> None:
    matrix = orthogonal(size, 1)
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(matrix, orthogonal(size, 1)) and (size == 1 or not torch.equal(matrix, orthogonal(size, 2)))
    if size & (size - 1) == 0:
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, size**-0.5))


def test_what_is_not_known_is_refused() -> None:
    for kind, name in (("gemma2", "not gemma2"), ("stablelm", "not stablelm")):
        model = tiny(kind)
        with pytest.raises(QuantizeError, match=f"{name}: use rotate: none"):
            folding_of(Architecture(model, model.model.layers, "model.layers"))
    model = tiny("llama")
    model.model.layers[1].extra = torch.nn.Linear(3, 3)
    with pytest.raises(QuantizeError, match=r"does not know model\.layers\.1\.extra\.bias of this llama"):
        folding_of(Architecture(model, model.model.layers, "model.layers"))


def test_tied_embeddings_get_a_head_of_their_own(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save_tiny_llama(tmp_path / "tied", tie_word_embeddings=True))
    architecture = build(checkpoint)
    outside = [checkpoint.tensors[EMBEDDINGS], checkpoint.tensors[FINAL_NORM]]
    found = untied(architecture, outside)
    assert [info.name for info in found] == [EMBEDDINGS, FINAL_NORM, HEAD]
    assert untied(architecture, found) == found
    weight = torch.arange(12.0).view(3, 4)
    folding = Folding(orthogonal(4, 0), torch.eye(1))
    norm = torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(folding.head(weight, norm), (weight * norm) @ orthogonal(4, 0).float())
    assert json.loads((tmp_path / "tied" / "config.json").read_text())["tie_word_embeddings"] is True
