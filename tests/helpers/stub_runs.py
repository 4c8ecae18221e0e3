"""The suite runner asked with stubs: endpoints and suites that do what a test tells them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from harness.contract.samples import Item, PairKey, Role, Sample, SampleLog, read_samples
from harness.endpoint.client import EndpointError
from harness.gate.suite_runner import run_suite
from harness.runs.progress import Meter
from suites.base import make_item

Answer = Callable[[Item, Role], Awaitable[None]]


class StubEndpoint:
    """As much of an endpoint as the runner itself uses."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.url = f"http://{role}"
        self.health = True

    async def healthy(self) -> bool:
        return self.health


class StubSuite:
    """Answers with a score of 1 after `script` ran; what it asks is kept in order."""

    name = "stub"

    def __init__(self, script: Answer | None = None, reference_first: bool = False) -> None:
        self.script = script
        self.reference_first = reference_first
        self.alternates = False
        self.at_once: int | None = None
        self.asked: list[tuple[Role, str]] = []
        self.ended = 0

    async def end(self) -> None:
        self.ended += 1

    async def answer(self, item: Item, role: Role, endpoint: Any) -> Sample:
        assert getattr(endpoint, "role", role) == role
        self.asked.append((role, item.item))
        if self.script:
            await self.script(item, role)
        return Sample(
            suite="stub", task=item.task, item=item.item, role=role, prompt_sha256=item.prompt_sha256, score=1.0
        )


def same(item: Any) -> Any:
    """Items that are in memory already need no loading."""
    return item


class NeverStop:
    """No check stops early."""

    def record(self, sample: Sample) -> None:
        pass

    def needless(self, pair: PairKey) -> bool:
        return False


def make_items(count: int) -> list[Item]:
    return [make_item("t", f"{i:02d}", [{"role": "user", "content": str(i)}]) for i in range(count)]


def run(
    suite: StubSuite,
    items: list[Item],
    path: Path,
    roles: Iterable[Role] = ("reference", "candidate"),
    concurrency: int = 2,
    endpoints: dict[Role, Any] | None = None,
    stop: Any = None,
    meter: Meter | None = None,
) -> Meter:
    meter = meter or Meter("stub", None)
    log = SampleLog(path / "stub.jsonl")
    try:
        chosen = endpoints or {role: StubEndpoint(role) for role in roles}
        asked = dict.fromkeys(("reference", "candidate", "noise"), items)
        stop = stop or NeverStop()
        asyncio.run(asyncio.wait_for(run_suite(suite, asked, same, chosen, log, stop, concurrency, meter), 20))  # type: ignore[arg-type]
    finally:
        log.close()
    return meter


def stored(path: Path) -> dict[tuple[str, str], str | None]:
    """(role, item) -> error of every sample on disk."""
    return {(s.role, s.item): s.error for s in read_samples(path / "stub.jsonl")}


def fails(*which: str, kind: Any = "server", role: Role = "reference") -> Answer:
    async def script(item: Item, asked: Role) -> None:
        if asked == role and item.item in which:
            raise EndpointError(kind, f"no answer to {item.item}")

    return script
