"""One entry: its candidate is made, gated for real, and removed again."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from harness.contract.errors import BadInput, GateError, first_error
from harness.contract.samples import Role
from harness.contract.whole_files import write_whole
from harness.gate.pipeline import GateOptions, judge_run, run_gate
from harness.judging.verdict import Verdict
from harness.prove.bench import RESULT, Bench
from harness.prove.catalogue import BY_NAME
from harness.prove.entries import Entry, NotApplicable
from harness.prove.findings import Finding, not_run, of_refusal, of_verdict
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from harness.serving.flags import plan_servers
from harness.serving.hardware import detect
from harness.serving.servers import end_dead_run, serve

LOG_BYTES = 200_000
"""Of the end of a server's log that is looked at."""


def known(folder: Path, entry: Entry) -> Finding | None:
    """What an earlier part of this proof found; not of a run that failed, nor of an entry stated otherwise then."""
    if not (folder / RESULT).exists():
        return None
    finding = read(folder)
    same = finding.expected == str(entry.expected) and finding.damage == entry.damage
    return finding if same and finding.status != "not run" else None


def read(folder: Path) -> Finding:
    """What came of an entry. Raises BadInput."""
    path = folder / RESULT
    try:
        return Finding.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path}: {first_error(error, 'file')}; remove it and resume") from None


def gated(bench: Bench, name: str, *, reporter: Reporter, dose: float | None = None) -> Finding:
    """Make a candidate, gate it, and keep what came of it; the checkpoint is removed again.

    Raises:
        OSError: a file cannot be written.
    """
    entry, started, used = BY_NAME[name], time.monotonic(), _processor_seconds()
    reporter.say(f"-- {name}: {entry.damage}; stated: {entry.expected}")
    folder = bench.folder(entry) if dose is None else bench.folder(entry) / "doses" / f"{dose:g}"
    try:
        finding = _judged(bench, entry, folder, reporter, dose)
    except NotApplicable as why:
        finding = not_run(entry, f"not of this model: {why}")
    except GateError as error:
        said = _without_paths(bench, str(error))
        finding = of_refusal(entry, error.exit_code, said, time.monotonic() - started, _log(folder))
    finally:
        if not entry.control and (folder / "model").exists():
            shutil.rmtree(folder / "model")
    times = {"seconds": time.monotonic() - started, "processor_seconds": _processor_seconds() - used}
    finding = finding.model_copy(update={name: round(seconds, 1) for name, seconds in times.items()})
    write_whole(folder / RESULT, finding.model_dump_json(indent=2) + "\n")
    return finding


def _processor_seconds() -> float:
    """Of this process and of those that it waited for."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def _log(folder: Path) -> str:
    """The end of what the candidate's server wrote."""
    path = folder / "run" / "logs" / "candidate.log"
    return path.read_bytes()[-LOG_BYTES:].decode("utf-8", "replace") if path.exists() else ""


def _without_paths(bench: Bench, text: str) -> str:
    """What the gate said, for a document that leaves this machine."""
    return text.replace(f"{bench.out}/", "").replace(str(bench.good), bench.model)


def _judged(bench: Bench, entry: Entry, folder: Path, reporter: Reporter, dose: float | None) -> Finding:
    control = BY_NAME[bench.control]
    if entry.after:
        run = RunFolder(_afresh(folder / "run"))
        shutil.copytree(bench.run(control).path, run.path)
        entry.after(run)
        return of_verdict(entry, judge_run(run), [], 0)
    of_control = bench.folder(control) / "model"
    model = _afresh(folder / "model")
    if not entry.write(of_control if entry.of_control else bench.good, model, bench.seed, dose):
        model = of_control
    with entry.during() if entry.during else nullcontext():
        run, verdict = _gate(bench, entry, folder, model, reporter)
    return of_verdict(entry, verdict, run.manifest().models["candidate"].doubts, 0)


def _gate(bench: Bench, entry: Entry, folder: Path, model: Path, reporter: Reporter) -> tuple[RunFolder, Verdict]:
    run = RunFolder(folder / "run")
    options = GateOptions(
        model=str(model),
        reference=bench.model,
        policy=bench.policy,
        out=run.path,
        resume=run.manifest_path.exists(),
        baseline=None if entry.name == bench.control else bench.run(BY_NAME[bench.control]).path,
    )
    if not entry.attached:
        return run_gate(options, reporter)
    # A server with flags of its own is one that somebody else has started.
    with _served(bench, entry, folder, bench.good if entry.serves_reference else model, reporter) as url:
        return run_gate(replace(options, candidate_url=url), reporter)


@contextmanager
def _served(bench: Bench, entry: Entry, folder: Path, model: Path, reporter: Reporter) -> Iterator[str]:
    """The URL of a server of the candidate, with the gate's flags and the entry's after them, which win."""
    serving, logs = bench.sealed.policy.serving, folder / "logs"
    end_dead_run(logs)
    paths: dict[Role, Path] = {"candidate": model}
    if serving.placement == "together":  # the share of the machine that the control's candidate had
        paths = {"reference": bench.good, "candidate": model}
    plan = plan_servers(serving, paths, detect(), entry.name)[-1]
    plan = replace(plan, command=[*plan.command, *entry.flags])
    with ExitStack() as stack:
        with reporter.stage("server", 1) as meter:
            stack.enter_context(serve([plan], logs, serving.ready_timeout_seconds, meter))
        yield plan.url


def _afresh(folder: Path) -> Path:
    """A folder that is not there: what an interrupted proof left in its place is removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder
