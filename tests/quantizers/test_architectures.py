"""Architectures, wrappers for images and tensors under other names among them: quantized and read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import save_tokenizer

from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.head import logits_of
from quantizers.modeling import build, capture_calls, fill, run_layer
from quantizers.names import note, note_of, stored_prefix
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Recipe
from quantizers.writing import tensor_entry, write_shard

TEXT: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 256,
    "pad_token_id": 0, "head_dim": 16,
}  # fmt: skip
TOWER = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
WRAPPERS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": TEXT | {"sliding_window": 32}, "vision_config": TOWER, "mm_tokens_per_image": 4,
        "image_token_index": 250, "boi_token_index": 251, "eoi_token_index": 252,
    },
    "qwen2_5_vl": {
        "text_config": TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [0],
        },
        "image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252, "vision_end_token_id": 253,
    },
    "mistral3": {
        "text_config": TEXT | {"model_type": "mistral"},
        "vision_config": TOWER | {"model_type": "pixtral", "head_dim": 16}, "image_token_index": 250,
    },
    "llava": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": TOWER | {"model_type": "clip_vision_model", "projection_dim": 32}, "image_token_index": 250,
    },
}  # fmt: skip
"""Models for texts and images: the text part is quantized."""
EXPERTS = {
    "moe_intermediate_size": 64, "n_routed_experts": 4, "num_local_experts": 4, "num_experts": 4,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "num_shared_experts": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
RENAMED: dict[str, dict[str, Any]] = {
    "hy_v3": TEXT | EXPERTS,
    "phimoe": TEXT | EXPERTS,
    "mimo_v2_flash": TEXT | EXPERTS,
}  # fmt: skip
"""Stored are `mlp.router.gate` and `shared_mlp`, `block_sparse_moe`, and `attention_sink_bias`."""
KINDS: dict[str, dict[str, Any]] = {
    "llama": TEXT,
    "qwen2": TEXT,
    "qwen3": TEXT,
    "mistral": TEXT,
    "phi3": TEXT,
    "gemma3_text": TEXT | {"sliding_window": 32},
    **WRAPPERS,
    **RENAMED,
}
OTHERS: dict[str, dict[str, Any]] = {
    "falcon": {key: value for key, value in TEXT.items() if key != "head_dim"},
    "olmo_hybrid": TEXT | {"layer_types": ["linear_attention", "full_attention"], "tie_word_embeddings": False},
}
"""Settings of config.json by model type; tests/helpers/tiny_moe.py has the other mixtures of experts."""
TOKENS = torch.randint(0, 250, (2, 40), generator=torch.Generator().manual_seed(5))


def save_tiny(kind: str, folder: Path) -> Path:
    import transformers

    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(kind, **(KINDS | OTHERS)[kind])
    auto = transformers.AutoModelForMultimodalLM if kind in WRAPPERS else transformers.AutoModelForCausalLM
    made: Any = auto.from_config(config)  # type: ignore[no-untyped-call]
    model = made.to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def log_probabilities(folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    import transformers

    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    model: Any = getattr(transformers, name).from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        return model(TOKENS).logits.float().log_softmax(-1)  # type: ignore[no-any-return]


def damage(reference: torch.Tensor, found: torch.Tensor) -> float:
    """KL in nats a token."""
    return float((reference.exp() * (reference - found)).sum(-1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_are_quantized_and_all_else_is_as_it_was(kind: str, tmp_path: Path, tiny_recipe: Recipe) -> None:
    folder = save_tiny(kind, tmp_path / kind)
    calibration = tiny_recipe.calibration.model_copy(update={"samples": 8})
    short = tiny_recipe.model_copy(update={"group_size": 32, "calibration": calibration})
    made = quantize(folder, short, tmp_path / "made", device="cpu")
    plain = dequantize(made, tmp_path / "plain")
    reference = log_probabilities(folder)
    assert 0 < damage(reference, log_probabilities(plain)) < 0.2
    assert 0 < damage(reference, log_probabilities(made, torch.bfloat16)) < 0.2, "as transformers loads it"
    before, after = (open_checkpoint(path).tensors for path in (folder, plain))
    assert {name: info.shape for name, info in before.items()} == {name: info.shape for name, info in after.items()}
    changed = {name for name, info in before.items() if not torch.equal(read_tensor(info), read_tensor(after[name]))}
    checkpoint = open_checkpoint(folder)
    assert changed == {f"{name}.weight" for name in make_plan(checkpoint, build(checkpoint), short).schemes}


def test_a_wrapper_keeps_its_stored_names_and_lists_its_tower_under_both(tmp_path: Path, tiny_recipe: Recipe) -> None:
    """Gemma 3 as it lies on the Hub has `vision_model` in the tower's names, which transformers drops."""
    folder = save_tiny("gemma3", tmp_path / "gemma3")
    weights = {info.name: read_tensor(info) for info in open_checkpoint(folder).tensors.values()}
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in weights.items()}
    write_shard(folder / "model.safetensors", [tensor_entry(name, tensor) for name, tensor in renamed.items()])
    checkpoint = open_checkpoint(folder)
    architecture = build(checkpoint)
    plan = make_plan(checkpoint, architecture, tiny_recipe.model_copy(update={"group_size": 32}))
    assert architecture.prefix == "language_model.model.layers"
    assert len(plan.schemes) == 14 and all(name.startswith(architecture.prefix) for name in plan.schemes)
    tower = "vision_tower.vision_model.encoder.layers.0.mlp.fc1"
    assert {tower, "model.vision_tower.encoder.layers.0.mlp.fc1", "lm_head"} <= set(plan.ignore)
    assert not any("language_model" in name for name in plan.ignore)
    assert {info.name for group in plan.layer_tensors + plan.other_tensors for info in group} == set(renamed)
    tokens = torch.zeros(1, 8, dtype=torch.long)
    fill(
        architecture.model, architecture.model.base_model, "model", checkpoint, device="cpu", dtype=torch.float32,
        skip=architecture.apart,
    )  # fmt: skip
    states, calls = capture_calls(architecture, tokens)
    assert states.shape == (1, 8, 64) and len(calls) == 2
    assert all(p.is_meta for tower in architecture.towers for p in tower.parameters()), "no text passes the tower"


