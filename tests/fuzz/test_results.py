"""Whatever results made elsewhere hold (lm-eval, swebench, data): they are read, or refused in one line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from foreign_results import STAMP, records
from fuzzing import fuzz
from hypothesis import strategies as st
from mutations import as_json, damaged, edited
from ruler_tasks import write_data

from harness.contract.errors import BadInput, GateError
from harness.endpoint.answers import EndpointError
from harness.offline.answer_files import read_answer
from harness.offline.compare import compare
from harness.offline.compare_policy import policy_of
from suites.ruler import qa_data
from suites.swebench.data import load_rows
from suites.swebench.grading import read_grade
from suites.swebench.trajectory import InfrastructureError, raise_unless_ended, read_agent_run

ROWS = records([1.0, 0.0, 1.0, 1.0])
SUMMARY = {
    "results": {"gsm8k": {"exact_match,none": 0.75, "exact_match_stderr,none": 0.1, "alias": "gsm8k"}},
    "n-samples": {"gsm8k": {"original": 4, "effective": 4}},
    "configs": {"gsm8k": {"metric_list": [{"metric": "exact_match"}]}},
    "groups": {}, "group_subtasks": {"g": ["gsm8k"]}, "model_name": "m", "config": {"model": "local"},
}  # fmt: skip
REPORT = {
    "schema_version": 2, "total_instances": 4, "resolved_ids": ["a__a-1", "a__a-2"], "unresolved_ids": ["a__a-3"],
    "empty_patch_ids": [], "error_ids": ["a__a-4"], "incomplete_ids": [], "infra_failure_ids": [],
    "resolved_instances": 2, "failure_reasons": {"a__a-4": "x"},
}  # fmt: skip
ANSWER = {
    "response": {
        "usage": {"prompt_tokens": 5, "completion_tokens": 7},
        "choices": [{"finish_reason": "stop"}],
        "system_fingerprint": "f",
    },
    "timestamp": 1.0,
}
TRAJECTORY = {
    "info": {"exit_status": "Submitted", "submission": "diff", "exception_str": "", "config": {}},
    "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a", "extra": ANSWER}],
}  # fmt: skip
ROW = {
    "instance_id": "a__a-1", "problem_statement": "p", "image": "i", "repo": "a/a", "version": "1",
    "FAIL_TO_PASS": "[\"t\"]",
    "PASS_TO_PASS": ["u"], "log_parser": "pytest", "eval_type": "pass_and_fail", "eval_script": "true",
}  # fmt: skip
LINE = {
    "item": "0",
    "text": "7",
    "task": "t",
    "repeat": 0,
    "reasoning": "r",
    "finish_reason": "stop",
    "completion_tokens": 3,
}
POLICY = policy_of(0.01)


def lm_eval(folder: Path, rows: bytes, summary: str) -> Path:
    at = folder / "org__model"
    at.mkdir(parents=True)
    (at / f"samples_gsm8k_{STAMP}.jsonl").write_bytes(rows)
    (at / f"results_{STAMP}.json").write_text(summary)
    return folder


GOOD = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@fuzz(3, rows=st.lists(edited(ROWS), min_size=1, max_size=3), summary=edited([SUMMARY]))
def test_values_of_lm_eval(rows: list[Any], summary: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        good = lm_eval(Path(name) / "r", GOOD, as_json(SUMMARY))
        lines = "".join(as_json(row) + "\n" for row in [*rows, *ROWS[len(rows) :]])
        other = lm_eval(Path(name) / "c", lines.encode(), as_json(summary))
        with suppress(GateError):
            compare(good, other, POLICY, texts=True)


@fuzz(1, rows=damaged([GOOD]), summary=damaged([as_json(SUMMARY).encode()]))
def test_bytes_of_lm_eval(rows: bytes, summary: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        good = lm_eval(Path(name) / "r", GOOD, as_json(SUMMARY))
        other = lm_eval(Path(name) / "c", rows, summary.decode("utf-8", "replace"))
        with suppress(GateError):
            compare(good, other, POLICY)


@fuzz(3, report=edited([REPORT]))
def test_values_of_a_report_of_swebench(report: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        reference, candidate = (Path(name) / f"{role}.run.json" for role in ("r", "c"))
        reference.write_text(as_json(REPORT))
        candidate.write_text(as_json(report))
        with suppress(GateError):
            compare(reference, candidate, POLICY)


@fuzz(3, trajectory=edited([TRAJECTORY]))
def test_values_of_a_trajectory(trajectory: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        path = Path(name) / "a" / "a.traj.json"
        path.parent.mkdir()
        path.write_text(as_json(trajectory))
        with suppress(InfrastructureError, EndpointError):
            found = read_agent_run(path)
            assert found.steps >= 0 and found.seconds >= 0
            raise_unless_ended(found, "u")


@fuzz(2, row=edited([ROW]))
def test_values_of_a_row_of_swebench(row: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        path = Path(name) / "rows.jsonl"
        path.write_text(as_json(row) + "\n")
        with suppress(BadInput):
            assert all("/" not in found.instance_id for found in load_rows(str(path), "test"))


@fuzz(
    1,
    report=edited([REPORT]),
    tests=edited([{"a__a-1": {"tests_status": {"FAIL_TO_PASS": {"success": ["t"], "failure": []}}}}]),
)
def test_values_of_a_grading(report: Any, tests: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        logs = Path(name) / "logs" / "run_evaluation" / "r" / "candidate" / "a__a-1"
        logs.mkdir(parents=True)
        (Path(name) / "candidate.r.json").write_text(as_json(report))
        (logs / "report.json").write_text(as_json(tests))
        with suppress(InfrastructureError):
            read_grade(Path(name), "a__a-1", "candidate", "r")


@fuzz(2, line=edited([LINE]))
def test_values_of_an_answer_made_elsewhere(line: Any) -> None:
    with suppress(BadInput):
        read_answer(as_json(line).encode())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The files of RULER's data; where none of them fits any more, nobody asks the hub."""
    folder = write_data(tmp_path_factory.mktemp("data"), articles=1, questions=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qa_data, "_hub", lambda dataset: [])
        yield {str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("*.json")}


@fuzz(2, data=st.data())
def test_values_of_rulers_data(published: dict[str, Any], data: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        for file, content in published.items():
            path = Path(name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(as_json(data.draw(edited([content]))))
        for read in (qa_data._squad, qa_data._hotpotqa):
            with suppress(BadInput):
                read.__wrapped__(name)
