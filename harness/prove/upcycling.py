"""A small mixture of experts made of a dense Llama, without training: a Qwen2-MoE that computes what the Llama does.

In some layers the strongest neurons of the MLP become the experts, all of them the same at first; the others are the
shared expert (arXiv 2212.05055, 2401.06066). A router's rows are the centres of spherical k-means over what enters it,
so that experts are used unevenly and for a reason. `specialize` then makes experts differ where their tokens are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SHARPNESS = 2.0
"""Standard deviation of the routers' logits over tokens."""
SPARED = 0.02
"""`specialize`: of a direction in which what enters varies as in the mean of all, this part of the noise is left."""
SAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
"""Settings that the mixture takes over."""


@dataclass(frozen=True)
class Shape:
    """Which layers get experts, how many each, of how many neurons, and how many of them a token uses."""

    layers: Sequence[int]
    experts: int
    width: int
    active: int


def upcycled(dense: Any, entering: Mapping[int, torch.Tensor], shape: Shape) -> Any:
    """A Qwen2-MoE, float32, that computes what the Llama `dense` does; routers are placed by what `entering_of` tokens
    found."""
    from transformers import AutoModelForCausalLM, Qwen2MoeConfig

    own = dense.config
    config = Qwen2MoeConfig(
        **{name: getattr(own, name) for name in SAME},
        qkv_bias=True,  # vLLM has them whatever is said here, and what is not stored stays as memory was
        num_experts=shape.experts,
        num_experts_per_tok=shape.active,
        moe_intermediate_size=shape.width,
        shared_expert_intermediate_size=own.intermediate_size - shape.width,
        norm_topk_prob=True,
        mlp_only_layers=[layer for layer in range(own.num_hidden_layers) if layer not in shape.layers],
    )
    model: Any = AutoModelForCausalLM.from_config(config).float()
    weights = dense.state_dict()
    weights |= {
        name: torch.zeros_like(each) for name, each in model.state_dict().items() if name.endswith("_proj.bias")
    }
    for layer in shape.layers:
        head, inputs = f"model.layers.{layer}.mlp", entering[layer]
        gate, up, down = (weights.pop(f"{head}.{name}_proj.weight") for name in ("gate", "up", "down"))
        inner = nn.functional.silu(inputs @ gate.t()) * (inputs @ up.t())
        order = (inner.square().mean(0).sqrt() * down.norm(dim=0)).argsort(descending=True)
        strong, weak = order[: shape.width], order[shape.width :]
        weights[f"{head}.experts.gate_up_proj"] = torch.cat([gate[strong], up[strong]]).repeat(shape.experts, 1, 1)
        weights[f"{head}.experts.down_proj"] = down[:, strong].repeat(shape.experts, 1, 1)
        weights |= {
            f"{head}.shared_expert.gate_proj.weight": gate[weak],
            f"{head}.shared_expert.up_proj.weight": up[weak],
            f"{head}.shared_expert.down_proj.weight": 2 * down[:, weak],  # whose gate is the sigmoid of 0
            f"{head}.shared_expert_gate.weight": torch.zeros(1, own.hidden_size),
            f"{head}.gate.weight": router(inputs, shape.experts),
        }
    model.load_state_dict(weights)
    return model


def router(entering: torch.Tensor, experts: int, rounds: int = 20) -> torch.Tensor:
    """Rows [experts, D] whose products with `entering` [T, D] tell the clusters of spherical k-means apart."""
    unit = nn.functional.normalize(entering - entering.mean(0), dim=1)
    centres = unit[torch.randperm(len(unit), generator=torch.Generator().manual_seed(0))[:experts]]
    for _ in range(rounds):
        nearest = (unit @ centres.t()).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, unit)
        centres = nn.functional.normalize(torch.where(sums.any(1, keepdim=True), sums, centres), dim=1)
    logits = entering @ centres.t()
    return centres * (SHARPNESS / (logits - logits.mean(1, keepdim=True)).std())


def specialize(model: Any, entering: Mapping[int, torch.Tensor], noise: float) -> None:
    """Normal noise on each expert's gate and up, in units of the root mean square of its layer's, but little of it in
    the directions of what is routed to the expert: on its own tokens it says what it did, on others something else. Its
    neurons change places, as those of experts that were trained have no order in common."""
    generator = torch.Generator().manual_seed(0)
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for layer, inputs in entering.items():
            head = f"model.layers.{layer}.mlp"
            chosen = (inputs @ tensors[f"{head}.gate.weight"].t()).topk(model.config.num_experts_per_tok).indices
            both, down = tensors[f"{head}.experts.gate_up_proj"], tensors[f"{head}.experts.down_proj"]
            spread = noise * both.square().mean().sqrt()
            for expert, (own, back) in enumerate(zip(both, down, strict=True)):
                mine = inputs[(chosen == expert).any(1)]
                variances, directions = torch.linalg.eigh(mine.t() @ mine / max(1, len(mine)))
                left = SPARED / (SPARED + variances / variances.mean().clamp_min(1e-12))
                added = torch.randn(own.shape, generator=generator) * spread
                own.add_((added @ directions * left) @ directions.t())
                order = torch.randperm(back.shape[1], generator=generator)
                own.copy_(own.view(2, len(order), -1)[:, order].flatten(0, 1))
                back.copy_(back[:, order])


def entering_of(dense: Any, rows: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
    """What enters the MLP of each of `layers` [T, D] with tokens `rows` [N, L]."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda _, inputs: found.update({layer: inputs[0].flatten(0, 1)})

    handles = [dense.model.layers[layer].mlp.register_forward_pre_hook(keep(layer)) for layer in layers]
    with torch.no_grad():
        dense.model(rows)
    for handle in handles:
        handle.remove()
    return found
