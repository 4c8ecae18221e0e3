"""Does a coded model say the same on two GPUs as on one? By how much more than it does in bf16?

    python -m benchmarks.tensor_parallel --out FILE [--ranks 2] [--device cuda]

Two models of random weights, one dense and a mixture whose experts are in four tiers, each in codes and as the bf16
that the codes stand for, are served by vLLM on one GPU and on several: split by tensors, and the mixture also with
whole experts on each. Prompts are fixed, and the whole distribution (257 tokens) is compared at each position: KL in
nats, and the share of positions with another likeliest token. The sums of ranks are rounded to bf16, so bf16 differs
too; codes may differ twice as much (`ok`). `again` is one GPU against itself, served a second time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.served_experts import SIZE, divergence, in_own_process, random_model, save_tokenizer, served_apart
from harness.contract.whole_files import write_whole
from quantizers.dequantize import dequantize
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe

MODELS = ("dense", "mixture")
FORMS = ("codes", "bf16")
TIERS = {r"re:.*experts\.[0-3]\..*": "vq3", r"re:.*experts\.[4-7]\..*": "vq1.5", r"re:.*experts\.[89]\.down.*": "vq1"}
LIMIT = 2.0
"""Times bf16's own difference."""


def random_dense() -> Any:
    """A Qwen2 of two layers with the widths of one of 1.5 billion weights, and few tokens."""
    return random_model(
        "Qwen2", vocab_size=SIZE["vocab_size"], hidden_size=1536, intermediate_size=8960,
        num_hidden_layers=2, num_attention_heads=12, num_key_value_heads=2, max_position_embeddings=1024,
        bos_token_id=256, eos_token_id=256, pad_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip


def make(work: Path, name: str, device: str | None) -> None:
    """The folders NAME-codes and NAME-bf16 in `work`."""
    original, codes, plain = (work / f"{name}-{form}" for form in ("original", *FORMS))
    (random_dense() if name == "dense" else random_model("Qwen3Moe", **SIZE)).save_pretrained(original)
    save_tokenizer(original)
    calibration = Calibration(samples=16, length=128)
    tiers = TIERS if name == "mixture" else {}
    recipe = Recipe.model_validate(
        {"name": "codes", "tier": "vq2", "tune": "none", "tiers": tiers, "calibration": calibration}
    )
    quantize(original, recipe, codes, device=device)
    dequantize(codes, plain)


def settings_of(ranks: int) -> dict[str, dict[str, dict[str, Any]]]:
    """How each model is served, by name: what vLLM is given."""
    split: dict[str, Any] = {"tensor_parallel_size": ranks, "disable_custom_all_reduce": True}
    ways: dict[str, dict[str, Any]] = {"one": {}, "again": {}, "tensors": split}
    return {"dense": ways, "mixture": ways | {"experts": split | {"enable_expert_parallel": True}}}


def compare(logprobs: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """Each way of serving against one GPU."""
    return {way: divergence(logprobs["one"], found) for way, found in logprobs.items() if way != "one"}


def judged(found: dict[str, dict[str, dict[str, float]]]) -> bool:
    """Whether codes differ at most `LIMIT` times as much as bf16 does, in mean KL and in flips, however they are
    split."""
    codes, bf16 = (found[form] for form in FORMS)
    return all(
        codes[way][figure] <= LIMIT * max(each[figure] for each in (bf16[way], bf16["again"]))
        for way in codes
        for figure in ("mean", "flips")
    )


def main() -> int:
    """Measure and write; 1 if codes differ more than they may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--device", help="where the models are quantized; default: a GPU if there is one")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--work", type=Path, help="where models are, or come; default: a folder that is removed again")
    parser.add_argument("--at-once", type=int, default=4, help="servers: most of their start is waiting")
    given = parser.parse_args()
    result: dict[str, Any] = {
        "command": ["python", "-m", "benchmarks.tensor_parallel", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("vllm", "torch")},
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "ranks": given.ranks,
        "models": {},
    }
    ways = settings_of(given.ranks)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.at_once) as pool:
        work = given.work or Path(scratch)
        for name in given.models:
            if not all((work / f"{name}-{form}").exists() for form in FORMS):
                in_own_process(make, work, name, given.device)
        asked: dict[tuple[str, str, str], Future[torch.Tensor]] = {
            (name, form, way): pool.submit(served_apart, work / f"{name}-{form}", ways[name][way])
            for name in given.models
            for way in ways[name]
            for form in FORMS
        }
        for name in given.models:
            found: dict[str, Any] = {}
            for form in FORMS:
                logprobs: dict[str, torch.Tensor] = {}
                for way in ways[name]:
                    try:
                        logprobs[way] = asked[name, form, way].result()
                    except Exception as error:  # whatever a server ends with: the others are still compared
                        result.setdefault("failed", {})[f"{name} {form} {way}"] = " ".join(str(error).split())[-500:]
                found[form] = compare(logprobs) if "one" in logprobs else {}
            complete = all(set(found[form]) == ways[name].keys() - {"one"} for form in FORMS)
            result["models"][name] = found | {"ok": complete and judged(found)}
            write_whole(given.out, json.dumps(result, indent=1) + "\n")
            print(name, json.dumps(result["models"][name]), result.get("failed", ""), flush=True)
    return int(not all(found["ok"] for found in result["models"].values()))


if __name__ == "__main__":
    sys.exit(main())
