"""Rows of SWE-bench as a dataset file has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def row(instance: str = "pallets__flask-1", **changes: Any) -> dict[str, Any]:
    """A row as swebench 5 has it."""
    return {
        "instance_id": instance,
        "repo": "pallets/flask",
        "version": "2.2",
        "problem_statement": "It does not work.",
        "image": "example/flask:1",
        "FAIL_TO_PASS": '["tests/test_a.py::test_one"]',
        "PASS_TO_PASS": ["tests/test_a.py::test_two"],
        "log_parser": "parse_log_flask",
        "eval_type": "pass_and_fail",
        "eval_script": "true",
        "patch": "the gold patch",
    } | changes


def written(folder: Path, *rows: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)
