"""Whatever the files of a run folder hold: they are read, judged and shown, or refused in one line."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from fuzzing import fuzz
from hypothesis import strategies as st
from jobs import finished
from mutations import as_json, damaged, edited

from harness.contract.errors import BadInput, GateError
from harness.contract.items import index_items, load_item, read_items
from harness.contract.samples import Sample, SampleLog, read_samples, sha256_of
from harness.contract.whole_files import sha256_of_file
from harness.gate.pipeline import judge_run
from harness.runs.folder import RunFolder
from harness.runs.instances import read_result
from harness.runs.resume import forget_passing_errors
from reports.render import render

WHOLE = Path(tempfile.mkdtemp(prefix="quantgate-fuzz-"))
RUN = finished(WHOLE / "run", errors=("002",))
judge_run(RUN)
SAMPLES = RUN.samples_path("stub").read_bytes().splitlines(keepends=True)
ITEMS = RUN.items_path("stub").read_bytes().splitlines(keepends=True)
SAMPLE_VALUES = [json.loads(line) for line in SAMPLES]
RESULT = {
    "schema_version": 1, "instance_id": "a__b-1", "role": "candidate", "outcome": "resolved",
    "exit_status": "Submitted",
    "patch": "diff", "steps": 3, "failures": [], "tests": {"FAIL_TO_PASS": {"success": ["t"], "failure": []}},
}  # fmt: skip


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quantgate-fuzz-") as name:
        yield Path(name)


def read_as_samples(path: Path) -> None:
    with suppress(BadInput):
        list(read_samples(path))
    with suppress(BadInput), closing(SampleLog(path)) as log:
        assert len(log) == len({sample.key for sample in read_samples(path)})


@fuzz(4, data=damaged([b"".join(SAMPLES[:3]), SAMPLES[0]]))
def test_bytes_of_samples(data: bytes) -> None:
    with folder() as at:
        (at / "s.jsonl").write_bytes(data)
        read_as_samples(at / "s.jsonl")


@fuzz(5, values=st.lists(edited(SAMPLE_VALUES), min_size=1, max_size=3))
def test_values_of_samples(values: list[Any]) -> None:
    with folder() as at:
        (at / "s.jsonl").write_text("".join(as_json(value) + "\n" for value in values))
        read_as_samples(at / "s.jsonl")


@fuzz(3, data=damaged([b"".join(ITEMS[:3])]))
def test_bytes_of_items(data: bytes) -> None:
    with folder() as at:
        path = at / "i.jsonl"
        path.write_bytes(data)
        with suppress(BadInput):
            for ref, item in zip(index_items(path), read_items(path), strict=True):
                assert load_item(path, ref) == item


@fuzz(3, value=edited([json.loads(line) for line in ITEMS[:2]]))
def test_values_of_items(value: Any) -> None:
    with folder() as at:
        path = at / "i.jsonl"
        path.write_text(as_json(value) + "\n")
        with suppress(BadInput):
            for item in read_items(path):
                sha256_of(item.prompt)


@fuzz(
    2,
    manifest=edited([json.loads(RUN.manifest_path.read_text())]),
    verdict=edited([json.loads((RUN.path / "verdict.json").read_text())]),
)
def test_values_of_manifest_and_verdict(manifest: Any, verdict: Any) -> None:
    with folder() as at:
        run = RunFolder(at)
        run.manifest_path.write_text(as_json(manifest))
        (at / "verdict.json").write_text(as_json(verdict))
        for read in (run.manifest, run.verdict, run.sealed_policy, run.planned, run.edited_samples):
            with suppress(BadInput):
                read()


@fuzz(1, value=edited([RESULT]))
def test_values_of_an_instances_result(value: Any) -> None:
    with folder() as at:
        (at / "result.json").write_text(as_json(value))
        with suppress(BadInput):
            read_result(at)


@fuzz(
    0.3,
    values=st.lists(edited(SAMPLE_VALUES, most=2), max_size=4),
    manifest=st.none() | edited([json.loads(RUN.manifest_path.read_text())], most=1),
)
def test_a_run_with_samples_and_a_manifest_of_anybody(values: list[Any], manifest: Any) -> None:
    """The whole way: judged and rendered. The seal is the attacker's too."""
    with folder() as at:
        shutil.copytree(RUN.path, at / "run", ignore=shutil.ignore_patterns("report"))
        run = RunFolder(at / "run")
        with run.samples_path("stub").open("a") as file:
            file.writelines(as_json(value) + "\n" for value in values)
        changed = json.loads(run.manifest_path.read_text()) if manifest is None else manifest
        if isinstance(changed, dict) and isinstance(sealed := changed.get("samples"), dict) and "stub" in sealed:
            lines = run.samples_path("stub").read_bytes().count(b"\n")
            sealed["stub"] = {"lines": lines, "sha256": sha256_of_file(run.samples_path("stub"))}
        run.manifest_path.write_text(as_json(changed))
        with suppress(GateError):
            judge_run(run)
        with suppress(GateError):
            render(run.path)
        with suppress(GateError):
            forget_passing_errors(run, run.manifest())
        assert {path.name for path in at.iterdir()} == {"run"}  # nothing was written beside it


def test_a_sample_that_is_read_is_written_again() -> None:
    for line in SAMPLES:
        assert Sample.model_validate_json(line).model_dump_json().encode() + b"\n" == line
