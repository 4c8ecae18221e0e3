"""What a card begins with, how the model is served and gated again, and results for the hub's leaderboards."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from report_runs import SEALED, judge_run, manifest, sample
from ruamel.yaml import YAML

from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES
from harness.runs.folder import RunFolder
from reports.cards.eval_results import write_eval_results
from reports.cards.licence import origin
from reports.cards.model_card import card_section, render_model_card
from reports.render import read_report


def run_of(path: Path, items: int, task: str = "gsm8k") -> RunFolder:
    """A run of a public task in which the reference is always right and the candidate three times of four."""
    folder, facts = RunFolder(path), manifest(planned={f"cot/{task}": items})
    folder.create(facts, SEALED)
    log = folder.log("cot")
    for number in range(items):
        for role in ROLES:
            score = float(role == "reference" or number % 4 > 0)
            log.append(sample(role, "cot", task, f"{number:04d}", score=score, text=""))
    log.close()
    judge_run(folder)
    return folder


def test_a_card_leads_with_both_scores_and_recovery(tmp_path: Path) -> None:
    report = read_report(run_of(tmp_path / "run", 8))
    lines = card_section(report, origin(report.models)).splitlines()
    assert lines[2:5] == [
        "| Benchmark | Qwen/Qwen2.5-0.5B-Instruct | qwen2.5-0.5b-w4a16 | Recovery |",
        "| --- | ---: | ---: | ---: |",
        "| cot/gsm8k (accuracy, 8 items) | 100.0 % | 75.0 % | 75.0 % |",
    ]
    text = "\n".join(lines)
    checks = text.index("| | Check | Reference → candidate |")
    assert text.rindex("<details>", 0, checks) > text.index("did not pass its release checks")
    assert text.count("<details>") == text.count("</details>") == 4


def test_a_card_says_how_to_serve_the_model_and_how_to_gate_it_again(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", 8)
    report = read_report(folder)
    lines = render_model_card(report).splitlines()
    serve = shlex.split(next(line for line in lines if line.startswith("vllm serve ")))
    assert serve[2:] == ["OWNER/THIS-MODEL", "--max-model-len", "4096", "--dtype", "bfloat16"]
    gate = next(line for line in lines if line.startswith("quantgate gate "))
    assert gate == "quantgate gate OWNER/THIS-MODEL --reference Qwen/Qwen2.5-0.5B-Instruct --policy policy.yaml"
    text = "\n".join(lines).split("````yaml\n")[1].split("\n````")[0]
    assert parse_policy(f"{text}\n").sha256 == folder.sealed_policy().sha256  # it can be used as it stands
    elsewhere = replace(report, provenance=replace(report.provenance, commands={}))
    assert "quantgate gate" not in render_model_card(elsewhere)  # results made elsewhere: nobody asked a server


@pytest.mark.parametrize("asked", [30, 8])
def test_results_for_the_hub_are_of_whole_benchmarks(
    tmp_path: Path, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.cards.eval_results.BENCHMARKS", {"math-ai/aime25": "aime"})
    run, readme = run_of(tmp_path / "run", asked, "aime25"), tmp_path / "model" / "README.md"
    (readme.parent / ".eval_results").mkdir(parents=True)
    for name in ("theirs", "quantgate-old"):
        (readme.parent / ".eval_results" / f"{name}.yaml").write_text("[]")
    written = write_eval_results(read_report(run), readme, "https://example.org/r")
    files = {path.name: path for path in readme.parent.glob(".eval_results/*")}
    assert "theirs.yaml" in files and "quantgate-old.yaml" not in files
    if asked < 30:
        assert list(files) == ["theirs.yaml"]
        assert written == ([], [".eval_results: not aime25, of which 8 of 30 items were asked"])
        return
    (found,) = YAML(typ="safe").load(files["quantgate-aime25.yaml"])
    assert found["dataset"] == {"id": "math-ai/aime25", "task_id": "aime"} and found["value"] == 73.33
    assert found["date"] == "2025-11-21" and found["source"]["url"] == "https://example.org/r"
    assert "max_tokens 256" in found["notes"]
    assert written == ([files["quantgate-aime25.yaml"]], [])


def test_a_model_whose_benchmarks_are_unknown_gets_no_folder(tmp_path: Path) -> None:
    written = write_eval_results(read_report(run_of(tmp_path / "run", 2, "word_problems")), tmp_path / "README.md")
    assert written == ([], []) and not (tmp_path / ".eval_results").exists()
