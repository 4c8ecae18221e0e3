"""One layer of GLM-5 at its true size, from checkpoint to checkpoint: seconds of each stage, and the most memory.

    python -m benchmarks.glm5_layer --tokenizer FOLDER --work FOLDER --tier vq2 --out FILE [--samples 64] [--length 512]
    python -m benchmarks.glm5_layer ... --tier mix --samples 40   # what measure-tiers does with the recipe's four tiers

A checkpoint of one layer (256 experts of 2,048 x 6,144, sparse attention, a shared expert; random weights, 23 GB) is
written to `--work` and quantized as recipe `glm-5.2-mixed` does it, with all experts in one tier. What is measured is
all of it: reading, calibration, encoding, writing. With `mix` it is what the recipe does before: each of its tiers is
encoded and its damage measured. `--experts` and `--hidden` make the layer small, to try it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.kl_panel import machine
from benchmarks.memory import peak_memory
from quantizers.mixed.measure import measure_tiers
from quantizers.pipeline import quantize
from quantizers.recipe import Recipe
from quantizers.recipes import RECIPES
from quantizers.side_files import copy_side_files
from quantizers.writing import Entry, tensor_entry, write_index, write_shard, write_text

ATTENTION = {
    "q_lora_rank": 2048, "kv_lora_rank": 512,
    "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "index_n_heads": 32, "index_head_dim": 128,
    "index_topk": 2048,
}  # fmt: skip
SHARD_TENSORS = 96
MIX = "mix"


def checkpoint(folder: Path, tokenizer: Path, experts: int, hidden: int, device: torch.device) -> Path:
    """A model of one layer with random weights, as GLM-5 is stored."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True)
    copy_side_files(tokenizer, folder)
    vocabulary, heads = len(AutoTokenizer.from_pretrained(tokenizer)), hidden // 96
    config = AutoConfig.for_model(
        "glm_moe_dsa", vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=1, first_k_dense_replace=0,
        intermediate_size=2 * hidden, moe_intermediate_size=hidden // 3, n_shared_experts=1, n_routed_experts=experts,
        num_local_experts=experts, num_experts_per_tok=min(8, experts), n_group=1, topk_group=1,
        num_nextn_predict_layers=0, tie_word_embeddings=False, max_position_embeddings=4096,
        num_attention_heads=heads, num_key_value_heads=heads, **ATTENTION,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    settings = config.to_dict() | {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    write_text(folder / "config.json", json.dumps(settings))
    generator = torch.Generator(device).manual_seed(0)
    weights = list(_weights(model.state_dict(), generator))
    shards = []
    for start in range(0, len(weights), SHARD_TENSORS):
        shards.append(folder / f"model-{start // SHARD_TENSORS:05}.safetensors")
        write_shard(shards[-1], (make() for make in weights[start : start + SHARD_TENSORS]))
    write_index(folder, shards)
    return folder


def _weights(shapes: dict[str, torch.Tensor], generator: torch.Generator) -> Iterator[Any]:
    """Functions that make each stored tensor: matrices normal over the root of their inputs, the rest ones."""
    for name, like in shapes.items():
        if like.ndim < 3:
            yield lambda name=name, shape=like.shape: _random(name, shape, generator)
            continue
        for number in range(len(like)):
            stem = name.replace(".experts.", f".experts.{number}.")
            if name.endswith("gate_up_proj"):
                half = (like.shape[1] // 2, like.shape[2])
                for part in ("gate_proj", "up_proj"):
                    own = stem.replace("gate_up_proj", f"{part}.weight")
                    yield lambda name=own, shape=half: _random(name, shape, generator)
            else:
                yield lambda name=f"{stem}.weight", shape=like.shape[1:]: _random(name, shape, generator)


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Entry:
    if len(shape) < 2:
        return tensor_entry(name, torch.ones(shape, dtype=torch.bfloat16))
    weight = torch.randn(shape, generator=generator, device=generator.device) / shape[1] ** 0.5
    return tensor_entry(name, weight.to(torch.bfloat16).cpu())


class Stages:
    """How long each stage of a quantization took, from what it reports: time goes to the stage reported last."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage, self._since = "load", time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.glm5_layer", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with one")
    parser.add_argument("--work", type=Path, required=True, help="where the checkpoint goes")
    parser.add_argument("--tier", nargs="+", default=["vq2"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=6144)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    model = asked.work / "glm-5-layer"
    device = torch.device(asked.device)
    start = time.monotonic()
    if not model.exists():
        checkpoint(model, asked.tokenizer, asked.experts, asked.hidden, device)
    print(f"checkpoint: {time.monotonic() - start:.1f} s", flush=True)
    record: dict[str, Any] = {
        "command": f"python -m benchmarks.glm5_layer {' '.join(arguments or sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine() | {"device": asked.device},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "layer": {"experts": asked.experts, "hidden": asked.hidden},
        "tokens": asked.samples * asked.length,
        "results": {},
    }
    for tier in asked.tier:
        settings = RECIPES["glm-5.2-mixed"] | ({} if tier == MIX else {"mix": (), "tier": tier})
        settings["tiers"] = {
            name: own for name, own in settings["tiers"].items() if ".mlp" not in name
        }  # none is dense
        settings["calibration"] = settings["calibration"] | {"samples": asked.samples, "length": asked.length}
        stages, out = Stages(), asked.work / f"{tier}-{asked.samples}"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        start = time.monotonic()
        recipe = Recipe.model_validate(settings)
        if tier == MIX:
            measure_tiers(model, recipe, out.with_suffix(".json"), progress=stages, device=asked.device)
        else:
            quantize(model, recipe, out, progress=stages, device=asked.device)
        held = torch.cuda.max_memory_allocated(device) / (1 << 30) if device.type == "cuda" else None
        found = {
            "seconds": round(time.monotonic() - start, 1),
            "stages": {name: round(seconds, 1) for name, seconds in stages.seconds.items()},
            "gpu_peak_gib": held and round(held, 2),
            "host_peak_gib": round(peak_memory() / 1024, 2),
            "stored_gb": round(sum(path.stat().st_size for path in out.glob("*.safetensors")) / 1e9, 3),
        }
        record["results"][tier] = found
        asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        print(f"{tier}: {json.dumps(found)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
