"""Two entries of the catalogue on real servers: weights that are destroyed, and stored samples that were changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.prove.findings import Proof
from tests.e2e.conftest import quantgate, servers_of

pytestmark = pytest.mark.e2e  # three servers, one after the other: two minutes of a core

POLICY = """
name: few
serving: {max_model_len: 1024, dtype: float32, kv_cache_memory_gib: 1, enforce_eager: true, max_logprobs: 20,
          placement: sequential}
sampling: {temperature: 0.0, max_tokens: 24}
suites:
  divergence: {trajectories: 16, max_tokens: 16, top_logprobs: 20}
  cot: {tasks: {word_problems: {limit: 4}}}
checks:
  - {metric: tv_mean, on: divergence, max: 0.40}
  - {metric: accuracy, on: cot/*, max_loss: 0.9}
"""
ENTRIES = ("rtn-2bit", "samples-dropped")


def test_damage_is_caught_and_what_is_known_is_not_gated_again(tmp_path: Path) -> None:
    policy, out = tmp_path / "few.yaml", tmp_path / "proof"
    policy.write_text(POLICY)
    only = [word for name in ENTRIES for word in ("--only", name)]
    common: list[str | Path] = ["prove", "--policy", policy, "--out", out, *only]
    result = quantgate(*common, timeout=1200)
    proof = Proof.model_validate_json((out / "proof.json").read_bytes())
    found = {finding.name: finding for finding in proof.findings}
    assert {name: found[name].status for name in ENTRIES} == dict.fromkeys(ENTRIES, "caught"), result.stderr[-3000:]
    damaged = next(check for check in found["rtn-2bit"].checks if check.metric == "tv_mean")
    assert damaged.verdict == "FAIL" and damaged.lower is not None and damaged.lower > 0.4
    assert found["int8"].status in ("harmless", "undecided") and found["int8"].processor_seconds > 10
    assert "samples of the reference are used again" in result.stderr
    run = out / "rtn-2bit" / "run"  # the reference is served once, with the control
    assert not (run / "logs" / "reference.log").exists() and (run / "logs" / "candidate.log").exists()
    assert servers_of(run) == [] and not (out / "rtn-2bit" / "model").exists()
    again = quantgate(*common, "--resume")
    assert again.returncode == result.returncode == (0 if proof.holds else 1)
    assert Proof.model_validate_json((out / "proof.json").read_bytes()) == proof
