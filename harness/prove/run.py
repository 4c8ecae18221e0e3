"""From a good model to a proof: controls are gated, then each entry against its control's reference."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import __version__
from harness.checkpoint.models import resolve_model
from harness.contract.errors import RunFailed
from harness.contract.model_facts import ModelFacts
from harness.contract.policy import load_policy
from harness.contract.whole_files import write_whole
from harness.prove.bench import Bench, bench_of, facts_of, own_bench, seal
from harness.prove.catalogue import BY_NAME, chosen
from harness.prove.document import markdown, page
from harness.prove.entries import Entry, Good, NotApplicable
from harness.prove.findings import Finding, Proof, not_run
from harness.prove.gating import gated, known, read
from harness.prove.jobs import Task, done_in_turn, require_jobs
from harness.prove.seeds import policy_of_seed
from harness.prove.weakest import find_weakest, known_weakest
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from harness.serving.hardware import detect

NOT_REACHED = "not reached yet: --resume goes on"


@dataclass(frozen=True)
class ProveOptions:
    """What the command line says."""

    model: str
    policy: str
    out: Path
    only: tuple[str, ...] = ()
    resume: bool = False
    jobs: int = 1
    """Gates at a time, each with its share of the cores."""
    seeds: int = 1
    weakest: bool = False
    """Find the weakest dose of each defect too."""


@dataclass
class Bout:
    """One seed of a proof: what there is to gate, and what is known."""

    options: ProveOptions
    facts: ModelFacts
    benches: dict[str, Bench]
    """By entry, of those that apply."""
    entries: Sequence[Entry]
    found: dict[str, Finding]
    reporter: Reporter


def prove(options: ProveOptions, reporter: Reporter) -> Proof:
    """Gate every chosen entry and write what came of it: OUT/proof.json, sensitivity.md and index.html.

    All three are written after each entry, so that an interruption loses what is being gated at most; `resume` goes on
    there. Further seeds are proofs of their own, in OUT/seed-N.

    Raises:
        BadInput: an entry that is not in the catalogue, a model or a policy that cannot be used, or a folder of other
            ones. RunFailed: the control could not be gated, or another process is at work in the folder.
    """
    require_jobs(options.jobs, load_policy(options.policy).policy)
    entries = chosen(options.only)
    with RunFolder(options.out).lock():
        bout = _begin(options, options.out, 0, entries, reporter)
        proof = _go_on(bout)
        for seed in range(1, options.seeds):
            other = _begin(options, options.out / f"seed-{seed + 1}", seed, entries, reporter)
            statuses = {finding.name: finding.status for finding in _go_on(other).findings}
            for name, finding in bout.found.items():
                if finding.status != "not run":
                    bout.found[name] = finding.model_copy(update={"seeds": [*finding.seeds, statuses[name]]})
            proof = _write(bout)
        if options.weakest:
            proof = _weakest(bout)
    return proof


def _begin(options: ProveOptions, out: Path, seed: int, entries: Sequence[Entry], reporter: Reporter) -> Bout:
    """A folder, its good models, and what is known without a gate: what an entry lacks, and what was found before."""
    good = resolve_model(options.model, reporter.say)
    policy = policy_of_seed(options.policy, seed, out) if seed else options.policy
    hardware = detect()
    own = own_bench(out, options.model, good, policy, seed)
    facts = facts_of(own)
    seal(own, facts, options.resume)
    benches: dict[str, Bench] = {}
    found: dict[str, Finding] = {}
    of_good: dict[Good, Bench | NotApplicable] = {}
    for entry in entries:
        if lacking := entry.lacks(hardware):
            found[entry.name] = not_run(entry, f"needs {lacking}")
            continue
        if entry.good not in of_good:
            of_good[entry.good] = _bench(entry.good, own, reporter)
        bench = of_good[entry.good]
        if isinstance(bench, NotApplicable):
            found[entry.name] = not_run(entry, f"not of this model: {bench}")
        elif entry.control and entry.name != bench.control:
            found[entry.name] = not_run(entry, f"the model is such a one itself, and {bench.control} its control")
        else:
            benches[entry.name] = bench
            before = known(bench.folder(entry), entry)
            found |= {entry.name: before} if before else {}
    return Bout(options, facts, benches, entries, found, reporter)


def _bench(good: Good, own: Bench, reporter: Reporter) -> Bench | NotApplicable:
    try:
        with reporter.stage("good models") if good != "own" else nullcontext():
            return bench_of(good, own)
    except NotApplicable as why:
        return why


def _go_on(bout: Bout) -> Proof:
    """Gate what is not known yet: controls first, then what is compared with them."""
    proof = _write(bout)
    waiting = sorted(bout.benches.keys() - bout.found.keys(), key=lambda name: _turn(bout, name))
    tasks: list[tuple[str, Task, Path]] = [
        (name, partial(gated, bout.benches[name], name), bout.benches[name].folder(BY_NAME[name])) for name in waiting
    ]

    def ready(name: str) -> bool:
        return bout.benches[name].control in (name, *bout.found)

    for number, name in enumerate(done_in_turn(tasks, bout.options.jobs, bout.reporter, ready), start=1):
        finding = read(bout.benches[name].folder(BY_NAME[name]))
        bout.reporter.say(f"-- {number} of {len(waiting)}: {name}: {finding.status}; {finding.reason}")
        bout.found[name] = finding
        if bout.benches[name].control == name and finding.verdict is None:
            _leave_out(bout, name)
            tasks[:] = [task for task in tasks if task[0] not in bout.found]
        proof = _write(bout)
    return proof


def _turn(bout: Bout, name: str) -> tuple[bool, int]:
    """Controls first, the rest as the catalogue has it."""
    return bout.benches[name].control != name, list(BY_NAME).index(name)


def _leave_out(bout: Bout, control: str) -> None:
    """What has no control cannot be compared. Raises RunFailed: the given model has none."""
    why = f"the control could not be gated, so nothing can be proved: {bout.found[control].reason}"
    if BY_NAME[control].good == "own":
        raise RunFailed(why)
    for name, bench in bout.benches.items():
        if bench.control == control and name != control:
            bout.found[name] = not_run(BY_NAME[name], why)


def _weakest(bout: Bout) -> Proof:
    """Find the weakest dose of every entry that has some, one entry after the other or several at a time."""
    out = {name: bench.folder(BY_NAME[name]) for name, bench in bout.benches.items() if BY_NAME[name].doses}
    waiting = [name for name in out if not known_weakest(bout.benches[name], BY_NAME[name])]
    tasks: list[tuple[str, Task, Path]] = [
        (name, partial(find_weakest, bout.benches[name], name), out[name]) for name in waiting
    ]
    proof = _write(bout)
    for name in done_in_turn(tasks, bout.options.jobs, bout.reporter):
        found = known_weakest(bout.benches[name], BY_NAME[name])
        bout.reporter.say(f"-- {name}: " + (f"caught: {found.caught}, not {found.not_caught}" if found else "no doses"))
        proof = _write(bout)
    return proof


def _write(bout: Bout) -> Proof:
    """Write the proof as far as it goes: what was not reached is listed as not run."""
    machine, options, own = detect(), bout.options, next(iter(bout.benches.values()))
    weakest = [known_weakest(bench, BY_NAME[name]) for name, bench in bout.benches.items() if BY_NAME[name].doses]
    proof = Proof(
        quantgate_version=__version__,
        command=_command(options),
        model=options.model,
        model_sha256=bout.facts.sha256,
        policy=own.sealed.policy.name,
        policy_sha256=own.sealed.sha256,
        machine=", ".join(gpu.name for gpu in machine.gpus) or f"{len(machine.cpus)} cores of {machine.processor}",
        seeds=options.seeds,
        findings=[bout.found.get(entry.name) or not_run(entry, NOT_REACHED) for entry in bout.entries],
        weakest=[found for found in weakest if found],
    )
    write_whole(own.out / "proof.json", proof.model_dump_json(indent=2) + "\n")
    write_whole(own.out / "sensitivity.md", markdown(proof))
    write_whole(own.out / "index.html", page(proof))
    return proof


def _command(options: ProveOptions) -> str:
    words = ["quantgate", "prove", "--policy", options.policy, "--model", options.model]
    words += [word for name in options.only for word in ("--only", name)]
    words += ["--jobs", str(options.jobs)] if options.jobs > 1 else []
    words += ["--seeds", str(options.seeds)] if options.seeds > 1 else []
    return shlex.join([*words, *(["--weakest"] if options.weakest else [])])
