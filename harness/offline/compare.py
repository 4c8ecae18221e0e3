"""Judge results made elsewhere: two lm-eval folders, two swebench reports, or the candidates of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.policy import SealedPolicy
from harness.contract.validation import validate
from harness.judging.verdict import EXIT_CODES, Verdict, judge
from harness.offline.compare_policy import laid_onto, not_spoken_of, policy_of
from harness.offline.lm_eval_files import has_lm_eval_files
from harness.offline.lm_eval_samples import SUITE, read_lm_eval
from harness.offline.lm_eval_settings import LmEvalSettings
from harness.offline.results import Results
from harness.offline.swebench_report import read_swebench
from harness.offline.two_runs import read_runs

ResultKind = Literal["a quantgate run", "an lm-eval folder", "a swebench report"]


class Comparison(NamedTuple):
    """Two results, judged."""

    verdict: Verdict
    sealed: SealedPolicy
    """What it was judged by: every task and group by name."""
    results: Results
    notes: tuple[str, ...]
    """What a reader must be told besides: tasks that were not judged, files that do not fit together."""


def compare_results(
    reference: Path, candidate: Path, max_loss: float, metric: str | None = None, confidence: float = 0.95
) -> Verdict:
    """Judge each task and group of two results: the candidate may lose at most `max_loss` (0.01 is one point).

    Raises as `compare` does.
    """
    return compare(reference, candidate, policy_of(max_loss, confidence), metric=metric).verdict


def compare(
    reference: Path,
    candidate: Path,
    policy: SealedPolicy,
    *,
    metric: str | None = None,
    per_task: bool = False,
    texts: bool = False,
) -> Comparison:
    """Judge two results of the same kind by a policy. `metric` and `per_task` stand above what it says of lm-eval.

    With `texts` the results hold what the models wrote, for a report.

    Raises:
        BadInput: results that cannot be used, of different kinds, or the same ones; a policy that does not fit.
        NotComparable: two runs that were sampled or served differently; two swebench reports of other instances.
        OSError: a file cannot be read.
    """
    kind, other = _kind(reference), _kind(candidate)
    if kind != other:
        raise BadInput(f"two kinds of results: {reference} is {kind}, {candidate} is {other}; give two of one kind")
    if reference.resolve() == candidate.resolve():
        raise BadInput(f"{reference} and {candidate} are the same results: there is nothing to compare")
    if kind == "an lm-eval folder":
        said = policy.policy.suites.get(SUITE, {})
        settings = validate(LmEvalSettings, said, f"policy {policy.policy.name}: suites.{SUITE}")
        settings = settings.model_copy(
            update=({"metric": metric} if metric else {}) | ({"per_task": True} if per_task else {})
        )
        results = read_lm_eval(reference, candidate, settings, texts)
    elif metric is not None:
        raise BadInput(f"--metric chooses among the metrics of lm-eval; {kind} has one score")
    elif per_task:
        raise BadInput(f"--per-task takes groups of lm-eval apart; {kind} has none")
    else:
        results = (read_swebench if kind == "a swebench report" else read_runs)(reference, candidate)
    made_of = "" if policy.policy.name == "compare" else f"made of policy {policy.policy.name} (sha256 {policy.sha256})"
    sealed = laid_onto(policy, results, made_of)
    verdict = judge(sealed.policy, results.samples, results.planned, sealed.sha256)
    return Comparison(verdict, sealed, results, (*results.notes, *not_spoken_of(sealed.policy, results)))


def to_json(found: Comparison) -> str:
    """The verdict on each task and group as one JSON object."""
    tasks = []
    for check in found.verdict.checks:
        suite, _, task = check.on.partition("/")
        if suite in found.results.pooled:
            suite, task = SUITE, task or suite
        known = check.model_dump(mode="json", exclude={"name", "on", "unit", "stop", "noise", "tasks"})
        of_tasks = [of_task.model_dump(mode="json") for of_task in check.tasks]
        tasks.append({"suite": suite, "task": task or None} | known | {"subtasks": of_tasks})
    verdict = found.verdict
    said = {"verdict": verdict.verdict, "exit_code": EXIT_CODES[verdict.verdict], "reason": verdict.reason}
    return json.dumps(said | {"warnings": list(found.notes), "tasks": tasks}, indent=2)


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
    of_lm_eval = path.match("samples_*") or path.match("results_[0-9][0-9][0-9][0-9]-*.json")
    if of_lm_eval or path.name.endswith((".jsonl", ".gz")):
        raise BadInput(f"{path} is a file; of lm-eval's results name the folder, of swebench's the report")
    return "a swebench report"
