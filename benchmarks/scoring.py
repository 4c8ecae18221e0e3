"""How many positions a server scores in a second: over /v1/completions and over our route, in one run.

    vllm serve MODEL --max-logprobs 64 --middleware harness.endpoint.score_route.ScoreRoute
    python -m benchmarks.scoring --url http://127.0.0.1:8000 --out benchmarks/results/scoring.json

Both ways score the same tokens, in turns (plain fast, fast plain, ...), each turn new ones. Before, some lists are
scored alone, where the engine computes the same twice: the numbers must be equal to the bit (`alone_plain_twice` says
whether this engine does so at all). Under load they need not be: the engine batches as requests arrive, and another
batch is rounded otherwise, whichever way is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from harness import __version__
from harness.contract.settings import Requests, Sampling
from harness.endpoint.answers import Scores
from harness.endpoint.client import Endpoint
from harness.serving.hardware import detect

Way = Callable[[list[int], int, int], Awaitable[Scores]]
FIELDS = ("token_ids", "logprobs", "top_ids", "top_logprobs")
ALONE = 3
"""Lists of tokens that are scored one at a time, to compare the numbers."""


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module. 1 when the numbers are not equal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--url", required=True, help="the server's root, without /v1")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON)")
    parser.add_argument("--positions", type=int, default=200_000, help="positions for each way, all turns together")
    parser.add_argument("--length", type=int, default=2048, help="tokens of one request")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--top", type=int, default=64, help="log-probabilities at each position")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--api-key", default="none")
    asked = parser.parse_args(arguments)
    words = ["python -m benchmarks.scoring", *(sys.argv[1:] if arguments is None else arguments)]
    results = {"command": " ".join(words), **asyncio.run(measure(asked))}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(json.dumps({key: results[key] for key in ("positions_per_second", "ratio", "alone", "under_load")}, indent=1))
    return 0 if results["alone"]["equal"] else 1


async def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Score with both ways in turns. Raises EndpointError, and SystemExit when the server has no fast way."""
    requests = Requests(concurrency=asked.concurrency)
    async with Endpoint(asked.url, await _model(asked), requests, Sampling(max_tokens=1), asked.api_key) as endpoint:
        lists = await make_lists(endpoint, asked.length, asked.positions // asked.turns, asked.turns)
        await endpoint.score(lists[0][0], 1, asked.top)  # warms up, and looks for the route
        if not endpoint.packed_scores:
            raise SystemExit(f"{asked.url}: no fast way: serve it with our --middleware (top of this file)")
        ways: dict[str, Way] = {"plain": endpoint._completion_scores, "fast": endpoint._packed_scores}
        alone = [[await way(tokens, 1, asked.top) for way in ways.values()] for tokens in lists[0][:ALONE]]
        again = [
            [pair[0], await ways["plain"](tokens, 1, asked.top)] for pair, tokens in zip(alone, lists[0], strict=False)
        ]
        turns: list[dict[str, Any]] = []
        apart = []
        for turn, part in enumerate(lists):
            order = list(ways) if turn % 2 == 0 else list(ways)[::-1]
            found = {name: await timed(ways[name], part, asked.top) for name in order}
            turns.append({name: found[name][0] for name in ways} | {"first": order[0]})
            apart += [compare(*pair) for pair in zip(found["plain"][1], found["fast"][1], strict=True)]
            print(json.dumps(turns[-1]), file=sys.stderr)
        version = (await endpoint.get_json("/version")).get("version")
        fingerprints = sorted(endpoint.fingerprints)
    speeds = {name: statistics.median(turn[name]["positions_per_second"] for turn in turns) for name in ways}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "quantgate_version": __version__,
        "settings": {key: getattr(asked, key) for key in ("positions", "length", "concurrency", "top", "turns")},
        "positions_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "ratio": round(
            statistics.median(t["fast"]["positions_per_second"] / t["plain"]["positions_per_second"] for t in turns), 2
        ),
        "alone": summary([compare(*pair) for pair in alone]),
        "alone_plain_twice": summary([compare(*pair) for pair in again]),
        "under_load": summary(apart),
        "turns": turns,
        "model": endpoint.model,
        "server": {"vllm": version, "system_fingerprint": fingerprints},
        "hardware": detect().record(),
        "versions": {name: metadata.version(name) for name in ("httpx", "numpy", "openai", "safetensors")}
        | {"python": platform.python_version()},
    }


async def timed(way: Way, lists: list[list[int]], top: int) -> tuple[dict[str, float], list[Scores]]:
    """Score all lists at once, as many in flight as the endpoint allows: (speed, scores)."""
    start, busy = time.perf_counter(), time.process_time()
    scores = await asyncio.gather(*(way(tokens, 1, top) for tokens in lists))
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    positions = sum(len(tokens) - 1 for tokens in lists)
    speed = {"positions": positions, "seconds": round(seconds, 3), "client_cpu_seconds": round(busy, 3)}
    return speed | {"positions_per_second": round(positions / seconds, 1)}, list(scores)


def compare(plain: Scores, fast: Scores) -> tuple[bool, float, float]:
    """(equal to the bit, share of positions whose likeliest token is the same, largest |difference| of a token)."""
    equal = all(np.array_equal(getattr(plain, name), getattr(fast, name)) for name in FIELDS)
    same = float((plain.top_ids[:, 0] == fast.top_ids[:, 0]).mean())
    return equal, same, float(np.abs(plain.logprobs - fast.logprobs).max())


def summary(found: list[tuple[bool, float, float]]) -> dict[str, Any]:
    """Of comparisons of whole lists."""
    equal, same, largest = zip(*found, strict=True)
    return {
        "lists": len(found),
        "equal": all(equal),
        "equal_lists": sum(equal),
        "same_likeliest": round(statistics.fmean(same), 6),
        "largest_difference_nats": max(largest),
    }


async def make_lists(endpoint: Endpoint, length: int, positions: int, turns: int) -> list[list[list[int]]]:
    """For each turn, lists of `length` tokens, `positions` positions together or more: shipped prompts, shuffled."""
    text = (resources.files("suites") / "data" / "prompts.jsonl").read_text("utf-8")
    prompts = [json.loads(line)["messages"] for line in text.splitlines()]
    ids = await asyncio.gather(*(endpoint.render(messages) for messages in prompts))
    made: list[list[list[int]]] = []
    for turn in range(turns):
        made.append([])
        for index in range(-(-positions // (length - 1))):
            generator, tokens = random.Random(f"scoring/{turn}/{index}"), list[int]()
            while len(tokens) < length:
                tokens += generator.choice(ids)
            made[-1].append(tokens[:length])
    return made


async def _model(asked: argparse.Namespace) -> str:
    """The name under which the server serves its model."""
    async with Endpoint(asked.url, "", Requests(), Sampling(max_tokens=1), asked.api_key) as endpoint:
        models = await endpoint._client.models.list()
    return models.data[0].id


if __name__ == "__main__":
    sys.exit(main())
