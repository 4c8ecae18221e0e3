"""Tiny random mixtures of experts of several architectures, as model folders on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_llama import save_tokenizer

from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.writing import tensor_entry, write_shard

COMMON: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 256,
    "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
LATENT = {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 16, "qk_rope_head_dim": 32, "v_head_dim": 32}
GROUPED = {
    "moe_intermediate_size": 64, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "n_shared_experts": 1, "num_mtp_layers": 0, "num_nextn_predict_layers": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 64,
    },
    "qwen3_moe": {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": LATENT | GROUPED | {"num_key_value_heads": 4},
    "glm4_moe": GROUPED | {"head_dim": 16},
    "glm_moe_dsa": LATENT | GROUPED | {
        "num_key_value_heads": 4, "num_local_experts": 4, "index_n_heads": 2, "index_head_dim": 64, "index_topk": 16,
    },
}  # fmt: skip
"""Settings of config.json by model type."""
DRAFT = "model.layers.2."
"""Of the MTP layer of `save_tiny_glm`."""


def save_tiny_moe(kind: str, folder: Path, **overrides: Any) -> Path:
    """Two layers with four experts, two a token (the first layer of DeepSeek's and GLM's is dense), hidden 64."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    config = AutoConfig.for_model(kind, **(COMMON | KINDS[kind] | overrides))
    model: Any = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.1 if parameter.ndim > 1 else 0.0
            parameter.normal_(0, spread) if spread else parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]


def edit(folder: Path, change: Change) -> Path:
    """Let `change` see and change the tensors of a model folder, by name, and its config."""
    weights = {info.name: read_tensor(info) for info in open_checkpoint(folder).tensors.values()}
    config = json.loads((folder / "config.json").read_text())
    change(weights, config)
    write_shard(folder / "model.safetensors", [tensor_entry(name, tensor) for name, tensor in weights.items()])
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_tiny_glm(folder: Path, **overrides: Any) -> Path:
    """A GLM-5 of a dense layer, one with experts, and an MTP layer with experts beyond them."""
    hidden = overrides.get("hidden_size", COMMON["hidden_size"])

    def add_draft(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        torch.manual_seed(3)
        for name in [name for name in weights if name.startswith("model.layers.1.")]:
            weights[name.replace("model.layers.1.", DRAFT)] = torch.randn_like(weights[name])
        weights[f"{DRAFT}eh_proj.weight"] = torch.randn(hidden, 2 * hidden).to(torch.bfloat16)
        weights[f"{DRAFT}enorm.weight"] = weights[f"{DRAFT}hnorm.weight"] = torch.randn(hidden).to(torch.bfloat16)
        config["num_nextn_predict_layers"] = 1

    return edit(save_tiny_moe("glm_moe_dsa", folder, **overrides), add_draft)
