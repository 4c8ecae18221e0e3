"""Cells: pieces of a long computation, each stored when it is done, so that an interrupted run loses nothing."""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Call(NamedTuple):
    """A function of the top level of a module with arguments that JSON can hold: what is computed in one cell."""

    function: Callable[..., Any]
    args: tuple[Any, ...]

    @property
    def key(self) -> str:
        return f"{self.function.__module__.rsplit('.', 1)[-1]}.{self.function.__name__} {json.dumps(self.args)}"


def seeded(*words: object) -> np.random.Generator:
    """A generator whose seed is the name of the cell: a cell gives the same numbers whatever was run before it."""
    return np.random.default_rng(zlib.crc32(json.dumps(words).encode()))


class Cells:
    """Results by key, one JSON line each, appended as they are done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                cell = json.loads(line)
            except ValueError:  # cut off when the run was ended: computed again
                continue
            self._store(cell)

    def _store(self, cell: dict[str, Any]) -> None:
        self._done[cell["key"]] = cell["value"]
        self.seconds[cell["key"]] = cell["seconds"]

    def run(self, calls: Iterable[Call], workers: int = 1) -> list[Any]:
        """The results of all calls in their order; those that are stored are not computed again."""
        wanted = list(calls)
        todo = list({call.key: call for call in wanted if call.key not in self._done}.values())
        for number, (call, value, seconds) in enumerate(_computed(todo, workers), start=1):
            cell = {"key": call.key, "seconds": round(seconds, 2), "value": value}
            with self.path.open("a") as file:
                file.write(json.dumps(cell) + "\n")
            self._store(json.loads(json.dumps(cell)))  # the same types, whether just computed or read again
            print(f"[{number}/{len(todo)}] {seconds:6.1f} s  {call.key}", file=sys.stderr, flush=True)
        return [self._done[call.key] for call in wanted]


def _computed(calls: list[Call], workers: int) -> Iterable[tuple[Call, Any, float]]:
    if workers <= 1:
        for call in calls:
            yield call, *_timed(call)
        return
    with ProcessPoolExecutor(workers) as pool:
        running = {pool.submit(_timed, call): call for call in calls}
        for future in as_completed(running):
            yield running[future], *future.result()


def _timed(call: Call) -> tuple[Any, float]:
    start = time.monotonic()
    return call.function(*call.args), time.monotonic() - start
