"""The main job, from a model's name to a verdict and a report: data goes one way through this file."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from harness import __version__
from harness.checkpoint.doubts import pair_doubts
from harness.checkpoint.models import (
    base_model_of,
    describe,
    is_source,
    quantization_of,
    require_original,
    resolve_model,
)
from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.errors import BadInput, NotComparable
from harness.contract.model_facts import ModelFacts
from harness.contract.policy import SealedPolicy, load_policy
from harness.contract.samples import ROLES, Role
from harness.contract.secrets import hide_secrets
from harness.contract.whole_files import write_whole
from harness.gate.baseline import mismatches, reuse
from harness.gate.graders import require_graders
from harness.gate.job import Job, order_items
from harness.gate.mixing import NO_SIZE, Size
from harness.gate.preflight import preflight, require_shape, require_targets, server_root
from harness.gate.quantization import quantized
from harness.gate.questions import ask_everything
from harness.gate.server_checks import readbacks
from harness.judging.verdict import Verdict, judge
from harness.parity.comparison import forbidden_unread
from harness.parity.steadiness import require_steady, unchecked
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter
from harness.runs.resume import forget_passing_errors
from harness.serving.hardware import detect
from harness.serving.servers import end_dead_run
from suites.base import made_items, opens_thinking
from suites.divergence.older import with_missing_sums
from suites.registry import make_suites

VERSIONS = ("vllm", "torch", "transformers", "lm-eval", "openai", "numpy", "scipy", "swebench", "mini-swe-agent")


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
    baseline: Path | None = None
    single_file: bool = False
    recipe: str | None = None
    """In place of the policy's."""
    size: Size = NO_SIZE
    """Of what is made by a recipe that leaves tiers open."""


def run_gate(options: GateOptions, reporter: Reporter) -> tuple[RunFolder, Verdict]:
    """Quantize if needed, serve both roles, check parity, run the suites, judge, report.

    Raises:
        BadInput, NotComparable: exit code 3. RunFailed: exit code 4; `--resume` goes on from what is stored.
    """
    _check(options)
    run = RunFolder(options.out or Path("runs") / _run_id(options.model))
    sealed = _policy(options, run)
    suites = make_suites(sealed.policy, run.path)  # a policy that cannot run is refused before any work
    for suite in suites:
        suite.require()
    urls = _urls(options)
    if not options.resume:
        with reporter.stage("preflight"):
            preflight(sealed.policy, suites, run.path, urls)
    reporter.say(f"policy {sealed.policy.name} (sha256 {sealed.sha256[:12]}), run folder {run.path}")
    models = _models(options, run, sealed, reporter)
    with run.lock():
        for role in end_dead_run(run.path / "logs"):
            reporter.say(f"ended the {role} server that an earlier run left behind")
        for suite in suites:
            suite.begin()
        job = Job(run, sealed, _manifest(options, run, sealed, models), suites, {}, reporter)
        in_turn = [suite.name for suite in suites if suite.alternates]
        if options.resume and (again := forget_passing_errors(run, job.manifest, in_turn)):
            reporter.say(f"{again} samples are asked again: their server or container had failed")
        _make_items(job)
        if not options.resume:
            require_targets(sealed.policy, job.manifest.planned)
        require_graders(job)
        if options.baseline:
            _use_baseline(job, RunFolder(options.baseline))
        try:
            ask_everything(job, urls)
            job.manifest.samples = run.sample_files()
            job.save()
            verdict = judge_run(run)
        finally:
            job.manifest.stages += reporter.stages
            job.save()
        with reporter.stage("report"):  # told on the terminal alone: the report says where the time before it went
            render_run(run, options.single_file)
    return run, verdict


def _check(options: GateOptions) -> None:
    spared = options.candidate_url is not None and options.baseline is not None
    if (options.candidate_url is None) != (options.reference_url is None) and not spared:
        raise BadInput(
            "--candidate-url and --reference-url go together: give both or none (with --baseline the candidate's alone)"
        )
    if options.resume and options.out is None:
        raise BadInput("--resume needs --out RUN, the run folder to go on with")
    urls = _urls(options)
    if urls and len(set(urls.values())) < len(urls):
        raise NotComparable("both URLs are the same server: there is nothing to compare")


def judge_run(run: RunFolder, policy: SealedPolicy | None = None) -> Verdict:
    """Decide on a stored run and store the verdict. No server is needed.

    Raises:
        BadInput: a run folder that cannot be read, or a policy or samples edited after they were sealed.
        NotComparable: a server did not stay what it was while it was asked.
    """
    sealed = run.sealed_policy()
    chosen = policy or sealed
    run.require_untouched()
    found = readbacks(run.manifest())
    require_steady(found)
    doubts = [f"the {role} server was not checked after it was asked (--resume does it)" for role in unchecked(found)]
    if all(found.get(role) for role in ROLES):
        hidden = forbidden_unread(found["reference"], found["candidate"], chosen.policy.allow_unreadable)
        if hidden:
            doubts.append(f"{hidden.sentence}, which policy {chosen.policy.name} does not allow: {hidden.listed}")
    samples = (sample.without_texts() for sample in with_missing_sums(run.samples(), run.path / "divergence"))
    verdict = judge(chosen.policy, samples, run.planned(), chosen.sha256, sealed, doubts)
    if verdict.after_the_fact:
        write_whole(run.path / "judged_by.yaml", chosen.text)
    run.write_verdict(verdict)
    return verdict


def render_run(run: RunFolder, single_file: bool = False) -> Path:
    """Write the report of a run; returns its index.html. With `single_file` that one needs no file beside it."""
    from reports.render import render

    return render(run.path, single_file=single_file)


