"""The benchmark of SWE-bench's report runs every stage on what it made, and its figures are those of the files."""

from pathlib import Path

from benchmarks.agent_report import make_run, stages
from harness.runs.folder import RunFolder


def test_every_stage_runs_on_what_was_made(tmp_path: Path) -> None:
    run = tmp_path / "run"
    written = make_run(run, 4)
    assert written == sum(path.stat().st_size for path in run.glob("swebench/*/*/agent/*/*.traj.json"))
    assert 3e6 < written < 12e6  # 4 instances of 2 roles, 0.4 to 1.5 MB each
    found = stages(RunFolder(run))
    assert list(found["seconds"]) == ["samples", "verdict", "report", "all"]
    pages = sorted((run / "report" / "swebench").glob("*.html"))
    assert (found["pages"], found["page_bytes"]) == (4, sum(page.stat().st_size for page in pages))
    verdict = RunFolder(run).verdict()
    assert [check.n for check in verdict.checks] == [4, 4, 4] and not any(check.errored for check in verdict.checks)
    words = pages[0].read_text("utf-8")
    assert 'class="nothing">No trajectory' not in words and words.count('<li class="step"') >= 60
