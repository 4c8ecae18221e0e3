"""Output tokens a second of whole models in vLLM, at several numbers of requests at once, in one run.

    python -m benchmarks.served_model bf16=DIR vq2=DIR w4a16=DIR --out FILE [--concurrency 1 8 64]

Each model is served in a process of its own, one after the other, with torch.compile and CUDA graphs as vLLM has them.
A round sends so many new prompts of random tokens at once and has a fixed number of tokens generated, whatever they
are; before it, the same number of prompts is answered with one token. `first_token` is what that took, `between_tokens`
what each further token took, `tokens_per_second` are all output tokens over the whole time. Medians of the rounds; the
first round of each number warms up and is not counted. The file is written after each model, and holds ratios to the
first one. `--eager` is for a try on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness.contract.whole_files import write_whole
from harness.serving.hardware import detect


def measure(folder: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What one model does, in this process; `asked` are the command's settings."""
    import torch
    from vllm import LLM, SamplingParams

    began = time.monotonic()
    llm: Any = LLM(
        folder, dtype="bfloat16", enforce_eager=asked["eager"], enable_prefix_caching=False, seed=0,
        max_model_len=asked["input"] + asked["output"] + 8, max_num_seqs=max(asked["concurrency"]),
        gpu_memory_utilization=asked["memory"], tensor_parallel_size=asked["tensor_parallel"],
    )  # fmt: skip
    found: dict[str, Any] = {"ready_seconds": round(time.monotonic() - began, 1), "concurrency": {}}
    random = torch.Generator().manual_seed(1)
    vocabulary = min(llm.llm_engine.model_config.get_vocab_size(), 30_000)

    def seconds(requests: int, tokens: int) -> float:
        prompts = torch.randint(10, vocabulary, (requests, asked["input"]), generator=random).tolist()
        settings = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        start = time.perf_counter()
        answers = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], settings, use_tqdm=False)
        spent = time.perf_counter() - start
        assert all(len(answer.outputs[0].token_ids) == tokens for answer in answers)
        return spent

    for requests in asked["concurrency"]:
        rounds = [(seconds(requests, 1), seconds(requests, asked["output"])) for _ in range(asked["rounds"] + 1)][1:]
        first, whole = (statistics.median(times) for times in zip(*rounds, strict=True))
        found["concurrency"][str(requests)] = {
            "tokens_per_second": round(requests * asked["output"] / whole, 1),
            "first_token_ms": round(1e3 * first, 2),
            "between_tokens_ms": round(1e3 * (whole - first) / (asked["output"] - 1), 3),
            "rounds_seconds": [round(spent, 4) for _, spent in rounds],
        }
    return found


def with_ratios(models: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Tokens a second of each model over those of the first, by the number of requests."""
    first = next(iter(models.values()))["concurrency"]
    return {
        name: {n: round(rate["tokens_per_second"] / first[n]["tokens_per_second"], 3) for n, rate in each.items()}
        for name, each in ((name, found["concurrency"]) for name, found in models.items())
    }


def main() -> int:
    """Measure and write; 1 if a model could not be served."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--input", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=256, help="tokens of an answer, at least 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=float, default=0.5, help="gpu_memory_utilization")
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--eager", action="store_true")
    given = vars(parser.parse_args())
    folders = dict(pair.split("=", 1) for pair in given.pop("models"))
    out: Path = given.pop("out")
    machine = detect()
    result: dict[str, Any] = {
        "command": ["python", "-m", "benchmarks.served_model", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": machine.processor, "gpus": [gpu.name for gpu in machine.gpus]},
        "versions": {name: metadata.version(name) for name in ("vllm", "torch")},
        "settings": given,
        "models": {},
    }
    failed = False
    for name, folder in folders.items():
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found = pool.submit(measure, folder, given).result()
        except Exception as error:  # whatever a server ends with: the others are still measured
            result.setdefault("failed", {})[name] = " ".join(str(error).split())[:500]
            failed = True
        else:
            nbytes = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
            result["models"][name] = {"checkpoint_bytes": nbytes, **found}
        if result["models"]:
            result["tokens_per_second_over_first"] = with_ratios(result["models"])
        write_whole(out, json.dumps(result, indent=1) + "\n")
        print(name, json.dumps(result["models"].get(name, result.get("failed"))), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
