"""Models of random weights in the sizes of qwen2.5-coder-1.5b, to be served for speed: bf16, vq2 and int4.

    python -m benchmarks.deep_models WORK [--device cuda]      # WORK/bf16, WORK/vq2, WORK/int4: under a minute on a GPU

Two layers are made and quantized, untuned, and then repeated: speed does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.served_experts import in_own_process, random_model, save_tokenizer
from harness.contract.whole_files import write_whole
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe

SIZE: dict[str, Any] = {
    "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 2,
    "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32768, "bos_token_id": 256,
    "eos_token_id": 256, "pad_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
LAYERS = 28
TIERS = ("vq2", "int4")


def make_plain(folder: Path) -> None:
    """Two layers in bf16."""
    random_model("Qwen2", **SIZE).save_pretrained(folder)
    save_tokenizer(folder)


def make_quantized(plain: Path, tier: str, folder: Path, device: str | None) -> None:
    """The same in a tier."""
    calibration = Calibration(samples=16, length=128)
    recipe = Recipe.model_validate({"name": tier, "tier": tier, "tune": "none", "calibration": calibration})
    quantize(plain, recipe, folder, device=device)


def repeat_layers(folder: Path, layers: int) -> None:
    """Rewrite a checkpoint of a few layers so that it has `layers`, which repeat in turn."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    own = config["num_hidden_layers"]
    index = folder / "model.safetensors.index.json"
    shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values())) if index.exists() else None
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards or ["model.safetensors"]:
        with safe_open(folder / shard, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        (folder / shard).unlink()
    for name in [name for name in tensors if name.startswith("model.layers.")]:
        number, rest = name.removeprefix("model.layers.").split(".", 1)
        for layer in range(int(number) + own, layers, own):
            tensors[f"model.layers.{layer}.{rest}"] = tensors[name].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    places = dict.fromkeys(tensors, "model.safetensors")  # servers would read the tables of codes as weights without
    write_whole(index, json.dumps({"metadata": {}, "weight_map": places}) + "\n")
    kinds = config.get("layer_types") or []
    config |= {"num_hidden_layers": layers, "layer_types": [kinds[i % own] for i in range(layers)] if kinds else None}
    write_whole(folder / "config.json", json.dumps(config, indent=1) + "\n")


def main() -> int:
    """Make the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--device", help="where they are quantized; default: a GPU if there is one")
    given = parser.parse_args()
    began = time.monotonic()
    plain = given.work / "bf16"
    in_own_process(make_plain, plain)
    for tier in TIERS:
        in_own_process(make_quantized, plain, tier, given.work / tier, given.device)
    for name in ("bf16", *TIERS):
        repeat_layers(given.work / name, LAYERS)
        print(f"{name}: {LAYERS} layers, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
