"""Asks every item of a suite of every role that is served, and appends each sample as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from harness.endpoint import Endpoint, EndpointError
from harness.errors import RunFailed
from harness.progress import Meter
from harness.samples import Item, Key, Role, Sample, SampleLog
from suites.base import Suite

ERRORS_IN_A_ROW = 8
"""So many failing requests without one answer between them are a failing server, not failing items."""


async def run_suite(
    suite: Suite, items: Sequence[Item], endpoints: dict[Role, Endpoint], log: SampleLog, concurrency: int, meter: Meter
) -> None:
    """Ask what is not in the log yet. Each role has its own workers, so neither waits for the other.

    Raises:
        RunFailed: a server stopped answering. What was answered is in the log; a later run goes on from there.
    """
    answered = {_key(suite, item, "reference").pair: asyncio.Event() for item in items}
    for pair, event in answered.items():
        if Key(*pair, "reference") in log or "reference" not in endpoints:
            event.set()
    meter.update(done=sum(_key(suite, i, role) in log for i in items for role in endpoints))
    try:
        async with asyncio.TaskGroup() as group:
            for role, endpoint in endpoints.items():
                queue = deque(item for item in items if _key(suite, item, role) not in log)
                held: list[Sample] = []
                for _ in range(min(concurrency, len(queue))):
                    group.create_task(_work(suite, queue, role, endpoint, log, answered, held, meter))
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None


async def _work(
    suite: Suite,
    queue: deque[Item],
    role: Role,
    endpoint: Endpoint,
    log: SampleLog,
    answered: dict[tuple[str, str, str, int], asyncio.Event],
    held: list[Sample],
    meter: Meter,
) -> None:
    """One worker of a role. `held` are errors (of all workers of the role) since its last answer.

    They are written only once the server has answered something again: errors of a server that is gone are not
    facts about the items, and must not stand in the way of a later run.
    """
    while queue:
        item = queue.popleft()
        key = _key(suite, item, role)
        if suite.reference_first and role == "candidate":
            await answered[key.pair].wait()
        sample = await _ask(suite, item, role, endpoint, log)
        if sample.error is None or sample.error.startswith(("refused", "budget")):
            _write([*held, sample], log, answered)
            held.clear()
        elif sample.error.startswith("reference"):  # says nothing of this role's server
            _write([sample], log, answered)
        else:
            held.append(sample)
            if len(held) >= ERRORS_IN_A_ROW or not await endpoint.healthy():
                raise RunFailed(
                    f"the {role} server at {endpoint.url} fails: {sample.error}; --resume goes on from here"
                )
        if not queue and held:
            _write(held, log, answered)
            held.clear()
        meter.advance()


def _write(samples: Sequence[Sample], log: SampleLog, answered: dict[tuple[str, str, str, int], asyncio.Event]) -> None:
    """Append samples; the candidate may go on with an item once the reference's sample of it is written."""
    for sample in samples:
        log.append(sample)
        if sample.role == "reference":
            answered[sample.key.pair].set()


async def _ask(suite: Suite, item: Item, role: Role, endpoint: Endpoint, log: SampleLog) -> Sample:
    """The sample of one item; a failed request becomes a sample with an error and no score."""
    if suite.reference_first and role == "candidate":
        reference = log.get(_key(suite, item, "reference"))
        if reference is None or reference.error:
            return _error(suite, item, role, "reference: gave no answer to compare with")
    try:
        return await suite.answer(item, role, endpoint)
    except EndpointError as error:
        return _error(suite, item, role, str(error))


def _error(suite: Suite, item: Item, role: Role, error: str) -> Sample:
    return Sample(
        suite=suite.name,
        task=item.task,
        item=item.item,
        repeat=item.repeat,
        role=role,
        prompt_sha256=item.prompt_sha256,
        error=error,
    )


def _key(suite: Suite, item: Item, role: Role) -> Key:
    return Key(suite.name, item.task, item.item, item.repeat, role)
