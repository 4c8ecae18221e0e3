"""What both measurements of the client do: make a suite's items and ask one server all of them, as the gate does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from harness import __version__
from harness.contract.errors import RunFailed
from harness.contract.items import ItemRef, index_items, load_item, write_items
from harness.contract.policy import SealedPolicy, parse_policy
from harness.contract.samples import PairKey, SampleLog
from harness.endpoint.client import Endpoint
from harness.gate.job import order_items
from harness.gate.suite_runner import run_suite
from harness.judging.early_stop import EarlyStop
from harness.runs.progress import Meter
from suites.cot.suite import Cot, CotConfig

POLICY = """
name: client
serving: {{max_model_len: 4096}}
sampling: {{temperature: 0.0, max_tokens: {max_tokens}}}
requests: {{concurrency: {concurrency}}}
suites:
  cot: {{tasks: {{{task}: {{limit: {items}}}}}}}
checks:
  - {{metric: accuracy, on: cot/*, max_loss: 3 points, floor: 0.2, stop: sequential}}
  - {{metric: truncated_rate, on: cot/*, max_increase: 3 points, ceiling: 0.10, stop: sequential}}
  - {{metric: looped_rate, on: cot/*, max_increase: 3 points, stop: sequential}}
"""
"""The checks that the policy `ci` makes of cot."""


@dataclass(frozen=True)
class Figures:
    """One pass over all prompts. The window is from the first request to the last answer."""

    requests: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    output_tokens_per_second: float
    p50_seconds: float
    """Half of all answers took at most this long, from sending the request."""
    p99_seconds: float
    cpu_ms_per_request: float | None = None
    """Processor time of the client, where it was this process."""


def figures(
    prompt_tokens: int, output_tokens: int, seconds: float, latencies: Sequence[float], cpu_seconds: float
) -> Figures:
    """Figures of one pass of this process. `latencies` in seconds, one for each answer."""
    p50, p99 = np.percentile(latencies, [50, 99])
    return Figures(
        len(latencies),
        prompt_tokens,
        output_tokens,
        seconds,
        output_tokens / seconds,
        float(p50),
        float(p99),
        1000 * cpu_seconds / len(latencies),
    )


@dataclass(frozen=True)
class Workload:
    """A suite with one task, its items on disk and in the order in which they are asked."""

    suite: Cot
    sealed: SealedPolicy
    path: Path
    refs: list[ItemRef]


def make_workload(task: str, items: int, max_tokens: int, concurrency: int, folder: Path) -> Workload:
    """Items go to `folder`. Raises BadInput: the task's data is not there."""
    text = POLICY.format(task=task, items=items, max_tokens=max_tokens, concurrency=concurrency)
    sealed = parse_policy(text, "of the benchmark")
    suite = Cot(CotConfig.model_validate(sealed.policy.suites["cot"]), sealed.policy.sampling, folder)
    path = folder / f"{task}.jsonl"
    write_items(path, suite.items(None))  # cot's prompts need no tokenizer
    refs = order_items(suite, index_items(path), sealed)["reference"]
    return Workload(suite, sealed, path, refs)


def make_endpoint(work: Workload, url: str, model: str) -> Endpoint:
    return Endpoint(url, model, work.sealed.policy.requests, work.sealed.policy.sampling)


async def ask_suite(work: Workload, url: str, model: str, samples: Path) -> Figures:
    """Ask every item once, as one role of a gate: prompts from disk, samples scored and appended to `samples`.

    Raises:
        RunFailed: the server fails, or a sample has an error: that is no measurement.
    """
    planned: dict[PairKey, str | None] = {ref.pair(work.suite.name): ref.prompt_sha256 for ref in work.refs}
    stop = EarlyStop(work.sealed.policy, planned, work.sealed.sha256)
    meter, load = Meter("cot", len(work.refs)), partial(load_item, work.path)
    async with make_endpoint(work, url, model) as endpoint:
        with closing(SampleLog(samples)) as log:
            cpu, start = time.process_time(), time.monotonic()
            await run_suite(
                work.suite,
                {"reference": work.refs},
                load,
                {"reference": endpoint},
                log,
                stop,
                work.sealed.policy.requests.concurrency,
                meter,
            )
            seconds, cpu = time.monotonic() - start, time.process_time() - cpu
            found = list(log.samples())
    if wrong := next((sample.error for sample in found if sample.error), None):
        raise RunFailed(f"a sample has an error: {wrong}")
    tokens = [(sample.prompt_tokens or 0, sample.completion_tokens or 0) for sample in found]
    return figures(sum(p for p, _ in tokens), sum(c for _, c in tokens), seconds, [s.seconds for s in found], cpu)


def versions() -> dict[str, str | None]:
    """Of what the client is made of; None for what is not installed."""
    found: dict[str, str | None] = {"quantgate": __version__}
    for name in ("openai", "httpx", "httpcore", "aiohttp", "lm-eval", "vllm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def rounded(value: Any) -> Any:
    """Floats with five digits: what is measured is not known better."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value
