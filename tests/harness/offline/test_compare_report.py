"""`compare --report FOLDER`: a run folder with the page of a gate run, which judges and renders again to the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_results import Both, ids, record, records, report, summary, write

from harness.contract.errors import BadInput
from harness.gate.pipeline import judge_run
from harness.offline.compare import compare
from harness.offline.compare_policy import policy_of
from harness.offline.compare_report import write_report
from harness.runs.folder import RunFolder


def answered(scores: list[int], **more: Any) -> list[Any]:
    return [row | {"resps": [[f"It is <b>{row['exact_match']}</b>."]]} for row in records(scores, **more)]


def test_a_comparison_is_a_run_folder_with_a_report(both: Both, tmp_path: Path) -> None:
    sides = both([], [])
    for side, right in zip(sides, (400, 380), strict=True):
        for path in (side / "org__model").glob("samples_*"):
            path.unlink()
        for task in ("mmlu_law", "mmlu_anatomy"):
            write(side, answered([1] * right + [0] * (400 - right)), task=task)
        write(side, answered([1] * 400), task="gsm8k")
        write(side, [record(1, None, metrics=["perplexity"], perplexity=-3.0)], task="wikitext")
        summary(side, model_name=f"org/{side.name}", results={"gsm8k": {"exact_match,none": 0.5}})
    found = compare(*sides, policy_of(0.01), texts=True)
    page = write_report(tmp_path / "report of it", found, *sides)
    run = RunFolder(tmp_path / "report of it")
    assert page == run.report_path / "index.html" and run.verdict() == found.verdict
    text = page.read_text("utf-8")
    for said in ("FAIL", "mmlu_<wbr>anatomy (exact_<wbr>match)", "wikitext is not judged", "says 0.5, the 400 records"):
        assert said in text, said
    assert "The manifest says nothing" not in text and all(f"org/<wbr>{name}" in text for name in "rc")
    assert judge_run(run) == found.verdict
    of_texts = "".join(path.read_text("utf-8") for path in (run.report_path / "samples").iterdir())
    assert "question 7" in of_texts and "It is " in of_texts and "<b>" not in of_texts
    summed = json.loads((run.report_path / "report.json").read_text("utf-8"))
    assert summed["verdict"]["outcome"] == "FAIL" and len(summed["checks"]) == 2


def test_other_results_have_a_report_too(tmp_path: Path) -> None:
    sides = report(tmp_path / "r.json", resolved=ids(0, 500)), report(tmp_path / "c.json", resolved=ids(0, 500))
    page = write_report(tmp_path / "out", compare(*sides, policy_of(0.03), texts=True), *sides)
    assert "PASS" in page.read_text("utf-8") and judge_run(RunFolder(tmp_path / "out")).verdict == "PASS"


def test_what_is_there_is_not_overwritten(both: Both, tmp_path: Path) -> None:
    sides = both(records([1] * 9), records([1] * 9))
    found = compare(*sides, policy_of(0.01))
    for folder in (sides[0], tmp_path / "a file"):
        if not folder.exists():
            folder.write_text("x")
        with pytest.raises(BadInput, match="is there already: name a folder that is new or empty"):
            write_report(folder, found, *sides)
    (tmp_path / "empty").mkdir()
    assert write_report(tmp_path / "empty", found, *sides).is_file()
