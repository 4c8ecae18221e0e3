"""The last steps of a gate: the manifest is whole before the report, which is rendered once."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_server import FakeServer
from jobs import finish, make_job

from harness.contract.samples import Role
from harness.gate import pipeline
from harness.runs.folder import RunFolder
from harness.runs.manifest import Stage
from harness.runs.progress import Reporter


def test_the_report_is_rendered_once_when_it_is_known_where_the_time_went(
    servers: dict[Role, FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish(make_job(tmp_path / "run"), servers).run
    rendered: list[list[Stage]] = []

    def render(found: RunFolder, single_file: bool = False) -> Path:
        rendered.append(found.manifest().stages)
        return found.report_path / "index.html"

    monkeypatch.setattr(pipeline, "render_run", render)
    monkeypatch.setattr(pipeline, "_models", lambda *_: {})
    monkeypatch.setattr(pipeline, "make_suites", lambda *_: [])
    reporter = Reporter()
    with reporter.stage("models"):
        pass
    pipeline.run_gate(pipeline.GateOptions("m", out=run.path, resume=True), reporter)
    assert rendered == [run.manifest().stages]
    told = [stage.name for stage in reporter.stages]
    assert told[0] == "models" and told[-1] == "report"
    assert [stage.name for stage in rendered[0]] == told[:-1]
