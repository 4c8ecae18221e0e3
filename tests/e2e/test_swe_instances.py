"""The test suite's own SWE-bench instances, graded by the official harness in real containers."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from harness.contract.whole_files import cache_folder
from tests.e2e.swe_instances import instances, missing, scripted_fix

NO_EFFECT = """\
diff --git a/notes.txt b/notes.txt
new file mode 100644
--- /dev/null
+++ b/notes.txt
@@ -0,0 +1 @@
+This changes no behaviour.
"""

pytestmark = [pytest.mark.engine, pytest.mark.long]  # minutes: the official harness on whole repositories


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return instances(cache_folder() / "swe-instances")


def graded(rows: list[dict[str, Any]], patches: dict[str, str], folder: Path) -> dict[str, dict[str, Any]]:
    """What the official harness reports of one patch for each instance, by instance."""
    (folder / "dataset.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = [
        {"instance_id": name, "model_patch": patch, "model_name_or_path": "model"} for name, patch in patches.items()
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in predictions))
    # The run id is in the containers' names, and a container of the same name is removed: tests run side by side.
    run_id = uuid.uuid4().hex
    command = [sys.executable, "-m", "swebench.harness.run_evaluation", "-d", "dataset.jsonl", "-s", "test"]
    command += ["-p", "predictions.jsonl", "-id", run_id, "--max_workers", "2", "-t", "300"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    reports = {}
    for name in patches:
        logs = folder / "logs/run_evaluation" / run_id / "model" / name
        report = logs / "report.json"
        assert report.exists(), result.stdout + result.stderr + (logs / "run_instance.log").read_text()
        reports.update(json.loads(report.read_text()))
    return reports


def test_the_gold_patch_resolves_every_instance(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    reports = graded(rows, {row["instance_id"]: row["patch"] for row in rows}, tmp_path)
    assert len(reports) >= 2
    assert all(report["resolved"] for report in reports.values()), reports


def test_without_the_fix_just_the_listed_tests_fail(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    reports = graded(rows, {row["instance_id"]: NO_EFFECT for row in rows}, tmp_path)
    for row in rows:
        report = reports[row["instance_id"]]
        assert report["patch_successfully_applied"] and not report["resolved"]
        tests = report["tests_status"]
        assert tests["FAIL_TO_PASS"] == {"success": [], "failure": row["FAIL_TO_PASS"]}
        assert tests["PASS_TO_PASS"] == {"success": row["PASS_TO_PASS"], "failure": []}


def test_the_scripted_fix_submits_the_gold_patch(rows: list[dict[str, Any]]) -> None:
    import docker

    client = docker.from_env()
    for row in rows:
        container = client.containers.run(row["image"], "sleep 300", detach=True, remove=True, network_mode="none")
        try:
            for command in scripted_fix(row):
                answer = container.exec_run(["bash", "-c", command], environment={"BASH_ENV": "/root/.bashrc"})
                assert answer.exit_code == 0, answer.output
        finally:
            container.kill()
        first, patch = answer.output.decode().split("\n", 1)
        assert first == "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
        assert changes(patch) == changes(row["patch"])


def changes(patch: str) -> list[str]:
    """The lines that a patch takes out and puts in."""
    return [line for line in patch.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
