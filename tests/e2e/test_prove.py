"""Two entries of the catalogue on real servers: damaged weights, and a tokenizer that is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.prove.findings import Proof
from tests.e2e.conftest import quantgate, servers_of

pytestmark = [pytest.mark.e2e, pytest.mark.long]

POLICY = """
name: few
serving: {max_model_len: 1024, dtype: bfloat16, kv_cache_memory_gib: 1, enforce_eager: true, max_logprobs: 20}
sampling: {temperature: 0.0, max_tokens: 32}
suites:
  divergence: {trajectories: 16, max_tokens: 24, top_logprobs: 20}
  cot: {tasks: {word_problems: {limit: 4}}}
checks:
  - {metric: kl_mean, on: divergence, max: 0.05}
  - {metric: accuracy, on: cot/*, max_loss: 0.5}
"""


def test_damage_is_caught_and_an_interruption_costs_nothing(tmp_path: Path) -> None:
    policy, out = tmp_path / "few.yaml", tmp_path / "proof"
    policy.write_text(POLICY)
    common: list[str | Path] = [
        "prove",
        "--policy",
        policy,
        "--out",
        out,
        "--only",
        "layers-swapped",
        "--only",
        "merge-off",
    ]
    result = quantgate(*common, timeout=1200)
    proof = Proof.model_validate_json((out / "proof.json").read_bytes())
    found = {finding.name: finding for finding in proof.findings}
    assert found["layers-swapped"].status == "caught", result.stderr[-3000:]
    assert found["merge-off"].status == "caught", result.stderr[-3000:]
    assert found["merge-off"].exit_code == 3 and "tokenizer: reference sha256" in found["merge-off"].reason
    assert found["int8"].status in ("harmless", "undecided")
    assert "samples of the reference are used again" in result.stderr
    for name in ("layers-swapped", "merge-off"):  # the reference is served once, with the control
        assert not (out / name / "run" / "logs" / "reference.log").exists()
        assert (out / name / "run" / "logs" / "candidate.log").exists()
        assert servers_of(out / name / "run") == []
    again = quantgate(*common, "--resume")
    assert again.returncode == result.returncode == (0 if proof.holds else 1)
    assert Proof.model_validate_json((out / "proof.json").read_bytes()) == proof
