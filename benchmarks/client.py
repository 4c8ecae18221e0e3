"""Does our client keep a server as busy as `vllm bench serve` does?

python -m benchmarks.client --url http://127.0.0.1:8000 --model NAME --tokenizer FOLDER --out client.json

Three ways to ask one server the same prompts with the same sampling, in turn: the suite as a gate runs it, `vllm bench
serve`, and a client that does nothing but send and read (what the server gives at most when answers are not streamed).
A first pass of the suite is not counted: after it the prompts are in the server's prefix cache, for all three alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.suite_run import Figures, Workload, ask_suite, figures, make_workload, rounded, versions
from harness.contract.errors import BadInput, RunFailed
from harness.contract.items import load_item
from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.serving.hardware import detect

WAYS = ("suite", "bench", "bare")
DIFFERENCES = (
    "suite and bare: max_tokens, return_token_ids: true, one JSON answer",
    "bench: max_completion_tokens, a stream of chunks with usage at its end, the question as a list of one text part",
)


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--url", required=True, help="root of a running server, without /v1")
    parser.add_argument("--model", required=True, help="the name it is served under")
    parser.add_argument("--tokenizer", required=True, help="folder of the model's tokenizer, for vllm bench serve")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", help="of cot; word_problems, and gsm8k where QUANTGATE_DATA has it")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--items", type=int, default=1024, help="first items of each task")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--server", default="", help="how the server was started, for the record")
    asked = parser.parse_args(arguments)
    words = ["python -m benchmarks.client", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        found = {"command": " ".join(words), **measure(asked)}
    except (BadInput, RunFailed) as error:
        print(f"benchmarks.client: {error}", file=sys.stderr)
        return 4
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(rounded(found), indent=1) + "\n", "utf-8")
    return 0


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all tasks, with what they were made on. Raises BadInput or RunFailed."""
    data = os.environ.get("QUANTGATE_DATA")
    there = bool(data) and (Path(data or "") / "gsm8k" / "test.jsonl").exists()
    tasks = asked.tasks or ["word_problems", *(["gsm8k"] if there else [])]
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "versions": versions() | {"server": asyncio.run(server_version(asked.url))},
        "server": asked.server,
        "concurrency": asked.concurrency,
        "max_tokens": asked.max_tokens,
        "sampling": sampling_of(asked.max_tokens),
        "requests_differ_in": list(DIFFERENCES),
        "tasks": {},
    }
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            work = make_workload(task, asked.items, asked.max_tokens, asked.concurrency, Path(folder))
            rounds = all_rounds(work, asked, Path(folder))
        found["tasks"][task] = {**summary(rounds), "rounds": [{w: asdict(r[w]) for w in r} for r in rounds]}
    return found


def all_rounds(work: Workload, asked: argparse.Namespace, folder: Path) -> list[dict[str, Figures]]:
    """Every round asks in all three ways; the order is turned round each time, so that none is always first."""
    prompts = folder / "prompts.jsonl"
    write_prompts(work, prompts)
    ways = {
        "suite": lambda name: asyncio.run(ask_suite(work, asked.url, asked.model, folder / f"{name}.samples")),
        "bench": lambda name: bench_serve(work, asked, prompts, folder / f"{name}.json"),
        "bare": lambda name: asyncio.run(ask_bare(work, asked.url, asked.model)),
    }
    ways["suite"]("first")
    rounds = []
    for number in range(asked.rounds):
        order = WAYS if number % 2 else tuple(reversed(WAYS))
        found = {way: ways[way](str(number)) for way in order}
        require_same_prompts(found)
        rounds.append(found)
        speeds = ", ".join(f"{way} {found[way].output_tokens_per_second:.0f} tok/s" for way in WAYS)
        print(f"{work.refs[0].task}, round {number + 1}: {speeds}", file=sys.stderr)
    return rounds


def require_same_prompts(found: Mapping[str, Figures]) -> None:
    """Raises RunFailed: the server did not see the same prompts in every way of asking."""
    if len({(f.requests, f.prompt_tokens) for f in found.values()}) > 1:
        seen = ", ".join(f"{way} {f.requests} with {f.prompt_tokens} tokens" for way, f in found.items())
        raise RunFailed(f"the prompts were not the same: {seen}")


def summary(rounds: Sequence[Mapping[str, Figures]]) -> dict[str, Any]:
    """Output tok/s of each way over all rounds, and the suite's share of the other two."""
    speed = {w: sum(r[w].output_tokens for r in rounds) / sum(r[w].seconds for r in rounds) for w in WAYS}
    return {
        "output_tokens_per_second": speed,
        "suite_to_bench": speed["suite"] / speed["bench"],
        "suite_to_bare": speed["suite"] / speed["bare"],
        "suite_to_bench_by_round": [
            r["suite"].output_tokens_per_second / r["bench"].output_tokens_per_second for r in rounds
        ],
    }


# -- the other two clients ------------------------------------------------------------------------------------------


