"""A tiny checkpoint with an MTP draft head that is right by construction, and one whose head is broken.

Its weights are such that the next token depends on the last one alone: attention and MLP add nothing, and the output
embedding of a token is the input embedding of the one before it in a ring of all tokens. A head that reads the token it
is given then drafts what the model will say; one that reads the hidden state before it drafts what the model has just
said, and is never right.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, HEADS, INNER = 128, 2, 64
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def make_model(folder: Path, tokenizer: Path, vocabulary: int, *, broken_head: bool) -> Path:
    """Write a MiMo-shaped checkpoint (Qwen2 with a draft head) of one layer, with another model's tokenizer."""
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    config = {
        "architectures": ["MiMoForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "use_sliding_window": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(
        {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in _weights(vocabulary, broken_head).items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def _weights(vocabulary: int, broken_head: bool) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    embeddings = torch.nn.functional.normalize(torch.randn(vocabulary, HIDDEN, generator=random))
    ring = torch.arange(vocabulary).roll(1)  # the row of a token is the embedding of the one before it in the ring
    chooses = torch.zeros(HIDDEN, 2 * HIDDEN)
    half = chooses[:, :HIDDEN] if broken_head else chooses[:, HIDDEN:]
    half.copy_(torch.eye(HIDDEN))
    head = "model.mtp_layers.0."
    return {
        "model.embed_tokens.weight": embeddings,
        "lm_head.weight": embeddings[ring],
        "model.norm.weight": torch.ones(HIDDEN),
        **_block("model.layers.0."),
        **_block(head),
        f"{head}token_layernorm.weight": torch.ones(HIDDEN),
        f"{head}hidden_layernorm.weight": torch.ones(HIDDEN),
        f"{head}final_layernorm.weight": torch.ones(HIDDEN),
        f"{head}input_proj.weight": chooses,
    }


def _block(prefix: str) -> dict[str, torch.Tensor]:
    """A decoder layer that adds nothing to what goes through it."""
    found = {f"{prefix}{norm}_layernorm.weight": torch.ones(HIDDEN) for norm in ("input", "post_attention")}
    for name in ("q", "k", "v"):
        found[f"{prefix}self_attn.{name}_proj.weight"] = torch.zeros(HIDDEN, HIDDEN)
        found[f"{prefix}self_attn.{name}_proj.bias"] = torch.zeros(HIDDEN)
    found[f"{prefix}self_attn.o_proj.weight"] = torch.zeros(HIDDEN, HIDDEN)
    for name in ("gate", "up"):
        found[f"{prefix}mlp.{name}_proj.weight"] = torch.zeros(INNER, HIDDEN)
    found[f"{prefix}mlp.down_proj.weight"] = torch.zeros(HIDDEN, INNER)
    return found
