"""A tiny random Llama with a byte tokenizer, as a model folder on disk."""

import json
from pathlib import Path
from typing import Any

import torch

CALIBRATION = "\n%%\n".join(
    f"Document {i}: the quick brown fox {i * i} jumps over {i % 7} lazy dogs." for i in range(80)
)


def save_tiny_llama(folder: Path, *, shards: bool = False, **overrides: Any) -> Path:
    """Two layers, hidden 64, vocabulary of 257; with `shards`, several files and an index."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "bos_token_id": 256, "eos_token_id": 256, "tie_word_embeddings": False,
    }  # fmt: skip
    torch.manual_seed(7)
    model: Any = LlamaForCausalLM(LlamaConfig(**(settings | overrides)))
    model = model.to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than transformers' start values, so that activations have some contrast.
            parameter.mul_(3.0) if parameter.ndim == 2 else parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, max_shard_size="60KB" if shards else "1GB")
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Byte-level, untrained: each of the 256 symbols is a token, and one ends a text. A licence beside it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)} | {"<eos>": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    (folder / "LICENSE").write_bytes(b"do what you like\r\n")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
