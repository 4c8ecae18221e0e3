"""What a gate of very many items takes: requests a second and memory, and seconds to judge and show.

    python -m benchmarks.scale --out benchmarks/results/scale.json

No model: a server of its own process answers after a set delay (benchmarks/scripted_server.py). Items are asked through
the gate's own runner, endpoint and log, both roles at the same time, of a suite that scores as `cot` does but makes its
items from a counter. Each size is asked in a process of its own, so that the peak of memory is of that size alone; so
is judging and rendering of a made-up run with texts (benchmarks/report_samples.py).
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
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_memory
from benchmarks.scripted_server import TEXT
from benchmarks.suite_run import rounded, versions
from harness.contract.chat import Messages
from harness.contract.items import index_items, load_item, write_items
from harness.contract.policy import parse_policy
from harness.contract.samples import Item, PairKey, Role, Sample, SampleLog
from harness.endpoint.client import Completion, Endpoint
from harness.gate.job import order_items
from harness.gate.suite_runner import run_suite
from harness.judging.early_stop import EarlyStop
from harness.runs.progress import Meter
from harness.serving.hardware import detect
from suites.base import ChatSuite, make_item, make_sample
from suites.readings.final_numbers import final_number

ROOT = Path(__file__).parents[1]
POLICY = """
name: scale
sampling: {{max_tokens: 512}}
requests: {{concurrency: {concurrency}}}
suites: {{counted: {{}}}}
checks:
  - {{metric: accuracy, on: counted/*, max_loss: 1 point}}
  - {{metric: truncated_rate, on: counted/*, max_increase: 1 point, ceiling: 0.05}}
"""


class Counted(ChatSuite):
    """As many short questions as are wanted; an answer's number is read as of any other suite."""

    name = "counted"
    context_needed = 1024
    max_tokens = 512

    def __init__(self, count: int) -> None:
        self._count = count

    def items(self, tokenizer: object) -> Iterator[Item]:
        for number in range(self._count):
            question = f"Question {number}: Maya picks {number % 89} and {number % 61} apples. How many has she?"
            yield make_item("sums", f"{number:06d}", [{"role": "user", "content": question}], str(number % 150))

    def score(self, item: Item, role: Role, completion: Completion) -> Sample:
        found = final_number(completion.text)
        return make_sample(self.name, item, role, completion, score=float(found == item.target), answer=found)


class Instant(Endpoint):
    """Answers without any server: what is left is the memory of items, runner, scoring and log, and their time."""

    async def chat(self, messages: Messages, max_tokens: int | None = None, **options: Any) -> Completion:
        await asyncio.sleep(0)
        return Completion(TEXT * 2, "", "stop", 40, 64, [], [], 0.0, "instant")


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--pairs", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=0.5, help="from a request to its answer")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--beside", default="", help="what else ran on the machine, for the record")
    parser.add_argument("--instant", type=int, nargs="*", default=[10_000, 100_000], help="items without a server")
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--urls", nargs="*", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=("judge", "render"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.ask:
        print(json.dumps(asyncio.run(ask(asked.ask, asked.urls, asked.concurrency))))
        return 0
    if asked.run:
        print(json.dumps(judged(asked.run) if asked.step == "judge" else shown(asked.run)))
        return 0
    words = ["python -m benchmarks.scale", *(sys.argv[1:] if arguments is None else arguments)]
    found = {"command": " ".join(words), **measure(asked)}
    said = json.dumps(rounded(found), indent=1) + "\n"
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(said, "utf-8")
    print(said, end="")
    return 0


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Every size, one after the other."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "versions": versions(),
        "beside": asked.beside,
        "concurrency": asked.concurrency,
        "server_seconds": asked.seconds,
        "answer_tokens": asked.tokens,
        "asking": [_asked(count, asked) for count in asked.items],
        "without_a_server": [_child(["--ask", count, "--concurrency", asked.concurrency]) for count in asked.instant],
        "judging": [_judged(count) for count in asked.pairs],
    }


# -- asking ---------------------------------------------------------------------------------------------------------


def _asked(count: int, asked: argparse.Namespace) -> dict[str, Any]:
    with _server(asked) as reference, _server(asked) as candidate:
        options = ["--ask", count, "--urls", reference, candidate, "--concurrency", asked.concurrency]
        return _child(options) | {"load_average": round(os.getloadavg()[0], 2)}


@contextmanager
def _server(asked: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.scripted_server", "--tokens", asked.tokens, "--seconds", asked.seconds]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


async def ask(count: int, urls: list[str], concurrency: int) -> dict[str, Any]:
    """Ask so many items of both roles: requests a second, and the memory of this process at its peak."""
    sealed = parse_policy(POLICY.format(concurrency=concurrency))
    suite, loaded = Counted(count), peak_memory()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "items.jsonl"
        write_items(path, suite.items(None))
        items = order_items(suite, index_items(path), sealed)
        planned: dict[PairKey, str | None] = {ref.pair(suite.name): ref.prompt_sha256 for ref in items["reference"]}
        stop, before = EarlyStop(sealed.policy, planned, sealed.sha256), peak_memory()
        policy = sealed.policy
        made, (first, second) = (Endpoint, urls) if urls else (Instant, ["http://127.0.0.1:1", "http://127.0.0.1:2"])
        async with (
            made(first, "m", policy.requests, policy.sampling) as reference,
            made(second, "m", policy.requests, policy.sampling) as candidate,
        ):
            endpoints: dict[Role, Endpoint] = {"reference": reference, "candidate": candidate}
            with closing(SampleLog(Path(name) / "samples.jsonl")) as log:
                start, used = time.monotonic(), time.process_time()
                load = partial(load_item, path)
                meter = Meter("counted", 2 * count)
                await run_suite(suite, items, load, endpoints, log, stop, concurrency, meter)
                seconds, used = time.monotonic() - start, time.process_time() - used
                answered = sum(sample.error is None for sample in log.samples())
    return {
        "items": count,
        "requests": 2 * count,
        "without_error": answered,
        "seconds": seconds,
        "requests_per_second": 2 * count / seconds,
        "processor_ms_per_request": 1000 * used / (2 * count),
        "loaded_memory_mib": loaded,
        "planned_memory_mib": before,
        "peak_memory_mib": peak_memory(),
    }


# -- judging and showing ----------------------------------------------------------------------------------------------


def _judged(pairs: int) -> dict[str, Any]:
    from benchmarks.report_samples import make_run

    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        written = make_run(run, pairs)
        judge = _child(["--run", run, "--step", "judge"])
        render = _child(["--run", run, "--step", "render"])
    return {"pairs": pairs, "sample_bytes": written, "judge": judge, "render": render, "load": os.getloadavg()[0]}


def judged(run: Path) -> dict[str, Any]:
    """Judge a stored run in this process."""
    from harness.gate.pipeline import judge_run
    from harness.runs.folder import RunFolder

    return _timed(lambda: judge_run(RunFolder(run)))


def shown(run: Path) -> dict[str, Any]:
    """Render it in this process."""
    from reports.render import render

    return _timed(lambda: render(run))


def _timed(act: Any) -> dict[str, Any]:
    loaded, start, used = peak_memory(), time.monotonic(), time.process_time()
    act()
    return {
        "seconds": time.monotonic() - start,
        "processor_seconds": time.process_time() - used,
        "loaded_memory_mib": loaded,
        "peak_memory_mib": peak_memory(),
    }


def _child(options: list[Any]) -> dict[str, Any]:
    """What a process of its own has measured."""
    command = [sys.executable, "-m", "benchmarks.scale", *map(str, options)]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(said.stdout)
    print(f"{' '.join(map(str, options))}: {rounded(found)}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())
