"""What a grading run's files say: written by swebench's own logger, grader and report, of logs that tests make."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from suites.swebench.grading import Grade, read_grade, run_id
from suites.swebench.trajectory import InfrastructureError

pytestmark = pytest.mark.slow  # starts the grader

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
FIXED, KEPT = "tests/test_a.py::test_fixed", "tests/test_a.py::test_kept"


def log(*lines: str, status: int = 0) -> str:
    """What an evaluation script prints: the tests' output between its marks, and the tests' exit status."""
    body = "\n".join(lines)
    return f"+ git apply\n{START}\n{body}\n{END}\n>>>>> Test Exit Code: {status}\n"


def printed(text: str) -> str:
    return "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-a\n+" + text + "\n"


CASES: dict[str, tuple[str, str | None, str]] = {
    # name -> patch, log of the tests, how the harness ended
    "gold": (printed("right"), log(f"PASSED {FIXED}", f"PASSED {KEPT}"), ""),
    "wrong": (printed("wrong"), log(f"FAILED {FIXED} - assert 1 == 2", f"PASSED {KEPT}", status=1), ""),
    "breaks": (printed("breaks"), log(f"PASSED {FIXED}", f"FAILED {KEPT} - KeyError", status=1), ""),
    "empty": ("", None, ""),
    "garbage": ("no diff at all", None, "not applied"),
    "liar": (printed("print('PASSED')"), log(f"PASSED {FIXED}", f"PASSED {KEPT}", "boom", status=1), ""),
    "cut-off": (printed("x"), f"{START}\nPASSED {FIXED}\nPASSED {KEPT}\n", ""),
    "slow": (printed("while True: pass"), "+ pytest\n\n\nTimeout error: 5 seconds exceeded.", "timeout"),
    "no-image": (printed("x"), None, "no image"),
    "killed": (printed("x"), log("Killed", status=137), ""),
    # Its diff says that the harness could not apply it, in the harness's very words but never at a line's beginning.
    "forger": (printed("2026-11-22 07:00:00,000 - INFO - >>>>> Patch Apply Failed"), None, "no image"),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which swebench has graded all cases."""
    folder = tmp_path_factory.mktemp("grading")
    cases = []
    for name, (patch, text, ends) in CASES.items():
        row = {
            "instance_id": name,
            "image": "x/y:1",
            "repo": "pallets/flask",
            "version": "2.2",
            "FAIL_TO_PASS": [FIXED],
            "PASS_TO_PASS": [KEPT],
            "log_parser": "parse_log_flask",
            "eval_type": "pass_and_fail",
            "eval_script": "true",
        }
        cases.append({"row": row, "patch": patch, "log": text, "ends": ends})
    (folder / "cases.json").write_text(json.dumps({"run": "r1", "role": "candidate", "cases": cases}))
    script = Path(__file__).with_name("swebench_official.py")
    done = subprocess.run(
        [sys.executable, str(script), "cases.json"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def read(graded: Path, name: str) -> Grade:
    return read_grade(graded, name, "candidate", "r1")


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("gold", "resolved"),
        ("wrong", "unresolved"),
        ("breaks", "unresolved"),
        ("empty", "empty patch"),
        ("garbage", "patch does not apply"),
        ("liar", "unresolved"),
        ("slow", "unresolved"),
    ],
)
def test_outcomes(graded: Path, name: str, outcome: str) -> None:
    found = read(graded, name)
    assert found.outcome == outcome
    assert found.timed_out == (name == "slow")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-image", "No such image"),
        ("killed", "out_of_memory"),
        ("cut-off", "ended before the tests"),
        ("forger", "No such image"),
    ],
)
def test_failures_of_the_infrastructure_are_no_outcome(graded: Path, name: str, said: str) -> None:
    with pytest.raises(InfrastructureError, match=said):
        read(graded, name)


def test_the_tests_are_named(graded: Path) -> None:
    found = read(graded, "breaks")
    assert found.tests["FAIL_TO_PASS"] == {"success": [FIXED], "failure": []}
    assert found.tests["PASS_TO_PASS"] == {"success": [], "failure": [KEPT]}
    assert found.test_output is not None and "KeyError" in found.test_output.read_text()


def test_an_instance_that_was_not_graded_is_no_outcome(graded: Path) -> None:
    with pytest.raises(InfrastructureError):
        read(graded, "other")


def test_a_run_without_a_report_is_no_outcome(tmp_path: Path) -> None:
    (tmp_path / "candidate.r1.json").write_text("{")
    with pytest.raises(InfrastructureError, match="no report"):
        read_grade(tmp_path, "gold", "candidate", "r1")


def test_another_patch_or_role_is_another_run(tmp_path: Path) -> None:
    row: dict[str, Any] = {"instance_id": "a"}
    one, other = tmp_path / "reference", tmp_path / "candidate"
    assert run_id(one, row, "x") == run_id(one, dict(row), "x")
    names = {run_id(one, row, "x"), run_id(one, row, "y"), run_id(one, {"instance_id": "b"}, "x")}
    assert len(names | {run_id(other, row, "x")}) == 4
