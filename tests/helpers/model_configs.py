"""config.json files without weights."""

import json
from pathlib import Path
from typing import Any

GLM_5: dict[str, Any] = {
    "model_type": "glm_moe_dsa", "num_hidden_layers": 78, "first_k_dense_replace": 3, "hidden_size": 6144,
    "intermediate_size": 12288, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
    "moe_intermediate_size": 2048, "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 2048,
    "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "index_n_heads": 32,
    "index_head_dim": 128, "vocab_size": 154880, "num_nextn_predict_layers": 1, "max_position_embeddings": 202752,
    "tie_word_embeddings": False,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 16},
    "gpt_oss": {"num_local_experts": 4, "num_key_value_heads": 2, "head_dim": 16},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 96},
}


def write_config(folder: Path, **settings: Any) -> Path:
    """A folder that holds nothing but this config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def small_config(folder: Path, kind: str, **settings: Any) -> Path:
    """Two layers of hidden size 64."""
    base = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return write_config(folder, model_type=kind, vocab_size=257, **(base | SMALL[kind] | settings))
