"""Grading: swebench's own run_evaluation as a subprocess, one patch at a time, and what its files say came of it.

Its exit code says nothing, and its report puts patches that do not apply, missing images and tests that took too long
into one list: they are told apart by the lines that the harness itself wrote into run_instance.log. What a patch can
print into that log (a diff, the tests' output) never begins with the time stamp of such a line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contract.errors import BadInput, RunFailed
from harness.contract.secrets import without_secrets
from harness.contract.whole_files import read_json, write_whole
from harness.runs.instances import InstanceOutcome
from harness.serving.guarded_command import run_guarded
from suites.swebench.trajectory import InfrastructureError

HARNESS = "swebench.harness.run_evaluation"
LINE = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (?:INFO|ERROR|WARNING) - "
NOT_APPLIED = re.compile(LINE + re.escape(">>>>> Patch Apply Failed"))
TIMED_OUT = re.compile(r"(?m)^swebench\.harness\.utils\.EvaluationError: .*Test timed out after \d+ seconds")
FAILURE = re.compile(LINE + r"(Error (?:in evaluating model|creating container) for [^\n]{0,300})")
END_OF_TESTS = ">>>>> End Test Output"
MARGIN_SECONDS = 900.0
"""On top of the tests' time: pulling the image, applying the patch, grading."""


@dataclass(frozen=True)
class Grade:
    """What came of one patch."""

    outcome: InstanceOutcome
    timed_out: bool = False
    test_output: Path | None = None
    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def run_id(folder: Path, row: dict[str, Any], patch: str) -> str:
    """Name of a grading run, other for another patch, role or gate.

    swebench keeps results by run, model and instance, whatever the patch was, and names containers by run and instance:
    it removes one of the same name, so that two roles with the same patch would end each other's tests.
    """
    text = json.dumps([str(folder.resolve()), row, patch], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def grade(
    folder: Path,
    row: dict[str, Any],
    patch: str,
    role: str,
    seconds: int,
    confined: Sequence[str],
    cleanup: Sequence[str],
) -> Grade:
    """Grade one patch in `folder`. `confined` are the arguments of confined.py; empty: containers at Modal.

    Raises:
        InfrastructureError: container, engine or grader failed, or the tests' log says that their environment did.
    """
    if not patch.strip():
        return Grade("empty patch")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    instance, run = str(row["instance_id"]), run_id(folder, row, patch)
    prediction = {"instance_id": instance, "model_name_or_path": role, "model_patch": patch}
    write_whole(folder / "dataset.jsonl", json.dumps(row) + "\n")
    write_whole(folder / "predictions.jsonl", json.dumps(prediction) + "\n")
    options = ["-d", "dataset.jsonl", "-s", "test", "-p", "predictions.jsonl", "-id", run, "-t", str(seconds)]
    options += ["--max_workers", "1", "--report_dir", "."]
    if confined:
        command = [sys.executable, "-m", "suites.swebench.confined", *confined, "--", HARNESS, *options]
    else:
        command = [sys.executable, "-m", HARNESS, *options, "--modal", "true"]
    # swebench would load a .env file that lies above its own files.
    environment = {
        **without_secrets(os.environ, keep="MODAL_"),
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "PYTHON_DOTENV_DISABLED": "1",
    }
    log = folder / "grader.log"
    try:
        patience = seconds + MARGIN_SECONDS
        status = await run_guarded(command, log, patience, environment=environment, folder=folder, cleanup=cleanup)
    except TimeoutError:
        raise InfrastructureError(f"the grader did not end ({log})") from None
    if confined and status == RunFailed.exit_code:  # a container could not be held to its limits
        raise InfrastructureError(f"grader: {_text(log).strip().splitlines()[-1][:200]}")
    return read_grade(folder, instance, role, run)


def read_grade(folder: Path, instance: str, role: str, run: str) -> Grade:
    """What the files of a grading run say of its one instance.

    Raises:
        InfrastructureError: nothing was graded, and not because of the patch.
    """
    try:
        report = read_json(folder / f"{role}.{run}.json")
    except BadInput as error:
        raise InfrastructureError(f"the grader left no report ({folder / 'grader.log'}): {error}") from None
    logs = folder / "logs" / "run_evaluation" / run / role / instance
    output = logs / "test_output.txt"
    tested = output if output.exists() else None
    if _names(report, "empty_patch_ids", instance):
        return Grade("empty patch")
    if _names(report, "resolved_ids", instance):
        return Grade("resolved", test_output=tested, tests=_tests(logs, instance))
    said = _text(logs / "run_instance.log")
    if NOT_APPLIED.search(said):
        return Grade("patch does not apply")
    if _names(report, "infra_failure_ids", instance):
        reasons = report.get("failure_reasons")
        reason = reasons.get(instance) if isinstance(reasons, dict) else None
        raise InfrastructureError(f"the tests' environment failed: {str(reason)[:100]}")
    if _names(report, "unresolved_ids", instance):
        if END_OF_TESTS not in _text(output):  # swebench takes tests that a dying container cut off for failed ones
            raise InfrastructureError(f"the container ended before the tests did ({logs})")
        return Grade("unresolved", test_output=tested, tests=_tests(logs, instance))
    if TIMED_OUT.search(said):
        return Grade("unresolved", timed_out=True, test_output=tested)
    failures = FAILURE.findall(said)
    raise InfrastructureError(f"grader: {failures[0] if failures else 'no reason is in its log'} ({logs})")


def _names(report: dict[str, Any], key: str, instance: str) -> bool:
    listed = report.get(key)
    return isinstance(listed, list) and instance in listed


def _tests(logs: Path, instance: str) -> dict[str, dict[str, list[str]]]:
    """The tests that were to pass, by what came of them; nothing where the grader left no list."""
    try:
        status = read_json(logs / "report.json")[instance]["tests_status"]
        return {
            kind: {what: [str(name)[:300] for name in status[kind][what]] for what in ("success", "failure")}
            for kind in ("FAIL_TO_PASS", "PASS_TO_PASS")
        }
    except (BadInput, KeyError, TypeError):
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def require_grader() -> None:
    """Raises BadInput: swebench is not installed here."""
    if importlib.util.find_spec("swebench") is None:
        raise BadInput("suite swebench grades with the package swebench, and that is not installed here: run `make`")
