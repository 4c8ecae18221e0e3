"""Two swebench reports: what is wrong, what is missing, which are not comparable, and which is not believed."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_results import DATA, Record, ids, only, report

from harness.contract.errors import BadInput, NotComparable
from harness.offline.compare import compare, compare_results
from harness.offline.compare_policy import policy_of


def test_an_empty_patch_is_wrong_and_a_failure_of_the_grader_is_not(tmp_path: Path) -> None:
    reference = report(tmp_path / "r.json", resolved=ids(0, 400))
    candidate = report(
        tmp_path / "c.json",
        resolved=ids(0, 380),
        unresolved=ids(380, 388),
        empty_patch=ids(388, 394),
        error=ids(394, 397),
        infra_failure=ids(386, 388) + ids(396, 397),
        incomplete=ids(397, 400),
    )
    check = only(compare_results(reference, candidate, 0.05))
    assert check.on == "swebench/resolved"
    assert (check.n, check.b, check.c, check.errored, check.missing) == (392, 12, 0, 5, 3)
    assert check.verdict == "INCONCLUSIVE" and "8 of 400 pairs cannot be used" in check.reason


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (
            [*ids(0, 499), "foreign__foreign-1"],
            r"2 of 501 instances; the first, foreign__foreign-1, is in \S*/c\.json only",
        ),
        (ids(0, 498), r"2 of 500 instances; the first, repo__repo-0498, is in \S*/r\.json only"),
        (
            ids(0, 501),
            r"1 of 501 instances; .* \(500 in \S*/r\.json and 501 in \S*/c\.json\); grade both on one data set",
        ),
        (ids(500, 1000), r"1000 of 1000 instances"),
    ],
)
def test_reports_of_other_instances_are_refused(tmp_path: Path, candidate: list[str], says: str) -> None:
    sides = report(tmp_path / "r.json", resolved=ids(0, 500)), report(tmp_path / "c.json", resolved=candidate)
    with pytest.raises(NotComparable, match=says):
        compare_results(*sides, 0.03)


def test_an_instance_without_a_prediction_is_missing_and_no_difference(tmp_path: Path) -> None:
    reference = report(tmp_path / "r.json", resolved=ids(0, 500))
    candidate = report(tmp_path / "c.json", resolved=ids(0, 498), incomplete=ids(498, 500))
    check = only(compare_results(reference, candidate, 0.03))
    assert (check.verdict, check.n, check.missing) == ("PASS", 498, 2)


def edited(path: Path, **changes: Any) -> Path:
    made = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"infra_failure_ids": None}, "it lacks infra_failure_ids; grade the predictions again"),
        ({"schema_version": None, "error_ids": None}, "it lacks schema_version, error_ids;"),
        ({"schema_version": 1}, "schema_version is 1, 2 is understood"),
        ({"resolved_ids": "x"}, "resolved_ids is 'x', no list"),
        ({"resolved_ids": [7]}, "resolved_ids: 7 is no text"),
        ({"resolved_ids": ["a", "a"]}, "resolved_ids names a twice"),
        ({"resolved_ids": ids(0, 9)}, "resolved_instances is 10, resolved_ids holds 9"),
        ({"error_ids": ["repo__repo-0001"], "error_instances": 1}, "repo-0001 is both resolved and error"),
        ({"infra_failure_ids": ids(0, 1), "infra_failure_instances": 1}, "is an infra_failure and resolved"),
        ({"total_instances": 500}, "total_instances is 500, the lists hold 10"),
        ({"resolved_ids": [], "resolved_instances": 0}, "no instance is in it"),
    ],
)
def test_a_report_that_cannot_be_believed_is_refused(tmp_path: Path, changes: Record, says: str) -> None:
    fine = report(tmp_path / "r.json", resolved=ids(0, 10))
    with pytest.raises(BadInput, match=says):
        compare_results(fine, edited(report(tmp_path / "c.json", resolved=ids(0, 10)), **changes), 0.01)


LOG = "2026-01-01 10:00:00,000 - {} - {}\n"
APPLY = LOG.format("INFO", ">>>>> Patch Apply Failed:\nerror: patch failed: a.py:3")
TIME = "Traceback:\nswebench.harness.utils.EvaluationError: x: Test timed out after 1800 seconds.\n"
ENGINE = LOG.format("ERROR", "Error creating container for x: no such image")
FORGED = "+>>>>> Patch Apply Failed\n"


def test_errors_that_are_the_models_are_told_by_their_logs(tmp_path: Path) -> None:
    """A patch that does not apply and tests that hang are no failure of the grader; a missing image is."""
    reference = report(tmp_path / "r.json", resolved=ids(0, 400))
    candidate = report(tmp_path / "org__model-2.5.run.7.json", resolved=ids(0, 396), error=ids(396, 400))
    found = compare(reference, candidate, policy_of(0.05))
    assert (found.verdict.checks[0].errored, found.verdict.checks[0].b) == (4, 0)
    assert found.notes == (f"{candidate}: 4 errors, and no logs beside it that say whose they are",)
    logs = tmp_path / "logs" / "run_evaluation" / "run.7" / "org__model-2.5"
    for instance, said in zip(ids(396, 400), (APPLY, TIME, ENGINE, FORGED), strict=True):
        (logs / instance).mkdir(parents=True)
        (logs / instance / "run_instance.log").write_text(said)
    found = compare(reference, candidate, policy_of(0.05))
    assert (found.verdict.checks[0].errored, found.verdict.checks[0].b) == (2, 2)
    assert found.notes == (f"{candidate}: by their logs 2 of 4 errors are patches that fail: not resolved",)


def test_a_true_near_tie_is_decided_by_its_discordant_pairs(tmp_path: Path) -> None:
    path = DATA / "swebench_results" / "per_instance_resolved.jsonl"
    if not path.exists():
        pytest.skip("no swebench_results/per_instance_resolved.jsonl in QUANTGATE_DATA")
    systems = [json.loads(line)["resolved"] for line in path.read_text("utf-8").splitlines()]
    near = {sum(system.values()): system for system in systems if sum(system.values()) in (371, 372)}
    sides = [
        report(
            tmp_path / f"{total}.json",
            resolved=[i for i, right in near[total].items() if right],
            unresolved=[i for i, right in near[total].items() if not right],
        )
        for total in (372, 371)
    ]
    check = only(compare_results(sides[0], sides[1], 0.01))
    assert (check.verdict, check.n, check.b, check.c, check.discordant) == ("INCONCLUSIVE", 500, 29, 28, 57)
    assert only(compare_results(sides[0], sides[1], 0.03)).verdict == "PASS"
