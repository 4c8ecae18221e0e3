"""Judge results made elsewhere: two lm-eval folders, two swebench reports, or the candidates of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from harness.contract.errors import BadInput
from harness.contract.policy import Policy, validate
from harness.contract.samples import sha256_of
from harness.judging.verdict import Verdict, judge
from harness.offline.lm_eval_samples import has_lm_eval_files, read_lm_eval
from harness.offline.results import Results
from harness.offline.swebench_report import read_swebench
from harness.offline.two_runs import read_runs

ResultKind = Literal["a quantgate run", "an lm-eval folder", "a swebench report"]

MAX_UNUSABLE = 0.01
"""Share of pairs that may lack a result; less where the margin is less, or what is lacking could hide all of it."""
LEAST_TO_LOSE = 0.05
"""A reference must score this much above the margin, or not even a candidate without a right answer would stand out."""


def compare_results(
    reference: Path, candidate: Path, max_loss: float, metric: str | None = None, confidence: float = 0.95
) -> Verdict:
    """Judge each task of two results of the same kind: the candidate may lose at most `max_loss` (0.01 is one point).

    Raises:
        BadInput: results that cannot be used, of different kinds, or the same ones; a margin outside [0, 1].
        NotComparable: two runs that were sampled or served differently; two swebench reports of other instances.
        OSError: a file cannot be read.
    """
    results = _read(reference, candidate, metric)
    suites = sorted({suite for suite, *_ in results.planned})
    floor = min(1.0, max_loss + LEAST_TO_LOSE)
    check = {"metric": "accuracy", "max_loss": max_loss, "floor": floor}
    fields = {
        "name": "compare",
        "suites": {suite: {} for suite in suites},
        "checks": [check | {"on": f"{suite}/*"} for suite in suites],
        "confidence": confidence,
        "max_unusable": min(MAX_UNUSABLE, max_loss),
    }
    policy = validate(Policy, fields, "compare")
    return judge(policy, results.samples, results.planned, sha256_of(policy.model_dump(mode="json")))


def to_json(verdict: Verdict) -> str:
    """The verdict on each task as one JSON object."""
    tasks = []
    for check in verdict.checks:
        suite, task = check.on.split("/", 1)
        known = check.model_dump(mode="json", exclude={"name", "metric", "on", "unit", "stop", "noise"})
        tasks.append({"suite": suite, "task": task} | known)
    return json.dumps({"verdict": verdict.verdict, "reason": verdict.reason, "tasks": tasks}, indent=2)


def _read(reference: Path, candidate: Path, metric: str | None) -> Results:
    kind, other = _kind(reference), _kind(candidate)
    if kind != other:
        raise BadInput(f"two kinds of results: {reference} is {kind}, {candidate} is {other}; give two of one kind")
    if reference.resolve() == candidate.resolve():
        raise BadInput(f"{reference} and {candidate} are the same results: there is nothing to compare")
    if kind == "an lm-eval folder":
        return read_lm_eval(reference, candidate, metric)
    if metric is not None:
        raise BadInput(f"--metric chooses among the metrics of lm-eval; {kind} has one score")
    return read_swebench(reference, candidate) if kind == "a swebench report" else read_runs(reference, candidate)


def _kind(path: Path) -> ResultKind:
    """What the results at `path` are, by their files' names."""
    if path.is_dir():
        if (path / "manifest.json").exists():
            return "a quantgate run"
        if has_lm_eval_files(path):
            return "an lm-eval folder"
        raise BadInput(
            f"{path} is neither a run folder (manifest.json) nor one of lm-eval (samples_<task>_<time>.jsonl)"
        )
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    if path.suffix == ".jsonl" or path.match("results_[0-9][0-9][0-9][0-9]-*.json"):
        raise BadInput(f"{path} is a file; of lm-eval's results name the folder, of swebench's the report")
    return "a swebench report"
