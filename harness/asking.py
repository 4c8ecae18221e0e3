"""From items to samples: serve (or attach to) the roles that have something to answer, check parity, ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.early_stop import EarlyStop
from harness.endpoint import Endpoint, EndpointError
from harness.errors import RunFailed
from harness.hardware import detect
from harness.items import ItemRef
from harness.measured import measure_server, spec_counters, spec_metrics
from harness.parity import require_parity, require_same
from harness.policy import Requests, Sampling, SealedPolicy
from harness.progress import Reporter
from harness.readback import read_back
from harness.runfolder import Manifest, RunFolder, ServerFacts
from harness.runner import run_suite
from harness.samples import ROLES, Key, PairKey, Role, noise_keys, sealed_order
from harness.serving import SERVED_NAME, Server, ServerPlan, plan_servers, serve
from harness.steady import Counters, begun, read_after, read_counters, require_steady, unchecked
from suites.base import Suite

UNTESTED_DRAFT = (
    "it has a draft head and was served without drafts, so whether the head works is not known "
    "(--speculative-config in serving.extra_args)"
)


@dataclass
class Job:
    """What the steps of one gate share."""

    run: RunFolder
    sealed: SealedPolicy
    manifest: Manifest
    suites: list[Suite]
    items: dict[str, dict[Role, list[ItemRef]]]
    """By suite, what each role is asked, in the sealed order."""
    reporter: Reporter

    def save(self) -> None:
        self.run.write_manifest(self.manifest)

    def planned(self, suite: str) -> dict[PairKey, str | None]:
        return {ref.pair(suite): ref.prompt_sha256 for ref in self.items[suite]["reference"]}


def order_items(suite: Suite, items: Sequence[ItemRef], sealed: SealedPolicy) -> dict[Role, list[ItemRef]]:
    """What each role is asked, in the sealed order (or the suite's own, where it keeps it); for the noise floor the
    first items of each task."""
    by_key = {item.pair(suite.name): item for item in items}
    in_sealed_order = [by_key[key] for key in sealed_order(by_key, sealed.sha256)]
    ordered = list(items) if suite.keeps_order else in_sealed_order
    asked: dict[Role, list[ItemRef]] = {"reference": ordered, "candidate": ordered}
    if sealed.policy.noise_floor:
        drawn = noise_keys(by_key, sealed.sha256, sealed.policy.noise_floor.items)
        asked["noise"] = [item for item in ordered if item.pair(suite.name) in drawn]
    return asked


def ask_everything(job: Job, urls: Mapping[Role, str] | None) -> None:
    """Get every sample that is not there yet. `urls` names servers to attach to; without it they are started.

    Raises:
        NotComparable: the servers differ in what the policy does not allow to differ, or did not stay what they were.
        RunFailed: a server failed; what was answered is stored.
    """
    open_end = unchecked(readbacks(job.manifest))  # a killed run's servers: checked now, if nothing else is left to do
    waiting = [role for role in (*ROLES, "noise") if role in open_end or _unanswered(job, role)]
    if not waiting:
        job.reporter.say("every sample is there: no server is needed")
        return
    require_steady(readbacks(job.manifest))
    noise = job.sealed.policy.noise_floor
    if noise and "noise" in waiting:
        job.manifest.noise_by = "seed" if urls else noise.by
        if urls and noise.by == "server":
            job.reporter.say("noise floor: no fresh server to attach to, so the reference is asked with another seed")
    if urls:
        models = _models(job, waiting)
        for role in models:
            job.manifest.servers[role] = _served(job, role, ServerFacts(url=urls[role]))
        _finish(job, models, "noise" in waiting, servers=())
        return
    for roles, with_noise in _rounds(job, waiting):
        _serve_and_ask(job, roles, with_noise)


def _rounds(job: Job, waiting: Sequence[Role]) -> Iterator[tuple[list[Role], bool]]:
    """Which roles are served at the same time, and whether the reference's server is asked for the noise floor too."""
    models = _models(job, waiting)
    by_seed = "noise" in waiting and job.manifest.noise_by == "seed"
    if job.sealed.policy.serving.placement == "together" and models:
        yield models, by_seed
    else:
        for role in models:
            yield [role], by_seed and role == "reference"
    if "noise" in waiting and job.manifest.noise_by == "server":
        yield ["noise"], False


def _models(job: Job, waiting: Sequence[Role]) -> list[Role]:
    """The models that are needed; for a noise floor by seed the reference is one, whether it waits itself or not."""
    models: list[Role] = [role for role in waiting if role != "noise"]
    if "noise" in waiting and job.manifest.noise_by == "seed" and "reference" not in models:
        models.insert(0, "reference")
    return models


def readbacks(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What was read back from each role's server."""
    return {str(role): server.readback for role, server in manifest.servers.items()}


def _served(job: Job, role: Role, facts: ServerFacts) -> ServerFacts:
    """Facts of a server with what is known of the one that gave the samples of this role that are there already."""
    before = job.manifest.servers.get(role)
    if before is None or not any(sample.role == role for sample in job.run.samples()):
        return facts
    return facts.model_copy(update={"readback": before.readback, "fingerprints": before.fingerprints})


def _serve_and_ask(job: Job, roles: Sequence[Role], with_noise: bool) -> None:
    serving = job.sealed.policy.serving
    plans = _plans(job, roles)
    for plan in plans:
        facts = ServerFacts(url=plan.url, command=plan.command, environment=plan.environment)
        job.manifest.servers[plan.role] = _served(job, plan.role, facts)
    job.save()
    with ExitStack() as stack:
        with job.reporter.stage("servers", len(plans)) as meter:
            running = serve(plans, job.run.path / "logs", serving.ready_timeout_seconds, meter)
            servers = stack.enter_context(running)
        _finish(job, roles, with_noise, servers)
        with job.reporter.stage("end servers"):
            stack.close()


def _plans(job: Job, roles: Sequence[Role]) -> list[ServerPlan]:
    """Plans of the roles to serve: each with the share of the machine that it has beside the other one.

    A baseline's reference, or a noise floor, is only comparable when it was served with the same share.
    """
    serving, models = job.sealed.policy.serving, job.manifest.models
    paths: dict[Role, Path] = {role: Path(models["reference" if role == "noise" else role].path) for role in roles}
    if serving.placement == "sequential" or len(roles) == len(ROLES):
        return plan_servers(serving, paths, detect(), job.manifest.run_id)
    both = {role: Path(models[role].path) for role in ROLES}
    if "noise" in roles:
        both = {"noise": both["reference"], "candidate": both["candidate"]}
    return [p for p in plan_servers(serving, both, detect(), job.manifest.run_id) if p.role in roles]


def _finish(job: Job, roles: Sequence[Role], with_noise: bool, servers: Sequence[Server]) -> None:
    """Ask the roles; when a server died meanwhile, say so and why."""
    try:
        asyncio.run(_ask(job, roles, with_noise))
    except RunFailed as failure:
        dead = next((server for server in servers if server.ended_within(2.0)), None)
        if dead is None:
            raise
        raise dead.failure("ended in the middle of the run (--resume goes on)") from failure


async def _ask(job: Job, roles: Sequence[Role], with_noise: bool) -> None:
    """Parity first, then every suite, then whether the servers stayed what they were.

    With one role at a time, parity is decided when the second is there.
    """
    policy = job.sealed.policy
    async with AsyncExitStack() as stack:
        endpoints: dict[Role, Endpoint] = {}
        for role in roles:
            facts = job.manifest.servers[role]
            name = SERVED_NAME if facts.command else await _served_name(facts.url)
            endpoint = Endpoint(facts.url, name, policy.requests, policy.sampling)
            endpoint.thinking_opened = job.manifest.thinking_opened
            endpoint.tokenizer_path = job.manifest.models["reference"].path
            endpoints[role] = await stack.enter_async_context(endpoint)
        before = {role: await _counters(role, endpoint) for role, endpoint in endpoints.items()}
        with job.reporter.stage("parity"):
            await _parity(job, endpoints)
        asked = dict(endpoints)
        if with_noise:
            other_seed = policy.sampling.model_copy(update={"seed": policy.sampling.seed + 1})
            reference = endpoints["reference"]
            endpoint = Endpoint(reference.url, reference.model, policy.requests, other_seed)
            endpoint.asked, endpoint.fingerprints = reference.asked, reference.fingerprints  # one server counts both
            endpoint.thinking_opened, endpoint.tokenizer_path = reference.thinking_opened, reference.tokenizer_path
            asked["noise"] = await stack.enter_async_context(endpoint)
        await _measure(job, endpoints, asked)
        for suite in job.suites:
            drafted = await _drafted(endpoints)
            try:
                await _ask_suite(job, suite, asked)
            finally:
                _keep_fingerprints(job, endpoints)
            _keep_drafts(job, suite.name, drafted, await _drafted(endpoints))
        await _require_steady(job, endpoints, before)


async def _ask_suite(job: Job, suite: Suite, endpoints: Mapping[Role, Endpoint]) -> None:
    items, policy = job.items[suite.name], job.sealed.policy
    stop = EarlyStop(policy, job.planned(suite.name), job.sealed.sha256)
    total = sum(len(items[role]) for role in endpoints)
    with closing(job.run.log(suite.name)) as log, job.reporter.stage(suite.name, total) as meter:
        load = partial(job.run.load, suite.name)
        await run_suite(suite, items, load, endpoints, log, stop, policy.requests.concurrency, meter)
    job.manifest.stopped = list(dict.fromkeys([*job.manifest.stopped, *stop.decided()]))


async def _parity(job: Job, endpoints: Mapping[Role, Endpoint]) -> None:
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
        endpoint.fingerprints.update(servers[role].fingerprints)
    _doubt_untested_draft(job)
    job.save()
    if "noise" in endpoints:
        require_same(servers["reference"].readback, servers["noise"].readback, "the reference's two servers")
    elif all(role in servers and servers[role].readback for role in ROLES):
        readback = {role: servers[role].readback for role in ROLES}
        job.manifest.allowed_differences = require_parity(readback, job.sealed.policy.allow_different)
        job.save()


def _doubt_untested_draft(job: Job) -> None:
    """A draft head that ships and is not served is a claim that nothing here proves."""
    facts, served = job.manifest.models["candidate"], job.manifest.servers.get("candidate")
    if not facts.draft_bytes or UNTESTED_DRAFT in facts.doubts:
        return
    if served and served.readback.get("speculative_decoding") == "off":
        facts.doubts.append(UNTESTED_DRAFT)
        job.reporter.say(f"doubt about the candidate: {UNTESTED_DRAFT}")


async def _measure(job: Job, endpoints: Mapping[Role, Endpoint], asked: Mapping[Role, Endpoint]) -> None:
    """What is known of each role's checkpoint and server goes to its endpoint, where suites find it."""
    for role, endpoint in endpoints.items():
        log = job.run.log_path(role) if job.manifest.servers[role].command else None
        facts = job.manifest.models["reference" if role == "noise" else role]
        try:
            endpoint.measured = await measure_server(endpoint, facts, log)
        except EndpointError as error:
            raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
    if "noise" in asked and "noise" not in endpoints:  # the reference's server, asked with another seed
        asked["noise"].measured = endpoints["reference"].measured


async def _drafted(endpoints: Mapping[Role, Endpoint]) -> dict[Role, dict[str, float]]:
    """What each server has drafted so far; nothing of one that does not answer just now."""
    found: dict[Role, dict[str, float]] = {}
    for role, endpoint in endpoints.items():
        try:
            found[role] = spec_counters(await endpoint.metrics())
        except EndpointError:
            found[role] = {}
    return found


def _keep_drafts(
    job: Job, suite: str, before: Mapping[Role, dict[str, float]], after: Mapping[Role, dict[str, float]]
) -> None:
    """Add what was drafted in a suite to what an earlier part of this run drafted in it."""
    for role, counters in after.items():
        try:
            found = spec_metrics(before[role], counters)
        except ValueError:  # restarted: _require_steady says so
            continue
        found.pop("accepted_length", None)  # it is made of the sums
        if found.get("drafts"):
            kept = job.manifest.speculative.setdefault(suite, {}).setdefault(role, {})
            for name, value in found.items():
                kept[name] = kept.get(name, 0.0) + value
            job.save()


async def _counters(role: Role, endpoint: Endpoint) -> Counters:
    try:
        return await read_counters(endpoint)
    except EndpointError as error:
        raise RunFailed(f"the {role} server gives no usable answer: {error}") from None


async def _require_steady(job: Job, endpoints: Mapping[Role, Endpoint], before: Mapping[Role, Counters]) -> None:
    found = {}
    for role, endpoint in endpoints.items():
        try:
            found[role] = await read_after(endpoint, before[role])
        except EndpointError as error:
            raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
        job.manifest.servers[role].readback |= found[role]
    _keep_fingerprints(job, endpoints)
    require_steady({str(role): facts for role, facts in found.items()})


def _keep_fingerprints(job: Job, endpoints: Mapping[Role, Endpoint]) -> None:
    """Store them while they are known: a run that is killed later must not forget them."""
    for role, endpoint in endpoints.items():
        job.manifest.servers[role].fingerprints = sorted(endpoint.fingerprints)
    job.save()


async def _served_name(url: str) -> str:
    """The one model that an attached server serves."""
    async with Endpoint(url, "", Requests(), Sampling()) as endpoint:  # type: ignore[call-arg]
        try:
            models = (await endpoint.get_json("/v1/models")).get("data")
        except EndpointError as error:
            raise RunFailed(f"no usable server at {url}: {error}") from None
    if not isinstance(models, list) or not models or not isinstance(models[0], dict):
        raise RunFailed(f"the server at {url} lists no model at /v1/models")
    return str(models[0].get("id"))


def _unanswered(job: Job, role: Role) -> bool:
    """Whether a role has something to answer that a check may still need."""
    for suite in job.suites:
        stop = EarlyStop(job.sealed.policy, job.planned(suite.name), job.sealed.sha256)
        with closing(job.run.log(suite.name)) as log:
            for sample in log.samples():
                stop.record(sample)
            for item in job.items[suite.name].get(role, ()):
                pair = item.pair(suite.name)
                if Key(*pair, role) not in log and (role == "noise" or not stop.needless(pair)):
                    return True
    return False
