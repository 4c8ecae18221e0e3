"""Dense architectures, Phi-3 with its fused matrices among them: quantized and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import save_tokenizer

from quantizers.checkpoint import open_checkpoint, read_tensor
from quantizers.dequantize import dequantize
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe

COMMON: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 256,
    "pad_token_id": None, "head_dim": 16,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": COMMON,
    "qwen3": COMMON,
    "mistral": COMMON,
    "phi3": COMMON,
    "gemma3_text": COMMON | {"sliding_window": 32},
}  # fmt: skip
"""Settings of config.json by model type."""
TOKENS = torch.randint(0, 250, (2, 40), generator=torch.Generator().manual_seed(5))


def save_tiny(kind: str, folder: Path) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind])).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def log_probabilities(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(TOKENS).logits.log_softmax(-1)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_are_quantized_and_all_else_is_as_it_was(kind: str, tmp_path: Path, tiny_recipe: Recipe) -> None:
    folder = save_tiny(kind, tmp_path / kind)
    made = quantize(folder, tiny_recipe.model_copy(update={"tune": "none"}), tmp_path / "made", device="cpu")
    plain = dequantize(made, tmp_path / "plain")
    reference, found = log_probabilities(folder), log_probabilities(plain)
    assert 0 < float((reference.exp() * (reference - found)).sum(-1).mean()) < 0.2
    before, after = (open_checkpoint(path).tensors for path in (folder, plain))
    assert {name: info.shape for name, info in before.items()} == {name: info.shape for name, info in after.items()}
    changed = {name for name, info in before.items() if not torch.equal(read_tensor(info), read_tensor(after[name]))}
    assert changed and all(".layers." in name and name.endswith("_proj.weight") for name in changed)
