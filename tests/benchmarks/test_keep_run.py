"""What is kept of a run: its manifest and verdict as they are, and figures that are those of the samples."""

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.agent_report import make_run, stages
from benchmarks.keep_run import main, scores
from harness.contract.samples import Role, Sample
from harness.judging.verdict import SCHEMA_VERSION, Verdict
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def sample(task: str, role: Role, score: float | None, **fields: Any) -> Sample:
    suite, task = task.split("/")
    item = str(fields.pop("item", 0))
    return Sample(suite=suite, task=task, item=item, role=role, prompt_sha256="p", score=score, **fields)


def test_the_figures_are_those_of_the_samples() -> None:
    both: tuple[Role, Role] = ("reference", "candidate")
    made = [
        sample("needle/4096", role, 1.0, item=i, prompt_tokens=4000 + i, seconds=seconds)
        for role in both
        for i, seconds in enumerate((1.0, 2.0, 9.0))
    ]
    made += [sample("needle/4096", "noise", 0.0, seconds=99.0)]
    made += [sample("cot/a", role, None, metrics={"unterminated": 1.0}) for role in both]
    made += [sample("cot/a", role, 0.5, item=1, metrics={"unterminated": 0.0}) for role in both]
    made += [sample("cot/b", "reference", 1.0), sample("cot/b", "candidate", None, error="timeout")]
    long = {"n": 3, "mean": 1.0, "prompt_tokens": 4002, "seconds": 2.0}
    half = {"n": 1, "mean": 0.5}
    plain = {"cot/a": {"candidate": half, "reference": half}, "needle/4096": {"candidate": long, "reference": long}}
    assert scores(made, thinking=False) == plain
    open_ended = {"n": 2, "mean": 0.5}
    assert scores(made, thinking=True) == plain | {
        "cot/a unterminated": {"candidate": open_ended, "reference": open_ended}
    }


def test_a_run_is_kept_with_its_manifest_and_verdict(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run, 2)
    stages(RunFolder(run))
    assert main([str(run), "--command", "quantgate gate M", "--out", str(tmp_path / "kept.json")]) == 0
    kept = json.loads((tmp_path / "kept.json").read_text("utf-8"))
    assert list(kept) == ["command", "manifest", "verdict", "scores"] and kept["command"] == "quantgate gate M"
    assert kept["manifest"] == json.loads((run / "manifest.json").read_text("utf-8"))
    assert kept["verdict"] == json.loads((run / "verdict.json").read_text("utf-8"))
    (cell,) = kept["scores"].values()
    assert cell["reference"]["n"] == cell["candidate"]["n"] == 2


def test_the_page_states_the_lengths_that_were_measured() -> None:
    kept = json.loads((RESULTS / "long_1m_h200.json").read_text("utf-8"))
    words = (RESULTS.parent / "README.md").read_text("utf-8")
    for cell in kept["scores"].values():
        tokens = {cell[role]["prompt_tokens"] for role in ("reference", "candidate")}
        assert len(tokens) == 1 and f"{tokens.pop():,}" in words


def test_the_policy_of_each_run_that_is_not_a_shipped_one_is_beside_it() -> None:
    policies = {hashlib.sha256(path.read_bytes()).hexdigest() for path in RESULTS.parent.glob("*.yaml")}
    kept = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")]
    manifests = [found["manifest"] for found in kept if "manifest" in found]
    assert len(manifests) >= 9
    for manifest in manifests:
        assert manifest["policy_name"] == "ci" or manifest["policy_sha256"] in policies


def test_what_was_kept_of_every_run_still_loads() -> None:
    """Verdicts of schema 1 were never readable by later versions: they are stored as they were."""
    loaded = 0
    for path in RESULTS.glob("*.json"):
        kept = json.loads(path.read_text("utf-8"))
        if "manifest" in kept:
            Manifest.model_validate(kept["manifest"])
            if kept["verdict"]["schema_version"] == SCHEMA_VERSION:
                loaded += len(Verdict.model_validate(kept["verdict"]).checks) > 0
    assert loaded == 8  # of 11 runs; the other files here are figures, which nothing reads back but their own tests
