"""Speed: output tokens per second and time to first token, of `vllm bench serve` against each role in turn.

Both roles are sent the same random prompts (the tokenizer's ids in a row: text without sense, so drafts are accepted
seldom) and write answers of a set length. A task is a number of concurrent requests, an item is a round with prompts
of its own. Samples have no score; their metrics are those of METRICS below. What the benchmark wrote is in the suite's
folder: <task>-<item>.<role>.json and bench.log.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.contract.chat import Tokenizer
from harness.contract.errors import BadInput
from harness.contract.names import file_in
from harness.contract.samples import Item, Role, Sample, sample_of, sha256_of
from harness.contract.secrets import without_secrets
from harness.contract.settings import Sampling
from harness.endpoint.client import Endpoint, EndpointError
from harness.endpoint.counters import counter
from harness.serving.forked_module import ForkedModule
from suites.base import Distinct, Suite, SuiteConfig

MODULE = "vllm.entrypoints.cli.main"
BENCH = ("bench", "serve")
IMPORTS = ("bench", "--help")
"""Arguments with which MODULE imports what BENCH needs, and ends. Not those of BENCH: with these vLLM may become its
benchmark in Rust at once."""

METRICS = {
    "tokens_per_second": "output_throughput",
    "total_tokens_per_second": "total_token_throughput",
    "requests_per_second": "request_throughput",
    "ttft_p50_ms": "p50_ttft_ms",
    "ttft_p99_ms": "p99_ttft_ms",
    "tpot_p50_ms": "p50_tpot_ms",
    "completed": "completed",
    "failed": "failed",
    "input_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
}
"""A sample's metrics by the benchmark's own names (vLLM 0.26 to 0.32). tokens_per_second: of all answers together, from
the first request to the last answer. ttft: time to the first token, queueing in the server included. tpot: time of
each token after it. Beside these there is `cached_tokens`: prompt tokens that came out of the prefix cache, warm-up
included, where the server counts them."""

SLACK_TOKENS = 32
"""A tokenizer may make a few more tokens of a text that was decoded from its own ids."""

MOST_CACHED = 0.1
"""Share of the prompt tokens that may come out of the prefix cache: more is another test."""

MOST_ROUNDS = 1000
MOST_CONCURRENCY = 4096
SEED_STEP = 10_000_019
"""More than MOST_CONCURRENCY x MOST_ROUNDS: no two measurements of a server, noise floor included, share a seed. Drawn
ones may, and then the second finds its prompts in the prefix cache."""

HITS = "vllm:prefix_cache_hits_total"


class SpeedConfig(SuiteConfig):
    """`speed` in a policy."""

    concurrency: Distinct[Annotated[int, Field(ge=1, le=MOST_CONCURRENCY)]] = (1, 8, 32)
    """Requests in flight; above serving.max_num_seqs they queue in the server."""
    rounds: int = Field(15, ge=1, le=MOST_ROUNDS)
    """Measurements of each concurrency and role. Of n pairs the bound of speed_ratio lies at 0.05^(1/n) of the ratio or
    below (`resampling.ratio_interval`): n = 8 can show `min: 0.68` of a candidate as fast as its reference in
    each, 15 `min: 0.8`, 30 `min: 0.9`, and more are needed where they scatter; `on: speed` pools all concurrencies,
    `on: speed/*` does not."""
    waves: int = Field(4, ge=1)
    """Requests of a measurement for each one in flight."""
    warmups: int = Field(2, ge=0)
    """Requests before each measurement that are not counted."""
    input_tokens: int = Field(512, ge=8)
    output_tokens: int = Field(128, ge=2)
    timeout_seconds: float = Field(1800, gt=0)
    """Of one measurement."""
    seed: int = 42


@dataclass(frozen=True)
class Load:
    """What one measurement sends; an item's data."""

    concurrency: int
    requests: int
    warmups: int
    input_tokens: int
    output_tokens: int
    seed: int


