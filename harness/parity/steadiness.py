"""Did a server stay what it was while it was asked? Its counters before a run and after it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract.errors import NotComparable
from harness.endpoint.client import Endpoint
from harness.endpoint.counters import Metrics, counter
from harness.parity.readback import max_model_len
from harness.parity.server_config import UNKNOWN, short

OF_A_RUN = "run."
"""Facts of a run begin so: they are shown, and never compared between servers."""
RESTARTS = f"{OF_A_RUN}restarts"

NONE = "none"
RESTARTED = "restarted"
RESTARTED_SAME = "restarted, and reads back as before"
NOT_CHECKED = "not checked"
"""Of a server that is being asked, or was when its run broke off."""
SHRUNK = "shrunk"

SETTLE_SECONDS = 1.0
"""vLLM counts a request a moment after it has answered it."""


@dataclass(frozen=True)
class ServerCounts:
    """What a server has counted since it started, and what this client has asked of it since it was made."""

    started: float | None
    """Unix time; None when the server does not tell (several API processes)."""
    requests: int | None
    """Requests that the server has answered, of any client, max_tokens=1 included; no refused or aborted ones."""
    budget: int | None
    """Sum of their max_tokens as they arrived, cut to the context."""
    preemptions: int | None
    asked_requests: int
    asked_budget: int


async def read_counters(endpoint: Endpoint) -> ServerCounts:
    """Read the server's counters now. No request of this endpoint may be in flight. Raises EndpointError."""
    metrics = await endpoint.metrics()
    started = metrics.get("process_start_time_seconds", [])
    return ServerCounts(
        started=started[0][1] if len(started) == 1 and math.isfinite(started[0][1]) else None,
        requests=_count(metrics, "vllm:request_params_max_tokens_count"),
        budget=_count(metrics, "vllm:request_params_max_tokens_sum"),
        preemptions=_count(metrics, "vllm:num_preemptions_total"),
        asked_requests=endpoint.asked.requests,
        asked_budget=endpoint.asked.budget,
    )


async def read_after(endpoint: Endpoint, before: ServerCounts) -> dict[str, str]:
    """What happened since `before`: facts `run.restarts`, `run.fingerprints`, `run.preemptions`, `run.budget`.

    Raises:
        EndpointError: the server does not answer.
    """
    after = await read_counters(endpoint)
    if (_new_requests(before, after) or 0) < 0:
        await asyncio.sleep(SETTLE_SECONDS)
        after = await read_counters(endpoint)
    restarts = _restarts(before, after)
    again = restarts == RESTARTED  # its counters began anew
    context = await max_model_len(endpoint)
    return {
        RESTARTS: restarts,
        f"{OF_A_RUN}fingerprints": _fingerprints(endpoint.fingerprints),
        f"{OF_A_RUN}preemptions": UNKNOWN if again else _preemptions(before, after),
        f"{OF_A_RUN}budget": UNKNOWN if again else _budget(before, after, endpoint.asked.longest, context),
    }


def require_steady(facts: Mapping[str, Mapping[str, str]]) -> None:
    """Check the facts of a run, by role: what was read back before it must have held until its end.

    Raises:
        NotComparable: a server restarted or changed its settings in the middle, or cut the budgets it was sent.
    """
    for role, found in facts.items():
        fingerprints = found.get(f"{OF_A_RUN}fingerprints", UNKNOWN)
        budget = found.get(f"{OF_A_RUN}budget", UNKNOWN)
        reason = ""
        if found.get(RESTARTS) == RESTARTED:
            reason = "restarted in the middle of the run with other settings than before"
        elif fingerprints != UNKNOWN and not fingerprints.startswith("1: "):
            reason = f"changed its settings in the middle of the run (system_fingerprint {fingerprints})"
        elif budget.startswith(SHRUNK):
            reason = f"cut the budgets it was sent ({budget}); look for max_new_tokens in its generation_config"
        if reason:
            raise NotComparable(f"not comparable: the {role} server {reason}; begin a new run")


def begun(facts: Mapping[str, str]) -> dict[str, str]:
    """What was read back from a server, marked as not checked yet: `read_after` says what came of it."""
    return {**facts, RESTARTS: NOT_CHECKED}


def unchecked(facts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The roles whose server was asked and not checked afterwards, because the run broke off."""
    return [role for role, found in facts.items() if found.get(RESTARTS) == NOT_CHECKED]


def _count(metrics: Metrics, name: str) -> int | None:
    """A counter that is a whole number of what was counted; None when it is not there or too large to be one."""
    total = counter(metrics, name)
    return int(total) if total is not None and total < 2**53 else None


def _new_requests(before: ServerCounts, after: ServerCounts) -> int | None:
    """Requests that the server counted and this client did not send; negative: sent and not counted."""
    if before.requests is None or after.requests is None:
        return None
    return (after.requests - before.requests) - (after.asked_requests - before.asked_requests)


def _restarts(before: ServerCounts, after: ServerCounts) -> str:
    fell = before.requests is not None and after.requests is not None and after.requests < before.requests
    if fell or (before.started is not None and after.started is not None and before.started != after.started):
        return RESTARTED
    return UNKNOWN if before.started is None or after.started is None else NONE


def _fingerprints(found: set[str]) -> str:
    return f"{len(found)}: {short(', '.join(sorted(found)))}" if found else UNKNOWN


def _preemptions(before: ServerCounts, after: ServerCounts) -> str:
    if before.preemptions is None or after.preemptions is None:
        return UNKNOWN
    return str(after.preemptions - before.preemptions)


def _budget(before: ServerCounts, after: ServerCounts, longest: int, context: int | None) -> str:
    """Whether the max_tokens that were sent are those that arrived."""
    others = _new_requests(before, after)
    if others is None or before.budget is None or after.budget is None:
        return UNKNOWN
    if others:
        said = f"{others} other" if others > 0 else f"{-others} uncounted"
        return f"{UNKNOWN} ({said} request{'' if abs(others) == 1 else 's'})"
    asked = after.asked_budget - before.asked_budget
    arrived = after.budget - before.budget
    requests = after.asked_requests - before.asked_requests
    if arrived >= asked:
        return f"arrives as asked ({asked} tokens in {requests} requests)"
    said = f"{arrived} of {asked} tokens in {requests} requests"
    # An answer that the context really cut is an error of its own; one that ended before has lost nothing.
    return f"the context holds {said}" if context is not None and longest > context else f"{SHRUNK}: {said}"
