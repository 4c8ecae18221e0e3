"""Whole gates in processes of their own, disturbed and gone on with, and what must be true of their run folders.

A process is a fork of one that has loaded everything (torch, lm-eval: ten seconds), so that a test can afford dozens.
It runs the command with its own signal handlers, is the leader of its session and may be killed like any other.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from harness.contract.error_kinds import PASSING, error_kind
from harness.contract.samples import Key, Sample
from harness.runs.folder import RunFolder
from harness.runs.positions import position_summary

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.endurance.warm"])
LIMIT_SECONDS = 900
"""No gate of these tests takes so long, on a machine that does ten other things: one that does hangs."""

POLICY = """\
name: endurance
serving: {max_model_len: 4096, max_logprobs: 20, placement: sequential, ready_timeout_seconds: 900}
sampling: {temperature: 0.0, max_tokens: 64}
requests: {concurrency: 8, retries: 2, min_tokens_per_second: 50}
suites:
  divergence: {trajectories: 8, max_tokens: 32, top_logprobs: 20}
  cot: {tasks: {word_problems: {limit: 48}}}
noise_floor: {by: seed, items: 4}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.3}
  - {metric: kl_mean, on: divergence, max: 0.5}
"""

Prepare = Callable[..., None]
"""Called in the gate's process before the command, with the arguments that stand beside it."""


@dataclass
class Gate:
    """One run folder and the command that fills it."""

    out: Path
    models: Path
    """Folder of the checkpoints `candidate` and `reference`."""
    policy: Path
    urls: Mapping[str, str] = field(default_factory=dict)
    """By role; the gate serves itself without."""
    environment: dict[str, str] = field(default_factory=dict)
    log: Path = Path()
    """What it says; beside the run folder unless told otherwise."""
    tries: int = 0
    sessions: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.log == Path():
            self.log = self.out.with_suffix(".log")

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.out)

    def arguments(self) -> list[str]:
        """The command as a user gives it: --resume when there is something to go on with."""
        made = ["gate", str(self.models / "candidate"), "--reference", str(self.models / "reference")]
        made += ["--out", str(self.out)]
        made += ["--resume"] if self.run.manifest_path.exists() else ["--policy", str(self.policy)]
        for role, url in self.urls.items():
            made += [f"--{role}-url", url]
        return made

    def start(self, prepare: Prepare | None = None, *arguments: Any) -> BaseProcess:
        """Begin, or go on with, the run."""
        self.tries += 1
        os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "tests" / "helpers")))
        process = CONTEXT.Process(
            target=_run, args=(self.arguments(), self.log, self.environment, prepare, arguments), daemon=False
        )
        process.start()
        assert process.pid is not None
        self.sessions.append(process.pid)
        return process

    def wait(self, process: BaseProcess, limit: float = LIMIT_SECONDS) -> int:
        """The exit code of a gate. Fails when it hangs, or ends in a way that is not designed."""
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"the gate hangs after {limit:.0f} s:\n{self.said()}")
        return process.exitcode

    def finish(self, most: int = 25, prepare: Prepare | None = None, *arguments: Any) -> int:
        """Run and resume until there is a verdict on answers alone. Returns the exit code."""
        for _ in range(most):
            status = self.wait(self.start(prepare, *arguments))
            assert status in (0, 1, 2, 4), f"exit code {status}:\n{self.said()}"
            if status != 4 and not passing_errors(self.run):
                return status
        raise AssertionError(f"no verdict after {most} tries:\n{self.said()}")

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")[-4000:] if self.log.exists() else ""


def _run(
    arguments: list[str], log: Path, environment: dict[str, str], prepare: Prepare | None, others: tuple[Any, ...]
) -> None:
    """In the gate's own process."""
    from harness import cli

    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environment)
    sys.argv = ["quantgate", *arguments]
    if prepare is not None:
        prepare(*others)
    cli.main()


def passing_errors(run: RunFolder) -> int:
    """Samples with an error that --resume asks again."""
    return sum(error_kind(sample.error) in (*PASSING, "reference") for sample in run.samples())


def raw_samples(run: RunFolder) -> list[Sample]:
    """Every line of samples/, read with nothing that would hide a fault; a half line fails."""
    found = []
    for path in sorted((run.path / "samples").glob("*.jsonl")):
        data = path.read_bytes()
        assert not data or data.endswith(b"\n"), f"{path} ends in half a line"
        found += [Sample.model_validate_json(line) for line in data.splitlines()]
    return found


def answers(run: RunFolder) -> dict[Key, dict[str, Any]]:
    """What each sample says, but for the time that it took. Fails when a key is there twice."""
    samples = raw_samples(run)
    counts = Counter(sample.key for sample in samples)
    assert not [key for key, count in counts.items() if count > 1], "a key is there twice"
    return {sample.key: sample.model_dump(exclude={"seconds"}) for sample in samples}


def require_same(gate: Gate, undisturbed: RunFolder) -> None:
    """The run is what it is without faults: every key once, each answer, each position, the verdict; nothing left."""
    mine, theirs = answers(gate.run), answers(undisturbed)
    assert mine.keys() == theirs.keys()
    other = {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}
    assert not other, f"{len(other)} samples are other ones, such as {next(iter(other.values()))}"
    verdicts = [json.loads((run.path / "verdict.json").read_bytes()) for run in (gate.run, undisturbed)]
    assert verdicts[0] == verdicts[1]
    for role in ("candidate", "noise"):
        found = [position_summary(run.path / "divergence", role) for run in (gate.run, undisturbed)]
        assert found[0] == found[1] and found[0] is not None
    gate.run.require_untouched()
    assert (gate.run.report_path / "index.html").stat().st_size > 10_000
    assert not list(gate.out.rglob(".*.tmp")), "a file that was half written is left"
    require_no_orphan(gate)


def require_no_orphan(gate: Gate, seconds: float = 40) -> None:
    """Nothing lives on of the gate's sessions, nor of what it started with its run folder in its command."""
    deadline = time.monotonic() + seconds
    while left := orphans(gate):
        assert time.monotonic() < deadline, f"left behind: {[process.cmdline() for process in left]}"
        time.sleep(0.2)


def orphans(gate: Gate) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            of_session = os.getsid(process.pid) in gate.sessions
            if of_session or any(str(gate.models) in word for word in process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(gate: Gate, process: BaseProcess, condition: Callable[[], bool], what: str) -> None:
    """Wait until something is true of a run that goes on. Fails when it ends before, or after LIMIT_SECONDS."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.exitcode is None, f"the gate ended before {what}:\n{gate.said()}"
        assert time.monotonic() < deadline, f"no {what} after {LIMIT_SECONDS} s:\n{gate.said()}"
        time.sleep(0.01)


def samples_of(gate: Gate) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (gate.out / "samples").glob("*.jsonl"))


def send(process: BaseProcess, number: signal.Signals) -> None:
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, number)