def edited(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """The folder, its tensors changed in place."""
    weights = {info.name: read_tensor(info) for info in open_checkpoint(folder).tensors.values()}
    change(weights)
    write_shard(folder / "model.safetensors", [tensor_entry(name, tensor) for name, tensor in weights.items()])
    return folder


UP = "model.layers.0.mlp.up_proj.weight"


TWIN = UP.replace("model.layers", "model.language_model.layers")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.update({TWIN: w[f"language_model.{UP}"]}), f"tensors language_model.{UP} and {TWIN} are both"),
        (lambda w: w.pop(f"language_model.{UP}"), f"tensor language_model.{UP} is missing in"),
        (
            lambda w: w.update({f"language_model.{UP}": torch.zeros(3, 64)}),
            rf"tensor language_model.{UP} is \[3, 64\] but config.json asks for \[96, 64\]",
        ),
    ],
    ids=["twice", "missing", "shape"],
)
def test_tensors_of_a_wrapper_that_do_not_fit_are_named(change: Any, words: str, tmp_path: Path) -> None:
    folder = edited(save_tiny("gemma3", tmp_path / "gemma3"), change)
    with pytest.raises(QuantizeError, match=words):
        build(open_checkpoint(folder))


def test_a_tensor_in_three_parts_is_read_as_one(tmp_path: Path) -> None:
    """OLMo Hybrid's convolution is stored as those of q, k and v, and its norms under other names."""
    folder = save_tiny("olmo_hybrid", tmp_path / "olmo")
    checkpoint = open_checkpoint(folder)
    assert "model.layers.0.linear_attn.q_conv1d.weight" in checkpoint.tensors
    assert "model.layers.0.attention_layer_norm.weight" in checkpoint.tensors
    architecture = build(checkpoint)
    fill(architecture.model, architecture.model, "", checkpoint, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        found = architecture.model(TOKENS).logits.log_softmax(-1)
    assert torch.allclose(found, log_probabilities(folder), atol=1e-5)


def test_a_model_that_takes_the_first_of_what_a_layer_returns(tmp_path: Path) -> None:
    """Falcon's layers return tuples: a bare tensor in their place would lose a dimension a layer, without an error."""
    checkpoint = open_checkpoint(save_tiny("falcon", tmp_path / "falcon"))
    architecture = build(checkpoint)
    fill(architecture.model, architecture.model, "", checkpoint, device="cpu", dtype=torch.float32)
    states, calls = capture_calls(architecture, TOKENS)
    assert states.shape == (*TOKENS.shape, 64) and len(calls) == 2
    for layer, call in zip(architecture.layers, calls, strict=True):
        states = run_layer(layer, states, call)
    with torch.no_grad():
        found, expected = logits_of(architecture, TOKENS, states), architecture.model(TOKENS).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_layers_that_share_a_weight_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "llama")
    checkpoint = open_checkpoint(folder)
    architecture = build(checkpoint)
    other = note_of(architecture.layers[0].get_submodule("mlp.up_proj"))
    note(architecture.layers[1].get_submodule("mlp.up_proj"), other)
    with pytest.raises(QuantizeError, match=f"model.layers.1 shares {UP} with another layer: not supported"):
        stored_prefix(architecture.layers, "model.layers")
