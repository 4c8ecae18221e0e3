"""Run by tests in a process of its own, since importing swebench changes the process: official grading of made logs.

    python swebench_official.py CASES.json

CASES: {"run", "role", "cases": [{"row", "patch", "log": text of the tests or null, "ends": how the harness ended}]}.
Writes, in the working folder, what swebench writes for such cases: by its own logger, grader and report.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from swebench.harness.constants import APPLY_PATCH_FAIL, RUN_EVALUATION_LOG_DIR
from swebench.harness.grading import get_eval_report
from swebench.harness.reporting import make_run_report
from swebench.harness.utils import EvaluationError, make_test_spec
from swebench.logger import close_logger, setup_logger


def main(path: str) -> None:
    asked = json.loads(Path(path).read_text())
    predictions, rows = {}, []
    for case in asked["cases"]:
        row, name = case["row"], case["row"]["instance_id"]
        rows.append(row)
        predictions[name] = {"instance_id": name, "model_name_or_path": asked["role"], "model_patch": case["patch"]}
        if case["patch"]:
            _write(RUN_EVALUATION_LOG_DIR / asked["run"] / asked["role"] / name, case, predictions[name])
    make_run_report(predictions, rows, asked["run"])


def _write(folder: Path, case: dict[str, Any], prediction: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    logger = setup_logger(prediction["instance_id"], folder / "run_instance.log")
    output = folder / "test_output.txt"
    logger.info(f"Git diff before:\n{case['patch']}")
    try:
        if case["log"] is not None:
            output.write_text(case["log"])
        if case["ends"] == "not applied":
            logger.info(f"{APPLY_PATCH_FAIL}:\nerror: corrupt patch")
            raise EvaluationError(prediction["instance_id"], f"{APPLY_PATCH_FAIL}:\nerror", logger)
        if case["ends"] == "timeout":
            raise EvaluationError(prediction["instance_id"], "Test timed out after 5 seconds.", logger)
        if case["ends"] == "no image":
            name = prediction["instance_id"]
            logger.error(f"Error creating container for {name}: 404 Client Error: No such image: x/y:1")
            raise EvaluationError(name, "No such image", logger)
        report = get_eval_report(make_test_spec(case["row"]), prediction, str(output), include_tests_status=True)
        (folder / "report.json").write_text(json.dumps(report))
    except EvaluationError:
        logger.info(traceback.format_exc())
    finally:
        close_logger(logger)


if __name__ == "__main__":
    main(sys.argv[1])