def sampling_of(max_tokens: int) -> dict[str, Any]:
    """The sampling parameters of every request, in all three ways; ignore_eos is false, the server's default."""
    return Sampling(temperature=0.0, max_tokens=max_tokens).model_dump(exclude={"max_tokens"})


def questions(work: Workload) -> list[str]:
    """The prompts in the order of asking. Raises BadInput: one that `vllm bench serve` cannot send."""
    prompts = [load_item(work.path, ref).prompt for ref in work.refs]
    for ref, prompt in zip(work.refs, prompts, strict=True):
        if len(prompt) != 1 or prompt[0]["role"] != "user" or not isinstance(prompt[0]["content"], str):
            raise BadInput(f"{ref.task}/{ref.item} is not one question; vllm bench serve asks only such")
    return [prompt[0]["content"] for prompt in prompts]


def write_prompts(work: Workload, path: Path) -> None:
    lines = [json.dumps({"prompt": question}) for question in questions(work)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def bench_serve(work: Workload, asked: argparse.Namespace, prompts: Path, result: Path) -> Figures:
    """Run `vllm bench serve` of the vLLM that is installed here. Raises RunFailed: it fails, or a request of it."""
    command = bench_command(asked, len(work.refs), prompts, result)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode or not result.exists():
        raise RunFailed(f"vllm bench serve ended with {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return read_bench(json.loads(result.read_text("utf-8")), len(work.refs))


def bench_command(asked: argparse.Namespace, items: int, prompts: Path, result: Path) -> list[str]:
    """Flags that vLLM 0.26 and 0.32 know alike. Shuffling is off: both clients ask in one order."""
    options: dict[str, Any] = {
        "backend": "openai-chat",
        "base-url": asked.url,
        "endpoint": "/v1/chat/completions",
        "model": asked.model,
        "tokenizer": asked.tokenizer,
        "dataset-name": "custom",
        "dataset-path": prompts,
        "custom-output-len": asked.max_tokens,
        "num-prompts": items,
        "max-concurrency": asked.concurrency,
        "request-rate": "inf",
        "extra-body": json.dumps(sampling_of(asked.max_tokens)),
        "percentile-metrics": "e2el",
        "metric-percentiles": "50,99",
        "result-dir": result.parent,
        "result-filename": result.name,
    }
    switches = ["--skip-chat-template", "--disable-shuffle", "--save-result", "--disable-tqdm"]
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve", *given, *switches]


def read_bench(result: Mapping[str, Any], items: int) -> Figures:
    """Figures of a result file of `vllm bench serve`. Raises RunFailed: requests are missing or failed."""
    try:
        completed, failed = int(result["completed"]), int(result["failed"])
        if completed != items or failed:
            raise RunFailed(f"vllm bench serve: {completed} of {items} requests completed, {failed} failed")
        tokens, seconds = int(result["total_output_tokens"]), float(result["duration"])
        return Figures(
            requests=completed,
            prompt_tokens=int(result["total_input_tokens"]),
            output_tokens=tokens,
            seconds=seconds,
            output_tokens_per_second=tokens / seconds,
            p50_seconds=float(result["p50_e2el_ms"]) / 1000,
            p99_seconds=float(result["p99_e2el_ms"]) / 1000,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise RunFailed(f"the result of vllm bench serve cannot be read: {error!r}") from None


async def ask_bare(work: Workload, url: str, model: str) -> Figures:
    """Send the suite's requests and read the bytes of the answers. Raises RunFailed: an answer that is none."""
    sampling = work.sealed.policy.sampling.model_dump()
    bodies = [
        {"model": model, "messages": [{"role": "user", "content": text}], "return_token_ids": True, **sampling}
        for text in reversed(questions(work))
    ]
    answers: list[bytes] = []
    latencies: list[float] = []
    concurrency = work.sealed.policy.requests.concurrency

    async def worker(session: aiohttp.ClientSession) -> None:
        while bodies:
            body, sent = bodies.pop(), time.monotonic()
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                answers.append(await response.read())
            latencies.append(time.monotonic() - sent)

    connector, timeout = aiohttp.TCPConnector(limit=concurrency), aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        cpu, start = time.process_time(), time.monotonic()
        try:
            await asyncio.gather(*(worker(session) for _ in range(concurrency)))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RunFailed(f"no answer from {url}: {error!r}") from None
        seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    try:
        usages = [json.loads(answer)["usage"] for answer in answers]
        prompt_tokens = sum(usage["prompt_tokens"] for usage in usages)
        output_tokens = sum(usage["completion_tokens"] for usage in usages)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFailed(f"{url} gave an answer without usage: {error!r}") from None
    return figures(prompt_tokens, output_tokens, seconds, latencies, cpu)


async def server_version(url: str) -> str:
    """Raises RunFailed: no vLLM there."""
    async with Endpoint(url, "", Requests(), Sampling()) as endpoint:
        try:
            return str((await endpoint.get_json("/version")).get("version"))
        except EndpointError as error:
            raise RunFailed(f"no usable server at {url}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
