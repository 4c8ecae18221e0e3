"""Rows of SWE-bench, checked at the door: from the hub, or from a .jsonl file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.contract.datasets import SWEBENCH
from harness.contract.errors import BadInput, first_error
from harness.contract.text import quoted


def _from_json(value: Any) -> Any:
    """Lists of tests are lists, or JSON text of one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("neither a list nor JSON text of one") from None


Tests = Annotated[list[str], BeforeValidator(_from_json)]
Text = Annotated[str, Field(min_length=1)]


class InstanceRow(BaseModel):
    """What solving and grading an instance need, in the schema of swebench 5. The gold patch is never read."""

    model_config = ConfigDict(frozen=True)

    instance_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,150}$")
    problem_statement: Text
    image: Text
    """The container image: the repository at /testbed, as it was before it was mended."""
    repo: Text
    version: str
    FAIL_TO_PASS: Tests
    PASS_TO_PASS: Tests
    log_parser: Text
    eval_type: Literal["pass_and_fail", "fail_only"]
    eval_script: Text
    image_assets: Any = None


def load_rows(dataset: str, split: str) -> Iterator[InstanceRow]:
    """The rows of a .jsonl file, or of a data set of the hub, in their order.

    Raises:
        BadInput: no such data, a row of an older schema (what it lacks is named), or an instance that is there twice.
    """
    seen = set()
    rows = _file_rows(Path(dataset)) if dataset.endswith(".jsonl") else _hub_rows(dataset, split)
    for number, data in enumerate(rows, start=1):
        row = _checked(data, f"{dataset}: row {number}")
        if row.instance_id in seen:
            raise BadInput(f"{dataset}: {row.instance_id} is there twice")
        seen.add(row.instance_id)
        yield row
    if not seen:
        raise BadInput(f"{dataset}: no row is in it")


def _checked(data: Any, where: str) -> InstanceRow:
    if not isinstance(data, dict):
        raise BadInput(f"{where}: not an object")
    name = data.get("instance_id")
    where += f" ({name[:80]})" if isinstance(name, str) else ""
    needed = [field for field, info in InstanceRow.model_fields.items() if info.is_required()]
    missing = [field for field in needed if data.get(field) is None]
    if missing:
        raise BadInput(
            f"{where}: lacks {', '.join(missing)}: an older schema of SWE-bench; rows of swebench 5 have them "
            f"({SWEBENCH.hub_id} on the hub)"
        )
    try:
        return InstanceRow.model_validate({field: data[field] for field in InstanceRow.model_fields if field in data})
    except ValidationError as error:
        raise BadInput(f"{where}: {first_error(error, 'row')}") from None


def _file_rows(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise BadInput(f"{path}:{number}: not JSON: {error}") from None
    except OSError as error:
        raise BadInput(f"suite swebench: dataset {path}: {error.strerror}") from None


def _hub_rows(dataset: str, split: str) -> Iterator[Any]:
    from datasets import load_dataset

    try:
        yield from load_dataset(dataset, split=split)
    except BadInput:
        raise
    except Exception as error:  # of many kinds: no network, no such data set, no such split
        what = f"suite swebench: data set {dataset} (split {split}) cannot be loaded: {quoted(str(error), 200)}"
        raise BadInput(f"{what}; give a .jsonl file") from None