def _run_id(model: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{re.sub(r'[^a-zA-Z0-9._-]+', '-', Path(model).name) or 'model'}"


def _policy(options: GateOptions, run: RunFolder) -> SealedPolicy:
    """The policy asked for; when resuming, the sealed one, which another may not replace."""
    if not options.resume:
        run.require_new()
        return load_policy(options.policy or "demo")
    run.require_begun()
    sealed = run.sealed_policy()
    if options.policy and load_policy(options.policy).sha256 != sealed.sha256:
        raise BadInput(f"{run.path} was begun with another policy; resume without --policy, or begin a new run")
    return sealed


def _models(options: GateOptions, run: RunFolder, sealed: SealedPolicy, reporter: Reporter) -> dict[Role, ModelFacts]:
    """Both checkpoints: found, made where MODEL is an original with nothing to compare it with, and described.

    A resumed run whose reference is not named again has that of its manifest, from the folder where it was.

    Raises:
        BadInput: a model that cannot be used, or no reference known. NotComparable: both are the same checkpoint.
    """
    with reporter.stage("models") as meter:
        given = resolve_model(options.model, reporter.say)
        asked = bool(options.recipe or options.size.words())
        is_original = quantization_of(given) is None or (asked and is_source(given))
        was = run.manifest().models if options.resume else {}
        # Compared with something else it is a candidate in 16 bits, such as what `dequantize` made of codes.
        named = options.reference not in (None, options.model) and not asked
        is_candidate = (
            options.candidate_url is not None or not is_original or named or _was(given, was.get("candidate"))
        )
        if is_candidate and asked:
            raise BadInput(f"{options.model} is not quantized here: leave out --recipe, --bits and --bytes")
        if not is_candidate:
            require_original(options.model, given)
        before = None if options.reference else was.get("reference")
        own = base_model_of(given) if is_candidate else options.model
        name = before.name if before else options.reference or own
        if name is None:
            raise BadInput(f"the reference of {options.model} is unknown (no base_model in its card): give --reference")
        meter.update(text=name)
        reference = Path(before.path) if before and Path(before.path).is_dir() else resolve_model(name, reporter.say)
    if options.candidate_url is None:
        require_shape(sealed.policy.serving, {options.model: given, name: reference})
    recipe = options.recipe or sealed.policy.recipe
    candidate = given if is_candidate else quantized(given, recipe, reporter, sealed.policy, options.size)
    label = options.model if is_candidate else " ".join([options.model, recipe, *options.size.words()])
    with reporter.stage("hashes"):
        facts: dict[Role, ModelFacts] = {
            "reference": describe(name, reference),
            "candidate": describe(label, candidate),
        }
    if facts["reference"].sha256 == facts["candidate"].sha256:
        raise NotComparable(f"both roles are the same checkpoint ({reference}): there is nothing to compare")
    facts["candidate"].doubts += pair_doubts(facts["reference"], facts["candidate"])
    for role, found in facts.items():
        for doubt in found.doubts:
            reporter.say(f"doubt about the {role}: {doubt}")
    return facts


def _was(model: Path, before: ModelFacts | None) -> bool:
    """Whether it is that checkpoint of an earlier run, by its folder."""
    return before is not None and Path(before.path) == model.resolve()


def _manifest(options: GateOptions, run: RunFolder, sealed: SealedPolicy, models: dict[Role, ModelFacts]) -> Manifest:
    """The manifest of a new run, or that of the run being resumed when it speaks of the same models."""
    if options.resume:
        manifest = run.manifest()
        run.require_untouched()
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
        command=hide_secrets(["quantgate", *sys.argv[1:]]),
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
    reference, tokenizer = job.manifest.models["reference"], None
    with job.reporter.stage("items") as meter:
        for suite in job.suites:
            meter.update(text=suite.name)
            if suite.name not in job.manifest.items_sha256:
                tokenizer = tokenizer or load_tokenizer(Path(reference.path), reference.name)
                job.manifest.thinking_opened = opens_thinking(tokenizer)
                items = meter.each(made_items(suite, tokenizer, reference.name))
                job.manifest.items_sha256[suite.name] = job.run.write_items(suite.name, items)
                job.save()
            stored = job.run.items(suite.name)
            job.manifest.planned |= Counter(f"{suite.name}/{item.task}" for item in stored)
            job.items[suite.name] = order_items(suite, stored, job.sealed)
    job.save()


def _use_baseline(job: Job, earlier: RunFolder) -> None:
    """Take the reference's samples from an earlier run, if that run was the same for the reference."""
    if job.manifest.baseline:  # a resumed run has them already
        return
    found = mismatches(earlier, job.sealed.policy, job.manifest)
    if found:
        job.reporter.say(f"baseline {earlier.path} is not used, the reference is asked: {'; '.join(found)}")
        return
    with_files = [suite.name for suite in job.suites if suite.reference_first]
    # What measures a server is measured of both at the same time: yesterday's speed is no pair for today's.
    items = {suite.name: job.items[suite.name] for suite in job.suites if not suite.alternates}
    taken = reuse(earlier, job.run, job.sealed.policy, job.manifest, items, with_files)
    job.save()
    job.reporter.say(f"baseline {earlier.path}: {taken} samples of the reference are used again")


def _urls(options: GateOptions) -> dict[Role, str] | None:
    given: dict[Role, str | None] = {"reference": options.reference_url, "candidate": options.candidate_url}
    if not options.candidate_url:
        return None
    return {role: server_root(url, f"--{role}-url") for role, url in given.items() if url}
