"""The main job on real vLLM servers: quantize, serve both, ask, judge, report; kill and go on; attach."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.checkpoint.models import resolve_model
from harness.contract.pairs import pair_samples
from harness.judging.verdict import EXIT_CODES
from harness.parity.vllm_flags import FLAGS
from harness.runs.folder import RunFolder
from harness.terminal import why
from tests.e2e.conftest import policy_of, quantgate, servers_of

pytestmark = pytest.mark.e2e


def test_the_exit_code_is_the_verdict(finished: tuple[RunFolder, int, str]) -> None:
    run, status, printed = finished
    verdict = run.verdict()
    assert status == EXIT_CODES[verdict.verdict]
    said = " ".join(printed.split())
    assert verdict.checks and all(" ".join(line.split()) in said for line in why(verdict, run))
    assert "Where the time went" in printed and "report: " in printed


def test_the_candidate_is_quantized_and_differs_from_the_reference(finished: tuple[RunFolder, int, str]) -> None:
    run = finished[0]
    models = run.manifest().models
    assert models["reference"].bits_per_weight == 16
    assert models["candidate"].quantization == "compressed-tensors"
    # 28 M of the 134.5 M weights are embeddings and stay in bf16; the others take 4 bits + 1/4 for the scales.
    assert 6 < models["candidate"].bits_per_weight < 7.5
    assert models["candidate"].parameters == models["reference"].parameters
    pairs = [p for p in pair_samples(run.samples()).pairs.values() if p.candidate.suite == "divergence"]
    assert all(p.candidate.metrics["kl_lower_sum"] > 0 for p in pairs)
    assert all(p.candidate.metrics["captured_mass_sum"] <= p.candidate.metrics["positions"] for p in pairs)


def test_parity_was_read_back_from_both_servers(finished: tuple[RunFolder, int, str]) -> None:
    manifest = finished[0].manifest()
    assert manifest.allowed_differences == ["model", "quantization"]
    for facts in manifest.servers.values():
        assert facts.readback["max_model_len"] == "2048"
        assert facts.readback["default.stop"] == "[]"
        assert "not readable" not in facts.readback.values()
        assert facts.readback["config.cache.block_size"].isdigit() and facts.readback["sampling"] == "arrives as asked"
        assert facts.readback["run.restarts"] == "none" and facts.readback["run.fingerprints"].startswith("1: ")
        assert facts.readback["run.budget"].startswith("arrives as asked")
    assert not manifest.models["candidate"].doubts and 4 < manifest.models["candidate"].linear_bits < 4.6


def test_what_is_missed_of_a_shut_server_is_what_an_open_one_tells(finished: tuple[RunFolder, int, str]) -> None:
    for server in finished[0].manifest().servers.values():
        told = {name for name in server.readback if name.startswith(("config.", "env."))}
        assert len(told & set(FLAGS)) > 0.9 * len(FLAGS), sorted(set(FLAGS) - told)
        assert server.readback["asked.dtype"] == "float32" and server.readback["asked.max_logprobs"] == "20"


@pytest.mark.long  # a second gate; tests/harness has baselines on servers that are quick
def test_a_baseline_spares_the_reference(
    finished: tuple[RunFolder, int, str], candidate: Path, recipe: Path, tmp_path: Path
) -> None:
    out, policy = tmp_path / "again", tmp_path / "part.yaml"
    suites = ("divergence", "cot", "needle")  # a part of the earlier run's
    policy.write_text(policy_of(suites, recipe))
    common: list[str | Path] = ["gate", candidate, "--reference", "demo", "--policy", policy, "--out", out]
    result = quantgate(*common, "--baseline", finished[0].path)
    run = RunFolder(out)
    assert result.returncode == EXIT_CODES[run.verdict().verdict], result.stderr
    assert "samples of the reference are used again" in result.stderr
    baseline = run.manifest().baseline
    assert baseline is not None and baseline.run_id == finished[0].path.name
    assert not run.log_path("reference").exists() and run.log_path("candidate").exists()
    kept = {s.key: s for s in finished[0].samples() if s.role == "reference" and s.suite in suites}
    assert {s.key: s for s in run.samples() if s.role == "reference"} == kept
    assert len(pair_samples(run.samples()).pairs) == len(kept)


def test_an_edited_sample_is_not_judged(finished: tuple[RunFolder, int, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished[0].path, copy)
    path = copy / "samples" / "cot.jsonl"
    path.write_text(path.read_text("utf-8").replace('"score":0.0', '"score":1.0', 1), "utf-8")
    result = quantgate("judge", copy)
    assert result.returncode == 3 and "samples/cot.jsonl is not what the run wrote" in result.stderr


def test_the_report_says_what_the_verdict_says(finished: tuple[RunFolder, int, str]) -> None:
    run = finished[0]
    verdict = run.verdict()
    page = (run.report_path / "index.html").read_text("utf-8")
    assert verdict.verdict in page and run.manifest().policy_sha256[:12] in page
    suite = ET.parse(run.report_path / "junit.xml").getroot()
    cases = list(suite.iter("testcase"))
    blocking = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    assert len(cases) == len(verdict.checks)
    assert len(blocking) == sum(check.verdict != "PASS" for check in verdict.checks)
    assert verdict.verdict in (run.report_path / "summary.md").read_text("utf-8")


def test_no_server_outlives_the_gate(finished: tuple[RunFolder, int, str]) -> None:
    assert servers_of(finished[0].path) == []


def test_judging_again_with_a_looser_policy_is_marked(finished: tuple[RunFolder, int, str], tmp_path: Path) -> None:
    run = finished[0]
    before = run.verdict()
    policy = tmp_path / "looser.yaml"
    policy.write_text((run.path / "policy.yaml").read_text().replace("max: 0.5", "max: 5").replace("0.3}", "0.9}"))
    result = quantgate("judge", run.path, "--policy", policy)
    assert run.verdict().after_the_fact and "after the fact" in result.stdout
    again = quantgate("judge", run.path)
    assert again.returncode == EXIT_CODES[before.verdict]
    assert run.verdict() == before


def test_our_kernels_package_lets_transformers_and_vllm_load_a_model(candidate: Path) -> None:
    """transformers looks for a package `kernels`: the folder of that name must not be taken for it."""
    code = (
        "import json, quantgate_kernels, transformers, vllm, torch, sys\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)\n"
        "print(json.dumps([quantgate_kernels.__doc__[:10], vllm.__version__, type(model).__name__]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(resolve_model("demo"))], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout.splitlines()[-1])[2] == "LlamaForCausalLM"
