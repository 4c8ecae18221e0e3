"""Asks every item of a suite of every role that is served, and appends each sample as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.contract.error_kinds import FOLLOWS, INFRASTRUCTURE, OF_THE_ITEM, error_kind, error_text
from harness.contract.errors import RunFailed
from harness.contract.items import ItemRef
from harness.contract.samples import Item, Key, PairKey, Role, Sample, SampleLog, sample_of
from harness.endpoint.client import Endpoint, EndpointError
from harness.judging.early_stop import EarlyStop
from harness.runs.progress import Meter
from suites.base import Suite

ERRORS_IN_A_ROW = 8
"""So many failing requests without one answer between them are a failing server, not failing items."""


@dataclass
class Ledger:
    """What the workers of a suite share."""

    suite: Suite
    load: Callable[[ItemRef], Item]
    """Reads an item's prompt, which is in memory only while it is asked."""
    log: SampleLog
    stop: EarlyStop
    meter: Meter
    answered: dict[PairKey, asyncio.Event]
    """Set once the reference's sample of a pair is written; of suites that wait for it."""

    def release(self, pair: PairKey) -> None:
        """Other roles may go on with a pair."""
        if event := self.answered.get(pair):
            event.set()


@dataclass
class RoleQueue:
    """What the workers of one role share."""

    role: Role
    endpoint: Endpoint
    queue: deque[ItemRef]
    held: list[Sample] = field(default_factory=list)
    """Errors since the role's last answer. They are written only once the server has answered something again: errors
    of a server that is gone are not facts about the items, and must not stand in the way of a later run."""


async def run_suite(
    suite: Suite,
    items: Mapping[Role, Sequence[ItemRef]],
    load: Callable[[ItemRef], Item],
    endpoints: Mapping[Role, Endpoint],
    log: SampleLog,
    stop: EarlyStop,
    concurrency: int,
    meter: Meter,
) -> None:
    """Ask each role its items, in their order, unless the log has them or no check needs them any more.

    Each role has its own workers, so none waits for another; those of a suite that alternates take turns.

    Raises:
        RunFailed: a server stopped answering. What was answered is in the log; a later run goes on from there.
    """
    for sample in log.samples():
        stop.record(sample)
    waited_for = items["reference"] if suite.reference_first else ()
    answered = {_key(suite, item, "reference").pair: asyncio.Event() for item in waited_for}
    for pair, event in answered.items():
        if Key(*pair, "reference") in log or "reference" not in endpoints:
            event.set()
    ledger = Ledger(suite, load, log, stop, meter, answered)
    meter.update(done=sum(_key(suite, i, role) in log for role in endpoints for i in items[role]))
    roles = [
        RoleQueue(role, endpoint, deque(item for item in items[role] if _key(suite, item, role) not in log))
        for role, endpoint in endpoints.items()
    ]
    try:
        if suite.alternates:
            await _take_turns(ledger, roles)
        else:
            await _side_by_side(ledger, roles, suite.at_once or concurrency)
    finally:
        await suite.end()


async def _side_by_side(ledger: Ledger, roles: list[RoleQueue], at_once: int) -> None:
    """So many items of each role at the same time."""
    try:
        async with asyncio.TaskGroup() as group:
            for mine in roles:
                for _ in range(min(at_once, len(mine.queue))):
                    group.create_task(_work(ledger, mine))
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None


async def _take_turns(ledger: Ledger, roles: list[RoleQueue]) -> None:
    """One item at a time, one role after the other; who begins changes each round."""
    while any(mine.queue for mine in roles):
        for mine in roles:
            if mine.queue:
                ledger.meter.update(text=f"{mine.queue[0].task} {mine.queue[0].item} of the {mine.role}")
                await _step(ledger, mine)
        roles = [*roles[1:], *roles[:1]]
    ledger.meter.update(text="")


async def _work(ledger: Ledger, mine: RoleQueue) -> None:
    """One worker of a role."""
    while mine.queue:
        await _step(ledger, mine)


async def _step(ledger: Ledger, mine: RoleQueue) -> None:
    """The next item of a role."""
    item = mine.queue.popleft()
    pair = _key(ledger.suite, item, mine.role).pair
    if ledger.suite.reference_first and mine.role != "reference":
        await ledger.answered[pair].wait()
    if mine.role != "noise" and ledger.stop.needless(pair):
        ledger.release(pair)
    else:
        await _answer(ledger, mine, item)
    if not mine.queue and mine.held:
        _write(ledger, mine.held)
        mine.held.clear()
    ledger.meter.advance()


async def _answer(ledger: Ledger, mine: RoleQueue, item: ItemRef) -> None:
    """Ask one item and write or hold its sample. Raises RunFailed when the server fails."""
    sample = await _ask(ledger, mine, item)
    kind = error_kind(sample.error)
    if sample.error is None or kind in OF_THE_ITEM:
        _write(ledger, [*mine.held, sample])
        mine.held.clear()
    elif kind == FOLLOWS:  # says nothing of this role's server
        _write(ledger, [sample])
    else:
        mine.held.append(sample)
        healthy = await mine.endpoint.healthy()
        if len(mine.held) >= ERRORS_IN_A_ROW or not healthy:
            raise RunFailed(
                f"{_culprit(ledger, mine, sample.error, healthy)}: {sample.error}; --resume goes on from here"
            )


def _culprit(ledger: Ledger, mine: RoleQueue, error: str, healthy: bool) -> str:
    """Who failed so often: the server, unless it is well and what a suite runs beside it is not."""
    if healthy and error_kind(error) == INFRASTRUCTURE:
        return f"{len(mine.held)} {ledger.suite.name} items of the {mine.role} in a row failed, its server is well"
    return f"the {mine.role} server at {mine.endpoint.url} fails"


def _write(ledger: Ledger, samples: Sequence[Sample]) -> None:
    """Append samples; other roles may go on with an item once the reference's sample of it is written."""
    for sample in samples:
        ledger.log.append(sample)
        ledger.stop.record(sample)
        if sample.role == "reference":
            ledger.release(sample.key.pair)


async def _ask(ledger: Ledger, mine: RoleQueue, item: ItemRef) -> Sample:
    """The sample of one item; a failed request becomes a sample with an error and no score."""
    waits = ledger.suite.reference_first and mine.role != "reference"
    if waits and not ledger.log.answered(_key(ledger.suite, item, "reference")):
        error = error_text(FOLLOWS, "gave no answer to compare with")
        return sample_of(ledger.suite.name, item, mine.role, error=error)
    try:
        return await ledger.suite.answer(ledger.load(item), mine.role, mine.endpoint)
    except EndpointError as failed:
        return sample_of(ledger.suite.name, item, mine.role, error=str(failed))


def _key(suite: Suite, item: ItemRef, role: Role) -> Key:
    return Key(suite.name, item.task, item.item, item.repeat, role)
