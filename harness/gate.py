"""The main job, from a model's name to a verdict and a report: data goes one way through this file."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from harness import __version__
from harness.endpoint import Endpoint, EndpointError
from harness.errors import BadInput, NotComparable, RunFailed
from harness.hardware import detect
from harness.models import base_model_of, describe, quantization_of, resolve_model
from harness.parity import read_back, require_parity
from harness.policy import Requests, Sampling, SealedPolicy, load_policy
from harness.prepare import quantized
from harness.progress import Reporter
from harness.runfolder import Manifest, ModelFacts, RunFolder, ServerFacts
from harness.runner import run_suite
from harness.samples import ROLES, Item, Key, Role
from harness.serving import SERVED_NAME, end_dead_run, plan_servers, serve
from harness.verdict import Verdict, judge
from suites.base import Suite
from suites.registry import make_suites

VERSIONS = ("vllm", "torch", "transformers", "lm-eval", "openai", "numpy", "scipy")


@dataclass(frozen=True)
class GateOptions:
    """What the command line says."""

    model: str
    reference: str | None = None
    policy: str | None = None
    out: Path | None = None
    resume: bool = False
    candidate_url: str | None = None
    reference_url: str | None = None


@dataclass
class Job:
    """What the steps of one gate share."""

    run: RunFolder
    sealed: SealedPolicy
    manifest: Manifest
    suites: list[Suite]
    items: dict[str, list[Item]]
    reporter: Reporter

    def save(self) -> None:
        self.run.write_manifest(self.manifest)


def run_gate(options: GateOptions, reporter: Reporter) -> tuple[RunFolder, Verdict]:
    """Quantize if needed, serve both roles, check parity, run the suites, judge, report.

    Raises:
        BadInput, NotComparable: exit code 3. RunFailed: exit code 4; `--resume` goes on from what is stored.
    """
    _check(options)
    run = RunFolder(options.out or Path("runs") / _run_id(options.model))
    sealed = _policy(options, run)
    suites = make_suites(sealed.policy, run.path)  # a policy that cannot run is refused before any work
    reporter.say(f"policy {sealed.policy.name} (sha256 {sealed.sha256[:12]}), run folder {run.path}")
    models = _models(options, sealed, reporter)
    with run.lock():
        for role in end_dead_run(run.path / "logs"):
            reporter.say(f"ended the {role} server that an earlier run left behind")
        job = Job(run, sealed, _manifest(options, run, sealed, models), suites, {}, reporter)
        _make_items(job)
        try:
            _ask_everything(options, job)
            verdict = judge_run(run)
            with reporter.stage("report"):
                render_run(run)
        finally:
            job.manifest.stages += reporter.stages
            job.save()
        render_run(run)  # once more, now that it is known where the time went
    return run, verdict


def _check(options: GateOptions) -> None:
    if (options.candidate_url is None) != (options.reference_url is None):
        raise BadInput("--candidate-url and --reference-url go together: give both or none")
    if options.resume and options.out is None:
        raise BadInput("--resume needs --out RUN, the run folder to go on with")
    if options.candidate_url and options.candidate_url.rstrip("/") == (options.reference_url or "").rstrip("/"):
        raise NotComparable("both URLs are the same server: there is nothing to compare")


def judge_run(run: RunFolder, policy: SealedPolicy | None = None) -> Verdict:
    """Decide on a stored run and store the verdict. No server is needed.

    Raises:
        BadInput: a run folder that cannot be read, or a policy edited after the seal.
    """
    sealed = run.sealed_policy()
    chosen = policy or sealed
    manifest = run.manifest()
    verdict = judge(chosen.policy, run.samples(), manifest.planned, chosen.sha256, sealed.sha256)
    run.write_verdict(verdict)
    return verdict


def render_run(run: RunFolder) -> Path:
    """Write the report of a run; returns its index.html."""
    from reports.render import render

    return render(run.path)


def _run_id(model: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{re.sub(r'[^a-zA-Z0-9._-]+', '-', Path(model).name) or 'model'}"


def _policy(options: GateOptions, run: RunFolder) -> SealedPolicy:
    """The policy asked for; when resuming, the sealed one, which another may not replace."""
    if not options.resume:
        run.require_new()
        return load_policy(options.policy or "demo")
    sealed = run.sealed_policy()
    if options.policy and load_policy(options.policy).sha256 != sealed.sha256:
        raise BadInput(f"{run.path} was begun with another policy; resume without --policy, or begin a new run")
    return sealed


def _models(options: GateOptions, sealed: SealedPolicy, reporter: Reporter) -> dict[Role, ModelFacts]:
    """Both checkpoints: found, made where MODEL is not quantized yet, and described.

    Raises:
        BadInput: a model that cannot be used, or no reference known. NotComparable: both are the same checkpoint.
    """
    with reporter.stage("models") as meter:
        given = resolve_model(options.model, reporter.say)
        is_candidate = options.candidate_url is not None or quantization_of(given) is not None
        name = options.reference or (base_model_of(given) if is_candidate else options.model)
        if name is None:
            raise BadInput(f"the reference of {options.model} is unknown (no base_model in its card): give --reference")
        meter.update(text=name)
        reference = resolve_model(name, reporter.say)
    candidate = given if is_candidate else quantized(given, sealed.policy.recipe, reporter)
    label = options.model if is_candidate else f"{options.model} {sealed.policy.recipe}"
    with reporter.stage("hashes"):
        facts: dict[Role, ModelFacts] = {
            "reference": describe(name, reference),
            "candidate": describe(label, candidate),
        }
    if facts["reference"].sha256 == facts["candidate"].sha256:
        raise NotComparable(f"both roles are the same checkpoint ({reference}): there is nothing to compare")
    return facts


def _manifest(options: GateOptions, run: RunFolder, sealed: SealedPolicy, models: dict[Role, ModelFacts]) -> Manifest:
    """The manifest of a new run, or that of the run being resumed when it speaks of the same models."""
    if options.resume:
        manifest = run.manifest()
        for role, facts in models.items():
            before = manifest.models.get(role)
            if before is not None and before.sha256 != facts.sha256:
                raise BadInput(f"the {role} is not the checkpoint this run was begun with; begin a new run")
        return manifest
    versions = {name: _version(name) for name in VERSIONS} | {"python": sys.version.split()[0]}
    manifest = Manifest(
        run_id=run.path.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        quantgate_version=__version__,
        command=["quantgate", *sys.argv[1:]],
        policy_name=sealed.policy.name,
        policy_sha256=sealed.sha256,
        models=models,
        hardware=detect().record(),
        versions=versions,
    )
    run.create(manifest, sealed)
    return manifest


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _make_items(job: Job) -> None:
    """The items of every suite, made once and stored; a resumed run reads them back."""
    tokenizer = None
    with job.reporter.stage("items", len(job.suites)) as meter:
        from transformers import AutoTokenizer

        for suite in job.suites:
            meter.update(text=suite.name)
            if suite.name not in job.manifest.items_sha256:
                tokenizer = tokenizer or AutoTokenizer.from_pretrained(job.manifest.models["reference"].path)
                items = suite.items(tokenizer)
                job.manifest.items_sha256[suite.name] = job.run.write_items(suite.name, items)
                job.manifest.planned |= Counter(f"{suite.name}/{item.task}" for item in items)
                job.save()
            job.items[suite.name] = job.run.items(suite.name)
            meter.advance()


def _ask_everything(options: GateOptions, job: Job) -> None:
    """Serve (or attach to) the roles that still have something to answer, together or one after the other."""
    waiting = [role for role in ROLES if _unanswered(job, role)]
    if not waiting:
        job.reporter.say("every sample is there: no server is needed")
        return
    if options.candidate_url and options.reference_url:
        job.manifest.servers = {
            "reference": ServerFacts(url=options.reference_url),
            "candidate": ServerFacts(url=options.candidate_url),
        }
        asyncio.run(_ask(job, ROLES))
        return
    together = job.sealed.policy.serving.placement == "together"
    for roles in [ROLES] if together else [(role,) for role in waiting]:
        _serve_and_ask(job, roles)


def _serve_and_ask(job: Job, roles: Sequence[Role]) -> None:
    serving = job.sealed.policy.serving
    paths = {role: Path(job.manifest.models[role].path) for role in roles}
    plans = plan_servers(serving, paths, detect(), job.manifest.run_id)
    for plan in plans:
        facts = ServerFacts(url=plan.url, command=plan.command, environment=plan.environment)
        job.manifest.servers[plan.role] = facts
    job.save()
    with ExitStack() as stack:
        with job.reporter.stage("servers", len(plans)) as meter:
            running = serve(plans, job.run.path / "logs", serving.ready_timeout_seconds, meter)
            servers = stack.enter_context(running)
        try:
            asyncio.run(_ask(job, roles))
        except RunFailed as failure:
            dead = next((server for server in servers if server.ended_within(2.0)), None)
            if dead is None:
                raise
            raise dead.failure("ended in the middle of the run (--resume goes on)") from failure
        with job.reporter.stage("end servers"):
            stack.close()


async def _ask(job: Job, roles: Sequence[Role]) -> None:
    """Parity first, then every suite. With one role at a time, parity is decided when the second is there."""
    policy = job.sealed.policy
    async with AsyncExitStack() as stack:
        endpoints: dict[Role, Endpoint] = {}
        for role in roles:
            facts = job.manifest.servers[role]
            name = SERVED_NAME if facts.command else await _served_name(facts.url)
            endpoint = Endpoint(facts.url, name, policy.requests, policy.sampling)
            endpoints[role] = await stack.enter_async_context(endpoint)
        with job.reporter.stage("parity"):
            await _parity(job, endpoints)
        for suite in job.suites:
            items = job.items[suite.name]
            with (
                closing(job.run.log(suite.name)) as log,
                job.reporter.stage(suite.name, len(items) * len(roles)) as meter,
            ):
                await run_suite(suite, items, endpoints, log, policy.requests.concurrency, meter)


async def _parity(job: Job, endpoints: dict[Role, Endpoint]) -> None:
    servers = job.manifest.servers
    for role, endpoint in endpoints.items():
        try:
            servers[role].readback = await read_back(endpoint, job.manifest.models[role])
        except EndpointError as error:
            raise RunFailed(f"the {role} server gives no usable answer: {error}") from None
    job.save()
    if all(role in servers and servers[role].readback for role in ROLES):
        readback = {role: servers[role].readback for role in ROLES}
        job.manifest.allowed_differences = require_parity(readback, job.sealed.policy.allow_different)
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
    for suite in job.suites:
        with closing(job.run.log(suite.name)) as log:
            if any(Key(suite.name, i.task, i.item, i.repeat, role) not in log for i in job.items[suite.name]):
                return True
    return False
