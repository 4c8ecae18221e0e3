"""Rows of SWE-bench at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from swebench_rows import row, written

from harness.contract.errors import BadInput
from suites.swebench.data import InstanceRow, load_rows


def test_rows_in_their_order_and_without_the_gold_patch(tmp_path: Path) -> None:
    found = list(load_rows(written(tmp_path, row("b__b-2"), row("a__a-1")), "test"))
    assert [r.instance_id for r in found] == ["b__b-2", "a__a-1"]
    assert found[0].FAIL_TO_PASS == ["tests/test_a.py::test_one"]  # JSON text of a list
    assert found[0].PASS_TO_PASS == ["tests/test_a.py::test_two"]
    assert "gold" not in found[0].model_dump_json()


def test_an_older_schema_is_named(tmp_path: Path) -> None:
    old = {k: v for k, v in row().items() if k not in ("image", "log_parser", "eval_type", "eval_script")}
    old["test_patch"] = "diff"
    with pytest.raises(BadInput, match=r"row 1 \(pallets__flask-1\): lacks image, log_parser, eval_type, eval_script"):
        list(load_rows(written(tmp_path, old), "test"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(), row()], "pallets__flask-1 is there twice"),
        ([row(instance_id="../../etc")], "instance_id"),
        ([row(instance_id="..")], "instance_id"),
        ([row(FAIL_TO_PASS="[broken")], "FAIL_TO_PASS"),
        ([row(FAIL_TO_PASS=[1])], "FAIL_TO_PASS"),
        ([row(eval_type="maybe")], "eval_type"),
        ([row(problem_statement="")], "problem_statement"),
        ([row(), '{"instance_id": '], r"rows.jsonl:2: not JSON"),
        (["[1]"], "row 1: not an object"),
        ([], "no row is in it"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        list(load_rows(written(tmp_path, *rows), "test"))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        list(load_rows(str(tmp_path / "none.jsonl"), "test"))


def test_what_is_needed_is_what_swebench_reads() -> None:
    """make_test_spec of swebench 5 indexes these; the rest is for the agent."""
    needed = {name for name, info in InstanceRow.model_fields.items() if info.is_required()}
    grader = {"instance_id", "image", "repo", "version", "FAIL_TO_PASS", "PASS_TO_PASS"}
    assert needed == grader | {"log_parser", "eval_type", "eval_script", "problem_statement"}
