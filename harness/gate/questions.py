"""From items to samples: serve (or attach to) the roles that have something to answer, check parity, ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from functools import partial
from pathlib import Path

from harness.contract.errors import BadInput, RunFailed
from harness.contract.samples import ROLES, Key, Role
from harness.contract.secrets import without_login
from harness.endpoint.client import Endpoint
from harness.gate.job import Access, Job
from harness.gate.server_checks import (
    check_parity,
    check_steady,
    counters,
    drafts,
    keep_drafts,
    keep_fingerprints,
    measure_servers,
    readbacks,
)
from harness.gate.suite_runner import run_suite
from harness.judging.early_stop import EarlyStop
from harness.parity.readback import served_name
from harness.parity.steadiness import require_steady, unchecked
from harness.runs.manifest import ServerFacts
from harness.serving.flags import SERVED_NAME, ServerPlan, plan_servers, with_api_key
from harness.serving.hardware import detect
from harness.serving.servers import Server, serve
from suites.base import Suite


def ask_everything(job: Job, urls: Mapping[Role, str] | None) -> None:
    """Get every sample that is not there yet. `urls` names servers to attach to; without it they are started.

    Raises:
        NotComparable: the servers differ in what the policy does not allow to differ, or did not stay what they were.
        BadInput: a role has to be asked that has no URL. RunFailed: a server failed; what was answered is stored.
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
        if not urls.keys() >= set(models):  # a baseline was to spare it
            raise BadInput("the reference has to be asked after all: give --reference-url, or a baseline that fits")
        for role in models:
            job.access[role] = Access(urls[role])
            job.manifest.servers[role] = _served(job, role, ServerFacts(url=without_login(urls[role])))
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


def _served(job: Job, role: Role, facts: ServerFacts) -> ServerFacts:
    """Facts of a server with what is known of the one that gave the samples of this role that are there already."""
    before = job.manifest.servers.get(role)
    if before is None or not any(sample.role == role for sample in job.run.samples()):
        return facts
    return facts.model_copy(update={"readback": before.readback, "fingerprints": before.fingerprints})


def _serve_and_ask(job: Job, roles: Sequence[Role], with_noise: bool) -> None:
    serving = job.sealed.policy.serving
    plans = with_api_key(_plans(job, roles))
    for plan in plans:
        job.access[plan.role] = Access(plan.url, plan.api_key)
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
            facts, access = job.manifest.servers[role], job.access[role]
            name = SERVED_NAME if facts.command else await served_name(access.url)
            endpoint = Endpoint(
                access.url,
                name,
                policy.requests,
                policy.sampling,
                access.api_key,
                thinking_opened=job.manifest.thinking_opened,
                tokenizer_path=job.manifest.models["reference"].path,
                fingerprints=facts.fingerprints,
            )
            endpoints[role] = await stack.enter_async_context(endpoint)
        before = {role: await counters(role, endpoint) for role, endpoint in endpoints.items()}
        with job.reporter.stage("parity"):
            await check_parity(job, endpoints)
        asked = dict(endpoints)
        if with_noise:
            other = endpoints["reference"].with_seed(policy.sampling.seed + 1)
            asked["noise"] = await stack.enter_async_context(other)
        await measure_servers(job, endpoints)
        for suite in job.suites:
            before_suite = await drafts(endpoints)
            try:
                await _ask_suite(job, suite, asked)
            finally:
                keep_fingerprints(job, endpoints)
            keep_drafts(job, suite.name, before_suite, await drafts(endpoints))
        await check_steady(job, endpoints, before)


async def _ask_suite(job: Job, suite: Suite, endpoints: Mapping[Role, Endpoint]) -> None:
    items, policy = job.items[suite.name], job.sealed.policy
    stop = EarlyStop(policy, job.planned(suite.name), job.sealed.sha256, job.manifest.planned)
    total = sum(len(items[role]) for role in endpoints)
    with closing(job.run.log(suite.name)) as log, job.reporter.stage(suite.name, total) as meter:
        load = partial(job.run.load, suite.name)
        await run_suite(suite, items, load, endpoints, log, stop, policy.requests.concurrency, meter)
    job.manifest.stopped = list(dict.fromkeys([*job.manifest.stopped, *stop.decided()]))


def _unanswered(job: Job, role: Role) -> bool:
    """Whether a role has something to answer that a check may still need."""
    for suite in job.suites:
        stop = EarlyStop(job.sealed.policy, job.planned(suite.name), job.sealed.sha256, job.manifest.planned)
        with closing(job.run.log(suite.name)) as log:
            for sample in log.samples():
                stop.record(sample)
            for item in job.items[suite.name].get(role, ()):
                pair = item.pair(suite.name)
                if Key(*pair, role) not in log and (role == "noise" or not stop.needless(pair)):
                    return True
    return False
