"""What the client itself costs: processor time of an item, and how many items a second one core can ask.

python -m benchmarks.client_cost --out benchmarks/results/client_cost.json

No model: benchmarks/scripted_server.py answers, in a process of its own on another core. Three ways in turn: the suite
as a gate runs it, the same with all connections in one pool (what httpx does by itself), and a bare client.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks.client import ask_bare
from benchmarks.suite_run import Figures, ask_suite, make_workload, rounded, versions
from harness.endpoint import connections
from harness.serving.hardware import detect

ROOT = Path(__file__).parents[1]


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_cost", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--items", type=int, default=1000, help="word problems, at most 1000")
    parser.add_argument("--tokens", type=int, default=512, help="of an answer")
    parser.add_argument("--seconds", type=float, default=0.5, help="from a request to its answer, on the server")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    words = ["python -m benchmarks.client_cost", *(sys.argv[1:] if arguments is None else arguments)]
    found = {"command": " ".join(words), **measure(asked)}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(rounded(found), indent=1) + "\n", "utf-8")
    return 0


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All rounds, with what they were made on. Raises RunFailed: the server does not answer."""
    rounds: list[dict[str, Figures]] = []
    with tempfile.TemporaryDirectory() as name, scripted_server(asked.tokens, asked.seconds) as url, on_one_core():
        folder = Path(name)
        work = make_workload("word_problems", asked.items, asked.tokens + 1, asked.concurrency, folder)
        for number in range(-1, asked.rounds):  # the first one loads what is loaded once
            found = {"suite": asyncio.run(ask_suite(work, url, "m", folder / f"suite{number}"))}
            with mock.patch.object(connections, "SMALL", asked.concurrency):
                found["suite_with_one_pool"] = asyncio.run(ask_suite(work, url, "m", folder / f"one{number}"))
            found["bare"] = asyncio.run(ask_bare(work, url, "m"))
            rounds += [found] if number >= 0 else []
            costs = ", ".join(f"{way} {f.cpu_ms_per_request:.2f} ms" for way, f in found.items())
            print(f"round {number + 1}: {costs}", file=sys.stderr)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "load_average": os.getloadavg()[0],
        "versions": versions(),
        "concurrency": asked.concurrency,
        "answer_tokens": asked.tokens,
        "answer_seconds": asked.seconds,
        **summary(rounds),
        "rounds": [{way: asdict(found[way]) for way in found} for found in rounds],
    }


def summary(rounds: Sequence[dict[str, Figures]]) -> dict[str, Any]:
    """Median cost of each way, and the requests a second at which one core has nothing left."""
    cost = {way: median(r[way].cpu_ms_per_request or 0.0 for r in rounds) for way in rounds[0]}
    return {"cpu_ms_per_request": cost, "requests_per_second_of_a_core": {way: 1000 / ms for way, ms in cost.items()}}


@contextmanager
def scripted_server(tokens: int, seconds: float) -> Iterator[str]:
    """The URL of a running benchmarks/scripted_server.py, on the last of our cores."""
    command = [sys.executable, "-m", "benchmarks.scripted_server", "--tokens", str(tokens), "--seconds", str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin and server.stdout
        os.sched_setaffinity(server.pid, {max(os.sched_getaffinity(0))})
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process on the first of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    sys.exit(main())
