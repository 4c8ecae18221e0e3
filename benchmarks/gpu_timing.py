"""Times of launches on a GPU: CUDA graphs of many launches over data that no cache holds, medians of their replays."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

CACHES = 130 << 20
"""Bytes that launches have to go through before one meets its data again: twice the L2 of an H200 and more."""


Row = dict[str, Any]
"""What one measurement says."""


def guarded(measure: Callable[[], Row]) -> Row:
    """What was measured, or what went wrong."""
    try:
        return measure()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def copies_of(size: int) -> int:
    """How many times data of `size` bytes is laid down, each with values of its own."""
    return max(2, -(-CACHES // size))


def microseconds(launches: Sequence[Callable[[], object]], replays: int = 7, atleast: int = 40) -> dict[str, float]:
    """Median, fastest and slowest microseconds of one launch, of `replays` of a graph of at least `atleast`.

    The launches take turns, so each finds the data of the others in the cache.
    """
    rounds = max(1, -(-atleast // len(launches)))
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for launch in launches:
            launch()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for launch in launches:
                launch()
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(replays):
        start, end = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / rounds / len(launches))
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


def bandwidth() -> dict[str, float]:
    """TB/s of a copy (bytes read and written) and of reading alone, of 2 GiB on this GPU."""
    source = torch.empty(1 << 29, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(source)
    size = source.numel() * 4
    copying = microseconds([partial(target.copy_, source)], replays=7, atleast=3)["median"]
    reading = microseconds([partial(torch.sum, source)], replays=7, atleast=3)["median"]
    return {"copy": 2 * size / copying / 1e6, "read": size / reading / 1e6}