class Speed(Suite):
    """The suite. One measurement at a time, the roles in turn."""

    name = "speed"
    alternates = True

    def __init__(self, config: SpeedConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._bench = ForkedModule(MODULE, IMPORTS)

    @property
    def tasks(self) -> Sequence[str]:
        return [f"c{concurrency}" for concurrency in self._config.concurrency]

    @property
    def context_needed(self) -> int:
        return self._config.input_tokens + self._config.output_tokens + SLACK_TOKENS

    def require(self) -> None:
        """Raises BadInput: `vllm bench serve` is not installed here."""
        if importlib.util.find_spec("vllm") is None:
            raise BadInput(
                "suite speed runs `vllm bench serve`, and vLLM is not installed here: run `make`, or leave it out"
            )

    def items(self, tokenizer: Tokenizer | None) -> Iterator[Item]:
        """Loads; the benchmark makes their prompts."""
        config = self._config
        for round_ in range(min(config.rounds, config.limit or config.rounds)):
            for concurrency in config.concurrency:
                load = Load(
                    concurrency=concurrency,
                    requests=config.waves * concurrency,
                    warmups=config.warmups,
                    input_tokens=config.input_tokens,
                    output_tokens=config.output_tokens,
                    seed=config.seed * SEED_STEP + concurrency * MOST_ROUNDS + round_,
                )
                data = asdict(load)
                yield Item(
                    task=f"c{concurrency}", item=f"r{round_:02d}", prompt=[], prompt_sha256=sha256_of(data), data=data
                )

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """One measurement.

        Raises:
            EndpointError: it failed, or was not the one that was asked for.
            BadInput: there is no tokenizer to make prompts with.
        """
        load = Load(**item.data)
        self._folder.mkdir(parents=True, exist_ok=True)
        result = file_in(self._folder, f"{item.task}-{item.item}", f".{role}.json")
        result.unlink(missing_ok=True)
        hits = counter(await endpoint.metrics(), HITS)
        start = time.monotonic()
        await run_bench(
            self._bench,
            bench_arguments(load, endpoint, result),
            endpoint,
            self._folder / "bench.log",
            self._config.timeout_seconds,
        )
        metrics = read_figures(result)
        _count(endpoint, load, metrics)
        _require_as_asked(endpoint, load, metrics)
        hits_after = counter(await endpoint.metrics(), HITS)
        if hits is not None and hits_after is not None:
            metrics["cached_tokens"] = hits_after - hits
            _require_fresh(endpoint, load, metrics["cached_tokens"])
        seconds = round(time.monotonic() - start, 3)
        return sample_of(self.name, item, role, seconds=seconds, metrics=metrics)

    async def end(self) -> None:
        await self._bench.end()


def bench_arguments(load: Load, endpoint: Endpoint, result: Path) -> list[str]:
    """`bench serve` and its flags, with the policy's sampling; the noise floor's other seed gives it other prompts.

    No seed is sent: a seed of its own slows each request's sampling, and nobody serves so.

    Raises:
        BadInput: the endpoint knows no tokenizer.
    """
    if not endpoint.tokenizer_path:
        raise BadInput("suite speed makes its prompts with the model's tokenizer, and that is not on this machine")
    sampling = endpoint.sampling.model_dump(exclude={"max_tokens", "seed"})
    options = {
        "backend": "openai",
        "base-url": endpoint.url,
        "model": endpoint.model,
        "tokenizer": endpoint.tokenizer_path,
        "dataset-name": "random",
        "random-input-len": load.input_tokens,
        "random-output-len": load.output_tokens,
        "num-prompts": load.requests,
        "max-concurrency": load.concurrency,
        "num-warmups": load.warmups,
        "ready-check-timeout-sec": 0,  # it would be a request more
        "seed": (load.seed + endpoint.sampling.seed * SEED_STEP) % 2**32,
        "extra-body": json.dumps(sampling),
        "percentile-metrics": "ttft,tpot",
        "metric-percentiles": "50,99",
        "result-dir": result.parent,
        "result-filename": result.name,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [*BENCH, *flags, "--ignore-eos", "--save-result", "--disable-tqdm"]


async def run_bench(bench: ForkedModule, arguments: list[str], endpoint: Endpoint, log: Path, timeout: float) -> None:
    """Run the benchmark to its end; what it writes is appended to `log`. However this is left, it does not go on.

    Raises:
        EndpointError: it failed or took longer than `timeout` seconds.
    """
    environment = {
        **without_secrets(os.environ),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "OPENAI_API_KEY": endpoint.api_key,
    }
    if endpoint.on_this_machine:  # a proxy must not be asked for it
        environment |= {"NO_PROXY": "*", "no_proxy": "*"}
    start = log.stat().st_size if log.exists() else 0
    try:
        status = await bench.run(arguments, log, timeout, environment)
    except TimeoutError:
        raise EndpointError("timeout", f"{endpoint.url}: `vllm bench serve` took more than {timeout:.0f} s") from None
    if status:
        raise EndpointError(
            "server", f"{endpoint.url}: `vllm bench serve` ended with {status}: {_reason(log, start)} ({log})"
        )


def _reason(log: Path, start: int) -> str:
    """The last line of what the child wrote that speaks of an error."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read()[-100_000:].decode("utf-8", "replace").splitlines()
    said = [line.strip() for line in lines if re.search(r"\b\w*(Error|error|Exception)\b", line)]
    return said[-1][:200] if said else "no reason given"


def read_figures(path: Path) -> dict[str, float]:
    """The figures of a benchmark's result file, under the names of METRICS.

    Raises:
        EndpointError: the file is missing, broken, or a figure is not a finite number that can be.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EndpointError("garbage", f"the benchmark left no usable result in {path.name}: {error}") from None
    if not isinstance(data, dict):
        raise EndpointError("garbage", f"the benchmark left no usable result in {path.name}: not an object")
    found = {}
    for name, theirs in METRICS.items():
        value = data.get(theirs)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:  # false for nan
            raise EndpointError("garbage", f"{path.name}: {theirs} is {str(value)[:40]!r}, not a figure")
        found[name] = float(value)
    return found


def _count(endpoint: Endpoint, load: Load, metrics: Mapping[str, float]) -> None:
    """Note the benchmark's requests as this endpoint's own, so that its server's counters can be held against them."""
    answered = int(metrics["completed"]) + load.warmups
    longest = math.ceil(metrics["input_tokens"] / max(1.0, metrics["completed"])) + load.output_tokens
    endpoint.asked.add(answered, answered * load.output_tokens, longest)


def _require_as_asked(endpoint: Endpoint, load: Load, metrics: Mapping[str, float]) -> None:
    """Raises EndpointError: requests failed, or answers are shorter than asked for."""
    if metrics["failed"] or metrics["completed"] != load.requests:
        said = f"{metrics['completed']:.0f} of {load.requests} requests"
        raise EndpointError("server", f"{endpoint.url} answered {said} of the benchmark")
    if metrics["output_tokens"] != load.requests * load.output_tokens:
        said = f"{metrics['output_tokens']:.0f} tokens in {load.requests} answers of {load.output_tokens}"
        raise EndpointError("budget", f"{endpoint.url} wrote {said}; look for max_new_tokens in generation_config")


def _require_fresh(endpoint: Endpoint, load: Load, cached: float) -> None:
    """Raises EndpointError: the server knew the prompts. The warm-up's prompt is the first one measured, too."""
    allowed = load.warmups + MOST_CACHED * load.requests
    if cached > allowed * load.input_tokens:
        said = f"{cached:.0f} prompt tokens of the benchmark came out of the prefix cache of {endpoint.url}"
        raise EndpointError("refused", f"{said}: it was sent the same before; start it anew, or take another seed")
