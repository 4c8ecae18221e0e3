"""A draft (MTP) head beside experts on their codes: the same answers with it and without, on one GPU and on several.

    PYTHONPATH=.:kernels:tests/helpers python -m benchmarks.served_drafts --out FILE [--ranks 1 2] [--eager]

A small GLM-4.5 of random weights whose next token is decided by the last one nearly alone, with a draft head in bf16
that takes the same way and so is often right, is quantized (vq2, some experts in vq3 and vq1.5) and turned back into
bf16. vLLM answers 8 prompts of 64 tokens with 48 each. FILE has the tokens drafted and accepted, and which share of
tokens is that of the same model on as many GPUs without the head: answers are greedy, so only rounding makes a
difference. On a CPU, `--eager`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.served_experts import in_own_process
from harness.contract.whole_files import write_whole
from quantizers.dequantize import dequantize
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe

WIDTH, LAYERS = 512, 2
SIZE = {
    "hidden_size": WIDTH, "intermediate_size": 512, "moe_intermediate_size": 256, "head_dim": 64,
    "num_attention_heads": 8, "num_key_value_heads": 2, "n_routed_experts": 8, "max_position_embeddings": 1024,
    "num_hidden_layers": LAYERS,
}  # fmt: skip
TIERS = {r"re:.*experts\.[01]\..*": "vq3", r"re:.*experts\.2\..*": "vq1.5"}
QUIET = 0.003
"""What layers add to the hidden states is made so small."""
FORMS = ("codes", "bf16")


def add_head(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Quiet layers, and a draft head that takes the last embedding through such a layer to the model's own head."""
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] *= QUIET
    draft, last = f"model.layers.{LAYERS}.", f"model.layers.{LAYERS - 1}."
    for name in [name for name in weights if name.startswith(last)]:
        weights[name.replace(last, draft)] = weights[name].clone()
    ones, nothing = torch.ones(WIDTH).to(torch.bfloat16), torch.zeros(WIDTH, WIDTH)
    weights |= {
        f"{draft}eh_proj.weight": torch.cat([torch.eye(WIDTH), nothing], 1).to(torch.bfloat16),
        f"{draft}enorm.weight": ones,
        f"{draft}hnorm.weight": ones.clone(),
        f"{draft}embed_tokens.weight": weights["model.embed_tokens.weight"].clone(),
        f"{draft}shared_head.norm.weight": weights["model.norm.weight"].clone(),
        f"{draft}shared_head.head.weight": weights["lm_head.weight"].clone(),
    }
    config["num_nextn_predict_layers"] = 1


def make(work: Path, device: str | None) -> None:
    """The folders `FORMS` in `work`."""
    from tiny_moe import edit, save_tiny_moe

    original = edit(save_tiny_moe("glm4_moe", work / "original", **SIZE), add_head)
    calibration = Calibration(samples=16, length=128)
    recipe = {"name": "codes", "tier": "vq2", "tune": "none", "tiers": TIERS, "calibration": calibration}
    quantize(original, Recipe.model_validate(recipe), work / "codes", device=device)
    dequantize(work / "codes", work / "bf16")


def answers(folder: Path, drafts: bool, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens of each answer, and what the head drafted, in this process."""
    from vllm import LLM, SamplingParams

    head: dict[str, Any] = {"speculative_config": {"method": "mtp", "num_speculative_tokens": 1}} if drafts else {}
    llm: Any = LLM(
        str(folder), dtype="bfloat16", max_model_len=256, seed=0, disable_log_stats=False,
        kv_cache_memory_bytes=128 << 20, gpu_memory_utilization=0.2, **head, **settings,
    )  # fmt: skip
    prompts = torch.randint(0, 256, (8, 64), generator=torch.Generator().manual_seed(2)).tolist()
    asked = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)
    found = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False)
    counts = {
        metric.name.removeprefix("vllm:spec_decode_num_"): getattr(metric, "value", None)
        for metric in llm.get_metrics()
    }
    return {
        "tokens": [list(answer.outputs[0].token_ids) for answer in found],
        "drafted": counts.get("draft_tokens"),
        "accepted": counts.get("accepted_tokens"),
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--device", help="where the model is quantized; default: a GPU if there is one")
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--at-once", type=int, default=4, help="servers: most of their start is waiting")
    given = parser.parse_args()
    asked: dict[tuple[str, int, bool], Future[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(given.at_once) as pool:
        work = Path(scratch)
        in_own_process(make, work, given.device)
        for ranks in given.ranks:
            split = {"tensor_parallel_size": ranks, "disable_custom_all_reduce": True} if ranks > 1 else {}
            settings = {"enforce_eager": given.eager, **split}
            for form in FORMS:
                for drafts in (False, True):
                    job = pool.submit(in_own_process, answers, work / form, drafts, settings)
                    asked[form, ranks, drafts] = job
        found = {key: job.result() for key, job in asked.items()}
    rows = []
    for (form, ranks, drafts), each in found.items():
        if drafts:
            alone = found[form, ranks, False]["tokens"]
            same = [
                a == b for one, two in zip(each["tokens"], alone, strict=True) for a, b in zip(one, two, strict=True)
            ]
            rows.append(
                {"model": form, "ranks": ranks, "drafted": each["drafted"], "accepted": each["accepted"],
                 "same_tokens": sum(same) / len(same)}
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": ["python", "-m", "benchmarks.served_drafts", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in ("vllm", "torch")},
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "rows": rows,
    }
    write_whole(given.out, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
