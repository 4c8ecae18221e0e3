"""The Python API, for scripts and notebooks: docs/python.md. What is here stays; all else may change with a version.

Errors are those of the command line, `harness.contract.errors`: each says in one line what is wrong and the way out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.policy import load_policy
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder

if TYPE_CHECKING:
    from harness.offline.compare import Comparison

__all__ = ["Run", "compare", "judge", "load_run", "run_gate"]


class Run(NamedTuple):
    """A finished run."""

    folder: RunFolder
    """Its files: `manifest()`, `samples()`, `sealed_policy()`, `report_path`."""
    verdict: Verdict
    """The decision, with every check: the model of RUN/verdict.json."""


def run_gate(
    model: str,
    *,
    reference: str | None = None,
    policy: str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    candidate_url: str | None = None,
    reference_url: str | None = None,
    baseline: Path | str | None = None,
    recipe: str | None = None,
) -> Run:
    """Quantize `model` if needed, serve it beside its reference, ask both, judge, write the report.

    The arguments are the options of `quantgate gate`; progress goes to stderr.

    Raises:
        BadInput, NotComparable: what was given cannot be gated, or the two cannot be compared.
        RunFailed: a server, a disk or a network; call again with `out` and `resume=True` to go on.
    """
    from harness.gate.pipeline import GateOptions
    from harness.gate.pipeline import run_gate as run
    from harness.runs.progress import Reporter

    options = GateOptions(
        model=model,
        reference=reference,
        policy=policy,
        out=None if out is None else Path(out),
        resume=resume,
        candidate_url=candidate_url,
        reference_url=reference_url,
        baseline=None if baseline is None else Path(baseline),
        recipe=recipe,
    )
    return Run(*run(options, Reporter()))


def load_run(path: Path | str) -> Run:
    """A run that was judged before. Raises BadInput: it is none, or its verdict is of another version (`judge` it)."""
    folder = RunFolder(Path(path))
    folder.manifest()
    return Run(folder, folder.verdict())


def judge(path: Path | str, policy: str | None = None) -> Run:
    """Decide again on the answers of a run, and store the verdict. No server is needed.

    With `policy`, a shipped policy's name or a YAML file, the verdict is marked as after the fact.

    Raises:
        BadInput: no run, or its policy or samples were edited after they were sealed.
        NotComparable: a server did not stay what it was while it was asked.
    """
    from harness.gate.pipeline import judge_run

    folder = RunFolder(Path(path))
    return Run(folder, judge_run(folder, load_policy(policy) if policy else None))


def compare(
    reference: Path | str, candidate: Path | str, *, max_loss: float | None = None, policy: str | None = None
) -> Comparison:
    """Judge two results of lm-eval (folders of --log_samples), of swebench, or the candidates of two runs.

    Args:
        reference, candidate: Two results of one kind.
        max_loss: Largest loss of each task and group; 0.01 is one point.
        policy: In its place: a YAML file of what must hold.

    Raises:
        BadInput: results that cannot be used or do not fit together; both or neither of `max_loss` and `policy`.
        NotComparable: runs that were served differently, reports of other instances.
    """
    from harness.offline.compare import compare as compare_results
    from harness.offline.compare_policy import policy_of

    if (max_loss is None) == (policy is None):
        raise BadInput("give max_loss (0.01 is one point) or policy, one of them")
    given = load_policy(policy) if policy is not None else policy_of(max_loss or 0.0)
    return compare_results(Path(reference), Path(candidate), given)
