"""Output tokens a second of whole models in vLLM, at several numbers of requests at once, in one run.

    python -m benchmarks.served_model bf16=DIR vq2=DIR int4=DIR --out FILE [--concurrency 1 8 64]
    python -m benchmarks.deep_models WORK                           # makes such models

Each model is served in a process of its own, with torch.compile and CUDA graphs as vLLM has them; all are there at
once, and take turns round by round, so that what slows the machine down slows all of them. A round sends so many new
prompts of random tokens at once and has a fixed number of tokens generated, whatever they are; before it, the same
number of prompts is answered with one token. `first_token` is what that took, `between_tokens` what each further token
took, `tokens_per_second` are all output tokens over the whole time. Medians of the rounds; the first round of each
number warms up and is not counted. `gpu_busy` is the time within `between_tokens` in which any kernel ran, of a run
under torch's profiler: the rest is vLLM's own. The file is written after each number, and holds ratios to the first
model. `--eager` is for a try on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
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

from benchmarks.worker_profile import begin_profile, end_profile
from harness.contract.whole_files import write_whole
from harness.serving.hardware import detect

PROFILED = 33
"""Tokens of a run under the profiler, at most."""
_engines: list[Any] = []
"""Of this process: one, once it is there."""


def start(folder: str, asked: Mapping[str, Any]) -> float:
    """Load a model into this process; `asked` are the command's settings. Returns the seconds it took."""
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # those of worker_profile.py go there
    from vllm import LLM

    began = time.monotonic()
    engine: Any = LLM(
        folder, dtype="bfloat16", enforce_eager=asked["eager"], enable_prefix_caching=False, seed=0,
        max_model_len=asked["input"] + asked["output"] + 8, max_num_seqs=max(asked["concurrency"]),
        kv_cache_memory_bytes=asked["cache"] << 30, gpu_memory_utilization=0.3,  # others are there too
        tensor_parallel_size=asked["tensor_parallel"],
    )  # fmt: skip
    _engines.append(engine)
    return round(time.monotonic() - began, 1)


def generate(requests: int, tokens: int, asked: Mapping[str, Any]) -> float:
    """Seconds for so many requests of so many tokens."""
    import torch
    from vllm import SamplingParams

    (engine,) = _engines
    vocabulary = min(engine.llm_engine.model_config.get_vocab_size(), 30_000)
    prompts = torch.randint(10, vocabulary, (requests, asked["input"])).tolist()
    settings = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    began = time.perf_counter()
    answers = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], settings, use_tqdm=False)
    spent = time.perf_counter() - began
    assert all(len(answer.outputs[0].token_ids) == tokens for answer in answers)
    return spent


def one_round(requests: int, asked: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds to the first token of each, and of whole answers."""
    return generate(requests, 1, asked), generate(requests, asked["output"], asked)


def gpu_busy(requests: int, asked: Mapping[str, Any]) -> float | None:
    """Milliseconds a token in which kernels ran, after the first token; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    (engine,) = _engines
    spent: list[float] = []
    many = min(PROFILED, asked["output"])
    for tokens in (1, many):
        engine.collective_rpc(begin_profile)
        generate(requests, tokens, asked)
        spent.append(max(engine.collective_rpc(end_profile)))
    milliseconds: float = (spent[1] - spent[0]) / (many - 1) / 1e3
    return round(milliseconds, 3)


def measured(rounds: list[tuple[float, float]], requests: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the rounds of one model say."""
    first, whole = (statistics.median(times) for times in zip(*rounds, strict=True))
    return {
        "tokens_per_second": round(requests * asked["output"] / whole, 1),
        "first_token_ms": round(1e3 * first, 2),
        "between_tokens_ms": round(1e3 * (whole - first) / (asked["output"] - 1), 3),
        "rounds_seconds": [round(spent, 4) for _, spent in rounds],
    }


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
    parser.add_argument("--cache", type=int, default=4, help="GiB for keys and values, of each model")
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
    processes = {name: ProcessPoolExecutor(1, get_context("spawn")) for name in folders}
    starting = {name: processes[name].submit(start, folder, given) for name, folder in folders.items()}
    for name, folder in folders.items():
        try:
            ready = starting[name].result()
        except Exception as error:  # whatever a server ends with: the others are still measured
            result.setdefault("failed", {})[name] = " ".join(str(error).split())[:500]
        else:
            nbytes = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
            result["models"][name] = {"checkpoint_bytes": nbytes, "ready_seconds": ready, "concurrency": {}}
    for requests in given["concurrency"] if result["models"] else ():
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in result["models"]}
        for _ in range(given["rounds"] + 1):
            for name, done in rounds.items():
                done.append(processes[name].submit(one_round, requests, given).result())
        for name, done in rounds.items():
            found = measured(done[1:], requests, given)
            try:
                found["gpu_busy_ms"] = processes[name].submit(gpu_busy, requests, given).result()
            except Exception as error:  # a profiler that is not there: the rounds count all the same
                found["gpu_busy_failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            result["models"][name]["concurrency"][str(requests)] = found
            print(name, requests, json.dumps(found), flush=True)
        result["tokens_per_second_over_first"] = with_ratios(result["models"])
        write_whole(out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result.get("tokens_per_second_over_first")), json.dumps(result.get("failed", {})), flush=True)
    return int("failed" in result)


if __name__ == "__main__":
    sys.exit(main())
