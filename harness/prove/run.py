"""From a good model to a proof: the control is gated, then each entry against the control's reference."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from harness import __version__
from harness.checkpoint.models import describe, resolve_model
from harness.contract.errors import BadInput, GateError, RunFailed, first_error
from harness.contract.model_facts import ModelFacts
from harness.contract.policy import SealedPolicy, load_policy
from harness.contract.samples import Role, sha256_of
from harness.contract.whole_files import read_json, write_whole
from harness.gate.pipeline import GateOptions, judge_run, run_gate
from harness.judging.verdict import Verdict
from harness.prove.catalogue import chosen
from harness.prove.document import markdown, page
from harness.prove.entries import Entry, NotApplicable
from harness.prove.findings import Finding, Proof, not_run, of_refusal, of_verdict
from harness.prove.weights import CONTROL
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from harness.serving.flags import plan_servers
from harness.serving.hardware import detect
from harness.serving.servers import end_dead_run, serve

SEAL, RESULT = "prove.json", "finding.json"


@dataclass(frozen=True)
class ProveOptions:
    """What the command line says."""

    model: str
    policy: str
    out: Path
    only: tuple[str, ...] = ()
    resume: bool = False


@dataclass(frozen=True)
class Bench:
    """What every entry is made of and gated with."""

    options: ProveOptions
    sealed: SealedPolicy
    good: Path
    """Folder of the good model, the reference of all."""
    facts: ModelFacts
    reporter: Reporter

    def folder(self, entry: Entry) -> Path:
        return self.options.out / entry.name

    def run(self, entry: Entry) -> RunFolder:
        return RunFolder(self.folder(entry) / "run")


def prove(options: ProveOptions, reporter: Reporter) -> Proof:
    """Gate every chosen entry and write what came of it: OUT/proof.json, sensitivity.md and index.html.

    All three are written after each entry, so that an interruption loses one at most; `resume` goes on there.

    Raises:
        BadInput: an entry that is not in the catalogue, a model or a policy that cannot be used, or a folder of other
            ones. RunFailed: the control could not be gated, or another process is at work in the folder.
    """
    entries = chosen(options.only)
    sealed = load_policy(options.policy)
    good = resolve_model(options.model, reporter.say)
    bench = Bench(options, sealed, good, describe(options.model, good), reporter)
    with RunFolder(options.out).lock():
        _seal(bench)
        return _go_on(bench, entries)


def _go_on(bench: Bench, entries: Sequence[Entry]) -> Proof:
    """Gate what is not known yet."""
    found = {entry.name: finding for entry in entries if (finding := _known(bench, entry))}
    proof = _write(bench, entries, found)
    waiting = [entry for entry in entries if entry.name not in found]
    for number, entry in enumerate(waiting, start=1):
        bench.reporter.say(f"-- {number} of {len(waiting)}: {entry.name}: {entry.damage}; stated: {entry.expected}")
        finding = _gated(bench, entry)
        if entry is CONTROL and finding.verdict is None:
            raise RunFailed(f"the control could not be gated, so nothing can be proved: {finding.reason}")
        bench.reporter.say(f"-- {entry.name}: {finding.status}; {finding.reason}")
        found[entry.name] = finding
        proof = _write(bench, entries, found)
    return proof


def _seal(bench: Bench) -> None:
    """Begin the folder, or see that it was begun with the same. Raises BadInput."""
    seal = {"policy": bench.sealed.sha256, "model": bench.facts.sha256, "quantgate": __version__}
    path = bench.options.out / SEAL
    if not path.exists():
        write_whole(path, f'{{"sha256": "{sha256_of(seal)}"}}\n')
    elif not bench.options.resume:
        raise BadInput(f"{bench.options.out} already holds a proof; add --resume to go on, or choose another --out")
    elif read_json(path).get("sha256") != sha256_of(seal):
        raise BadInput(f"{bench.options.out} was begun with another model, policy or version; choose another --out")


def _known(bench: Bench, entry: Entry) -> Finding | None:
    """What is known of an entry without a gate: what it needs, or what an earlier part of this proof found.

    Not that of a run that failed, nor of an entry that was stated otherwise then.
    """
    if entry.needs:
        return not_run(entry, f"needs {entry.needs}")
    path = bench.folder(entry) / RESULT
    if not path.exists():
        return None
    try:
        finding = Finding.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path}: {first_error(error, 'file')}; remove it and resume") from None
    same = finding.expected == str(entry.expected) and finding.damage == entry.damage
    return finding if same and finding.status != "not run" else None


def _gated(bench: Bench, entry: Entry) -> Finding:
    """Make a candidate, gate it, and keep what came of it; the checkpoint is removed again."""
    started, folder = time.monotonic(), bench.folder(entry)
    try:
        finding = _judged(bench, entry, started)
    except NotApplicable as why:
        finding = not_run(entry, f"not of this model: {why}")
    except GateError as error:
        finding = of_refusal(entry, error.exit_code, _without_paths(bench, str(error)), time.monotonic() - started)
    finally:
        if entry is not CONTROL and (folder / "model").exists():
            shutil.rmtree(folder / "model")
    write_whole(folder / RESULT, finding.model_dump_json(indent=2) + "\n")
    return finding


def _without_paths(bench: Bench, text: str) -> str:
    """What the gate said, for a document that leaves this machine."""
    return text.replace(f"{bench.options.out}/", "").replace(str(bench.good), bench.options.model)


def _judged(bench: Bench, entry: Entry, started: float) -> Finding:
    control = bench.run(CONTROL)
    if entry.after:
        run = RunFolder(_afresh(bench.folder(entry) / "run"))
        shutil.copytree(control.path, run.path)
        entry.after(run)
        return of_verdict(entry, judge_run(run), [], time.monotonic() - started)
    model = bench.folder(CONTROL) / "model"
    if entry.make:
        model = _afresh(bench.folder(entry) / "model")
        entry.make(bench.folder(CONTROL) / "model" if entry.of_control else bench.good, model)
    with entry.during() if entry.during else nullcontext():
        run, verdict = _gate(bench, entry, model)
    doubts = run.manifest().models["candidate"].doubts
    return of_verdict(entry, verdict, doubts, time.monotonic() - started)


def _gate(bench: Bench, entry: Entry, model: Path) -> tuple[RunFolder, Verdict]:
    run, control = bench.run(entry), bench.run(CONTROL)
    options = GateOptions(
        model=str(model),
        reference=bench.options.model,
        policy=bench.options.policy,
        out=run.path,
        resume=run.manifest_path.exists(),
        baseline=None if entry is CONTROL else control.path,
    )
    if not entry.attached:
        return run_gate(options, bench.reporter)
    # A server with flags of its own is one that somebody else has started.
    with _served(bench, entry, bench.good if entry.serves_reference else model) as url:
        return run_gate(replace(options, candidate_url=url), bench.reporter)


@contextmanager
def _served(bench: Bench, entry: Entry, model: Path) -> Iterator[str]:
    """The URL of a server of the candidate, with the gate's flags and the entry's after them, which win."""
    serving, logs = bench.sealed.policy.serving, bench.folder(entry) / "logs"
    end_dead_run(logs)
    paths: dict[Role, Path] = {"candidate": model}
    if serving.placement == "together":  # the share of the machine that the control's candidate had
        paths = {"reference": bench.good, "candidate": model}
    plan = plan_servers(serving, paths, detect(), entry.name)[-1]
    plan = replace(plan, command=[*plan.command, *entry.flags])
    with ExitStack() as stack:
        with bench.reporter.stage("server", 1) as meter:
            stack.enter_context(serve([plan], logs, serving.ready_timeout_seconds, meter))
        yield plan.url


def _afresh(folder: Path) -> Path:
    """A folder that is not there: what an interrupted proof left in its place is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def _write(bench: Bench, entries: Sequence[Entry], found: Mapping[str, Finding]) -> Proof:
    """Write the proof as far as it goes: what was not reached is listed as not run."""
    machine, out = detect(), bench.options.out
    only = [word for name in bench.options.only for word in ("--only", name)]
    proof = Proof(
        quantgate_version=__version__,
        command=shlex.join(
            ["quantgate", "prove", "--policy", bench.options.policy, "--model", bench.options.model, *only]
        ),
        model=bench.options.model,
        model_sha256=bench.facts.sha256,
        policy=bench.sealed.policy.name,
        policy_sha256=bench.sealed.sha256,
        machine=", ".join(gpu.name for gpu in machine.gpus) or f"{len(machine.cpus)} cores of {machine.processor}",
        findings=[found.get(entry.name) or not_run(entry, "not reached yet: --resume goes on") for entry in entries],
    )
    write_whole(out / "proof.json", proof.model_dump_json(indent=2) + "\n")
    write_whole(out / "sensitivity.md", markdown(proof))
    write_whole(out / "index.html", page(proof))
    return proof
