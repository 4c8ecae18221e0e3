"""Draft heads (MTP) on the real vLLM: one that is always right, one that never is; both write the same answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness.checkpoint.models import resolve_model
from harness.contract.samples import ROLES, Role
from harness.prove.draft_model import make_model
from harness.runs.folder import RunFolder
from tests.e2e.conftest import quantgate, wait_for

POLICY = """
name: drafts
serving: {max_model_len: 2048, dtype: float32, kv_cache_memory_gib: 1, enforce_eager: true, max_logprobs: 20,
          extra_args: ["--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}']}
sampling: {temperature: 0.0, max_tokens: 64}
suites:
  speculative: {prompts: 8, max_tokens: 24}
  footprint: {}
noise_floor: {by: seed, items: 2}
checks:
  - {metric: acceptance, on: speculative, max_loss: 3 points}
  - {metric: accepted_length, on: speculative, min: 1.5}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.long]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "drafts.yaml"
    path.write_text(POLICY)
    return path


def is_ready(log: Path) -> bool:
    return "/v1 (log:" in log.read_text()


@pytest.fixture
def served(policy: Path, tmp_path: Path) -> Iterator[dict[Role, tuple[Path, str]]]:
    """Role -> (checkpoint, URL), served by `quantgate serve`."""
    tokenizer = resolve_model("demo", print)
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    processes, logs, models, found = [], [], [], {}
    for role in ROLES:
        model = make_model(tmp_path / role, tokenizer, vocabulary, broken_head=role == "candidate")
        log = tmp_path / f"{role}.out"
        command = [sys.executable, "-m", "harness", "serve", str(model), "--role", role, "--policy", str(policy)]
        with log.open("w") as file:
            processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
        logs.append(log)
        models.append(model)
    try:
        for role, model, log, process in zip(ROLES, models, logs, processes, strict=True):
            wait_for(partial(is_ready, log), 240, process, log)
            line = next(line for line in log.read_text().splitlines() if line.startswith(f"{role}: "))
            found[role] = model, line.split()[1].removesuffix("/v1")
        yield found
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)


def test_a_draft_head_that_never_helps_is_caught_by_attaching_to_running_servers(
    served: dict[Role, tuple[Path, str]], policy: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    (reference, reference_url), (candidate, candidate_url) = served["reference"], served["candidate"]
    gate = ("gate", candidate, "--reference", reference, "--reference-url", reference_url)
    attached = (*gate, "--candidate-url", candidate_url)
    result = quantgate(*attached, "--policy", policy, "--out", run.path)
    assert result.returncode == 1, result.stdout + result.stderr

    samples = [s for s in run.samples() if s.suite == "speculative"]
    lengths = {role: {s.metrics["accepted_length"] for s in samples if s.role == role} for role in served}
    assert lengths == {"reference": {2.0}, "candidate": {1.0}}
    texts = {role: {s.item: s.text for s in samples if s.role == role} for role in served}
    assert texts["reference"] == texts["candidate"]  # nothing but the counters shows it
    verdicts = {check.metric: (check.verdict, check.estimate) for check in run.verdict().checks}
    assert verdicts == {"acceptance": ("FAIL", 1.0), "accepted_length": ("FAIL", 1.0)}
    heads = {s.role: s.metrics["draft_bytes"] for s in run.samples() if s.suite == "footprint"}
    assert heads["reference"] == heads["candidate"] > 0
    drafted = run.manifest().speculative["speculative"]
    assert drafted["reference"]["accepted_tokens"] == drafted["reference"]["draft_tokens"] > 0
    # There is no fresh server to attach to: the reference's is asked for the noise floor, with another seed.
    assert run.manifest().noise_by == "seed" and "noise" not in run.manifest().servers
    again = {s.item: s.text for s in samples if s.role == "noise"}
    assert len(again) >= 2 and again.items() <= texts["reference"].items()

    same = quantgate(*gate, "--candidate-url", reference_url, "--policy", policy, "--out", tmp_path / "same")
    assert same.returncode == 3 and "same server" in same.stderr
    strict = tmp_path / "strict.yaml"
    strict.write_text("allow_different: [quantization]\n" + POLICY)
    refused = quantgate(*attached, "--policy", strict, "--out", tmp_path / "strict")
    assert refused.returncode == 3 and "Traceback" not in refused.stderr
    assert "model: reference " in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "strict" / "verdict.json").exists()
