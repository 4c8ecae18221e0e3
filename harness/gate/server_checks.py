"""What is read of a gate's servers before, between and after the questions, and kept in the manifest."""

from __future__ import annotations

from collections.abc import Mapping

from harness.contract.errors import NotComparable, RunFailed
from harness.contract.samples import ROLES, Role
from harness.endpoint.client import Endpoint, EndpointError
from harness.endpoint.counters import measure_server, spec_counters, spec_metrics
from harness.gate.job import Job
from harness.parity.comparison import SHOW, Unread, require_parity, require_same, unread
from harness.parity.readback import read_back
from harness.parity.steadiness import (
    RESTARTED,
    RESTARTED_SAME,
    RESTARTS,
    ServerCounts,
    begun,
    read_after,
    read_counters,
    require_steady,
)
from harness.runs.manifest import Manifest
from harness.serving.memory import measure_memory

REMOTE_CODE = "ran code out of the checkpoint's own folder (trust_remote_code): it is as trusted as whoever wrote it"
UNTESTED_DRAFT = (
    "it has a draft head and was served without drafts, so whether the head works is not known "
    "(--speculative-config in serving.extra_args)"
)


def readbacks(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What was read back from each role's server."""
    return {str(role): server.readback for role, server in manifest.servers.items()}


async def check_parity(job: Job, endpoints: Mapping[Role, Endpoint]) -> None:
    """Read the servers back and compare them: with what they were before a run broke off, and with each other.

    Raises:
        NotComparable: they differ in what the policy does not allow. RunFailed: a server gives no usable answer.
    """
    servers, models = job.manifest.servers, job.manifest.models
    for role, endpoint in endpoints.items():
        before = servers[role].readback
        try:
            now = await read_back(endpoint, models["reference" if role == "noise" else role])
        except EndpointError as error:
            raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
        if before:
            require_same(before, now, f"the servers of the {role}, then and now,")
        servers[role].readback = begun(now)
        _note_remote_code(job, role)
    _doubt_untested_draft(job)
    job.save()
    if "noise" in endpoints:
        require_same(servers["reference"].readback, servers["noise"].readback, "the reference's two servers")
    elif all(role in servers and servers[role].readback for role in ROLES):
        readback = {role: servers[role].readback for role in ROLES}
        policy = job.sealed.policy
        job.manifest.allowed_differences = require_parity(readback, policy.allow_different, policy.allow_unreadable)
        job.save()
        _say_unread(job, unread(readback["reference"], readback["candidate"]))


def _say_unread(job: Job, hidden: Unread) -> None:
    """Nobody may take what was not read for equal."""
    if hidden.names:
        job.reporter.say(
            f"WARNING: {hidden.sentence}, so whether the servers are equal in them is not known: {hidden.listed}"
            f"{f'; {SHOW}' if hidden.shut else ''}"
        )


def _note_remote_code(job: Job, role: Role) -> None:
    """A checkpoint's code is not run unless the policy's extra_args ask for it; where it was, every report says so."""
    served = job.manifest.servers[role]
    asked = any(word.split("=")[0].replace("_", "-") == "--trust-remote-code" for word in served.command)
    note = f"The {role}'s server {REMOTE_CODE}"
    if (asked or served.readback.get("config.model.trust_remote_code") == "true") and note not in job.manifest.notes:
        job.manifest.notes.append(note)
        job.reporter.say(f"WARNING: {note[0].lower()}{note[1:]}")


def _doubt_untested_draft(job: Job) -> None:
    """A draft head that ships and is not served is a claim that nothing here proves."""
    facts, served = job.manifest.models["candidate"], job.manifest.servers.get("candidate")
    if not facts.draft_bytes or UNTESTED_DRAFT in facts.doubts:
        return
    if served and served.readback.get("speculative_decoding") == "off":
        facts.doubts.append(UNTESTED_DRAFT)
        job.reporter.say(f"doubt about the candidate: {UNTESTED_DRAFT}")


async def measure_servers(job: Job, endpoints: Mapping[Role, Endpoint]) -> None:
    """What is known of each role's checkpoint and server goes to its endpoint, where suites find it."""
    for role, endpoint in endpoints.items():
        log = job.run.log_path(role) if job.manifest.servers[role].command else None
        facts = job.manifest.models["reference" if role == "noise" else role]
        try:
            endpoint.measured.update(await measure_server(endpoint, facts))
        except EndpointError as error:
            raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
        if log is not None:
            endpoint.measured.update(measure_memory(log))


async def drafts(endpoints: Mapping[Role, Endpoint]) -> dict[Role, dict[str, float]]:
    """What each server has drafted so far; nothing of one that does not answer just now."""
    found: dict[Role, dict[str, float]] = {}
    for role, endpoint in endpoints.items():
        try:
            found[role] = spec_counters(await endpoint.metrics())
        except EndpointError:
            found[role] = {}
    return found


def keep_drafts(
    job: Job, suite: str, before: Mapping[Role, dict[str, float]], after: Mapping[Role, dict[str, float]]
) -> None:
    """Add what was drafted in a suite to what an earlier part of this run drafted in it."""
    for role, now in after.items():
        try:
            found = spec_metrics(before[role], now)
        except ValueError:  # restarted: check_steady says so
            continue
        found.pop("accepted_length", None)  # it is made of the sums
        if found.get("drafts"):
            kept = job.manifest.speculative.setdefault(suite, {}).setdefault(role, {})
            for name, value in found.items():
                kept[name] = kept.get(name, 0.0) + value
            job.save()


async def counters(role: Role, endpoint: Endpoint) -> ServerCounts:
    """What a server has counted so far. Raises RunFailed: it gives no usable answer."""
    try:
        return await read_counters(endpoint)
    except EndpointError as error:
        raise RunFailed(f"the {role} server gives no usable answer: {error}") from None


async def check_steady(job: Job, endpoints: Mapping[Role, Endpoint], before: Mapping[Role, ServerCounts]) -> None:
    """Whether the servers stayed what they were since `before`; what was found is kept either way.

    Raises:
        NotComparable: one did not. RunFailed: one gives no usable answer.
    """
    found = {}
    for role, endpoint in endpoints.items():
        try:
            found[role] = await read_after(endpoint, before[role])
        except EndpointError as error:
            raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
        if found[role][RESTARTS] == RESTARTED:
            found[role][RESTARTS] = await _after_restart(job, role, endpoint)
        job.manifest.servers[role].readback |= found[role]
    keep_fingerprints(job, endpoints)
    require_steady({str(role): facts for role, facts in found.items()})


async def _after_restart(job: Job, role: Role, endpoint: Endpoint) -> str:
    """What a restart in the middle is: nothing, where the server reads back as before, as when a run is resumed on it.

    Raises:
        EndpointError: it gives no usable answer.
    """
    facts, before = job.manifest.models["reference" if role == "noise" else role], job.manifest.servers[role].readback
    try:
        require_same(
            before, await read_back(endpoint, facts), f"the servers of the {role}, before and after a restart,"
        )
    except NotComparable as error:
        job.reporter.say(str(error))
        return RESTARTED
    job.reporter.say(f"the {role} server restarted in the middle of the run, and reads back as before")
    return RESTARTED_SAME


def keep_fingerprints(job: Job, endpoints: Mapping[Role, Endpoint]) -> None:
    """Store them while they are known: a run that is killed later must not forget them."""
    for role, endpoint in endpoints.items():
        job.manifest.servers[role].fingerprints = sorted(endpoint.fingerprints)
    job.save()
