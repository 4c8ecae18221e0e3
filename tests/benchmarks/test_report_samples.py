"""The benchmark of a report's samples renders what it made in a process of its own, and its figures are the files'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report_samples
from harness.runs.folder import RunFolder


def test_what_it_reports_is_what_was_made_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)  # tests/browser looks at pages
    run, out = tmp_path / "run", tmp_path / "results" / "found.json"
    asked = ["--pairs", "60", "--keep", str(run), "--out", str(out)]
    assert report_samples.main(asked) == 0
    found = json.loads(out.read_text("utf-8"))
    assert found["command"] == f"python -m benchmarks.report_samples {' '.join(asked)}"
    assert (found["pairs"], found["page"]["left_out"]) == (60, "there is no chromium on the path")
    folder, report = RunFolder(run), run / "report"
    assert sum(folder.manifest().planned.values()) == 60 and len(list(folder.samples())) == 120
    assert {sample.finish_reason for sample in folder.samples()} <= {"stop", "length"}
    folder.require_untouched()
    assert found["sample_bytes"] == sum(path.stat().st_size for path in (run / "samples").iterdir())
    assert found["index_bytes"] == (report / "index.html").stat().st_size > 10_000
    side = sorted((report / "samples").iterdir())
    assert [path.name for path in side] == ["0-prompts.js", "0.js"] and found["side_files"] == 2
    assert found["side_file_bytes"] == sum(path.stat().st_size for path in side)
    assert found["render_processor_seconds"] > 0 and 0 < found["render_seconds"] < 300
    assert 20 < found["loaded_memory_mib"] <= found["peak_memory_mib"] < 1024


def test_the_run_is_the_same_each_time(tmp_path: Path) -> None:
    written = [report_samples.make_run(tmp_path / name, 18) for name in ("one", "two")]
    assert written[0] == written[1]
    one, two = (RunFolder(tmp_path / name).manifest() for name in ("one", "two"))
    assert (one.samples, one.items_sha256, one.planned) == (two.samples, two.items_sha256, two.planned)
