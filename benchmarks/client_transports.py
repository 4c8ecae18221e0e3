"""Processor time of an item over different HTTP clients, at several numbers of requests in flight.

python -m benchmarks.client_transports --out benchmarks/results/client_transports.json

As benchmarks/client_cost.py, with harness/endpoint/connections.py (`spread`) in turns with what could take its place:
one pool of httpx, openai's own client over aiohttp (needs openai[aiohttp]), and one pool of httpx2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import httpx
import openai

from benchmarks.client_cost import on_one_core, scripted_server
from benchmarks.suite_run import ask_suite, make_workload, rounded, versions
from harness.endpoint import client
from harness.endpoint.connections import SpreadClient
from harness.serving.hardware import detect

PACKAGES = ("httpx2", "httpx-aiohttp")


def one_pool(connections: int, trust_env: bool = True, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
    """What httpx does by itself."""
    return httpx.AsyncClient(trust_env=trust_env, limits=httpx.Limits(max_connections=None))


def aiohttp(connections: int, trust_env: bool = True, auth: httpx.Auth | None = None) -> httpx.AsyncClient:
    """openai's client over aiohttp; without a number it would keep to 100 connections."""
    return openai.DefaultAioHttpClient(trust_env=trust_env, limits=httpx.Limits(max_connections=connections))


def httpx2(connections: int, trust_env: bool = True, auth: httpx.Auth | None = None) -> Any:
    """The next httpx, which openai takes as well. Its errors are not httpx's: only for a server that never fails."""
    import httpx2

    return httpx2.AsyncClient(trust_env=trust_env, limits=httpx2.Limits(max_connections=None))


WAYS: dict[str, Callable[..., Any]] = {"spread": SpreadClient, "aiohttp": aiohttp, "httpx2": httpx2, "one": one_pool}


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_transports", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[32, 256, 512])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--items", type=int, default=1000, help="word problems, at most 1000")
    parser.add_argument("--tokens", type=int, default=512, help="of an answer")
    parser.add_argument("--seconds", type=float, default=0.5, help="from a request to its answer, on the server")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    words = ["python -m benchmarks.client_transports", *(sys.argv[1:] if arguments is None else arguments)]
    found = {
        "command": " ".join(words),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "python": platform.python_version(), **detect().record()},
        "versions": versions() | {name: _version(name) for name in PACKAGES},
        "answer_tokens": asked.tokens,
        "answer_seconds": asked.seconds,
        "cpu_ms_per_request": {str(number): measure(asked, number) for number in asked.in_flight},
        "load_average": os.getloadavg()[0],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(rounded(found), indent=1) + "\n", "utf-8")
    return 0


def measure(asked: argparse.Namespace, in_flight: int) -> dict[str, Any]:
    """By way: the median and every round, in milliseconds. Raises RunFailed: the server does not answer."""
    costs: dict[str, list[float]] = {way: [] for way in asked.ways}
    with tempfile.TemporaryDirectory() as name, scripted_server(asked.tokens, asked.seconds) as url, on_one_core():
        folder = Path(name)
        work = make_workload("word_problems", asked.items, asked.tokens + 1, in_flight, folder)
        for number in range(-1, asked.rounds):  # the first one loads what is loaded once
            for way in asked.ways:
                with mock.patch.object(client, "SpreadClient", WAYS[way]):
                    figures = asyncio.run(ask_suite(work, url, "m", folder / f"{way}{number}"))
                costs[way] += [figures.cpu_ms_per_request or 0.0] if number >= 0 else []
            print(f"{in_flight} in flight, round {number + 1}", file=sys.stderr)
    return {way: {"median": median(cost), "rounds": cost} for way, cost in costs.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
