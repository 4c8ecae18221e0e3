"""docs/python.md: every example runs as it stands there, and says what the run holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from foreign_results import records, write
from report_runs import make_run

from harness import api
from harness.contract.errors import BadInput
from harness.gate import pipeline
from harness.gate.pipeline import GateOptions
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """What the examples find: a run, a policy, results of lm-eval. Only asking real servers is left out."""
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "runs" / "mine")
    strict = made.sealed_policy().text.replace("max_loss: 0.10", "max_loss: 0.01")
    (tmp_path / "strict.yaml").write_text(strict, "utf-8")
    write(tmp_path / "results" / "reference", records([1.0] * 30))
    write(tmp_path / "results" / "candidate", records([1.0] * 20 + [0.0] * 10))

    def run_gate(options: GateOptions, _: Reporter) -> tuple[RunFolder, Verdict]:
        assert options == GateOptions(model="demo", policy="demo", out=Path("runs/mine"))
        return made, made.verdict()

    monkeypatch.setattr(pipeline, "run_gate", run_gate)
    return made


def test_every_example_runs_as_it_stands(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLES) == 5
    said = []
    for example in EXAMPLES:
        exec(compile(example, DOCUMENT.name, "exec"), {"__name__": "__main__"})
        said.append(capsys.readouterr().out)
    gated, read, judged, compared, table = said
    outcome = run.verdict().verdict
    assert gated.splitlines()[0] == "INCONCLUSIVE" and gated.endswith("report/index.html\n")
    assert len([line for line in read.splitlines() if "accuracy" in line]) == 2 and "qwen2.5-0.5b-w4a16" in read
    assert re.search(r"^\d+ answers of the candidate were cut", read, re.MULTILINE)
    assert judged == f"{outcome} True []\n" and run.verdict().after_the_fact
    assert compared.startswith("FAIL ") and "gsm8k" in compared
    assert table.startswith("88 ['suite', 'task', ")


def test_what_is_documented_is_what_there_is() -> None:
    text = DOCUMENT.read_text("utf-8")
    functions = [name for name in api.__all__ if name.islower()]
    assert all(f"{name}(" in text for name in functions)
    assert f"    from harness.api import {', '.join(functions)}\n" in text


def test_a_folder_that_is_no_run_and_two_margins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"manifest\.json"):
        api.load_run(tmp_path)
    with pytest.raises(BadInput, match="one of them"):
        api.compare(tmp_path, tmp_path, max_loss=0.01, policy="demo")
