"""README: every command in it is run as it stands there. Only servers and installations are left out."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Quantgate
from foreign_results import records, write
from offline_cases import right, save_model, write_lines
from report_runs import make_run

from harness.contract.items import read_items
from harness.gate import pipeline
from harness.gate.pipeline import GateOptions
from harness.judging.verdict import EXIT_CODES, Verdict
from harness.offline import costs
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter

ROOT = Path(__file__).parents[2]


def commands(text: str) -> Iterator[str]:
    """The commands of a document's indented blocks, each on one line, and those that stand inside of a sentence."""
    whole = re.sub(r" +#.*", "", text)
    for line in re.findall(r"^ {4}(?:\.venv/bin/quantgate|make) .*(?:\n {16,}.*)*|^ {4}make$", whole, re.MULTILINE):
        yield " ".join(line.replace("[", " ").replace("]", " ").split())
    yield from (line for line in re.findall(r"`((?:make|quantgate) [^`]+)`", whole))


README = list(dict.fromkeys(commands((ROOT / "README.md").read_text("utf-8"))))
MAKE = [command for command in README if command.startswith("make ")]
QUANTGATE = [command.removeprefix(".venv/bin/") for command in README if "quantgate" in command]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands speak of, by the names that they use: a run, results, items, a model."""
    run, model = make_run(tmp_path / "RUN"), save_model(tmp_path / "model")

    def run_gate(options: GateOptions, _: Reporter) -> tuple[RunFolder, Verdict]:
        assert (options.model, options.reference, options.out) == ("MODEL", "R", Path("RUN"))
        assert (options.candidate_url, options.reference_url, options.resume) == ("U", "U", True)
        return run, run.verdict()

    monkeypatch.setattr(pipeline, "run_gate", run_gate)
    monkeypatch.setattr(costs, "resolve_model", lambda *_: model)
    for name, lost in (("REFERENCE", 0), ("CANDIDATE", 2)):
        write(tmp_path / name, records([0.0] * lost + [1.0] * (40 - lost)))
    return tmp_path


def test_the_commands_of_quantgate_run_as_they_stand(here: Path, quantgate: Quantgate) -> None:
    ended = {}
    for command in QUANTGATE:
        words = shlex.split(command.replace("RUNS...", "RUN").replace("COMMAND", "gate"))[1:]
        if words == ["dequantize"]:  # named, not called
            words.append("--help")
        ended[words[0]] = (found := quantgate(*words)).status
        assert found.out and "Traceback" not in found.err, command
        if words[0] == "items":
            write_lines(here / "answers.jsonl", [right(item) for item in read_items(here / "items.jsonl")])
    outcome = EXIT_CODES[RunFolder(here / "RUN").verdict().verdict]
    expected = dict.fromkeys(("dequantize", "report", "card", "history", "items", "score"), 0)
    assert ended == expected | {"gate": 0, "compare": 2, "export": 0} and outcome in (0, 1, 2)
    for made in ("README.md", "history.html", "items.jsonl", "pairs.csv", "RUN/report/index.html"):
        assert (here / made).stat().st_size > 1000


@pytest.mark.parametrize("command", MAKE)
def test_make_does_what_readme_says(command: str, tmp_path: Path) -> None:
    line = [*shlex.split(command), "-n", f"VENV={tmp_path}", "FLAVOR=cpu"]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "scripts/install.sh cpu" in said  # a fresh clone
    if "gate" in line:
        named = dict(word.split("=", 1) for word in line if "=" in word)
        gate = f"quantgate gate {named.get('MODEL', 'demo')} "
        gate += " ".join(f"--{name.lower()} {named[name]}" for name in ("REFERENCE", "POLICY") if name in named)
        assert " ".join(gate.split()) in " ".join(said.split())
    else:
        assert "-m pytest" in said


def test_nothing_in_readme_is_called_that_is_not_there() -> None:
    assert len(MAKE) >= 5 and len(QUANTGATE) >= 9
    text = (ROOT / "README.md").read_text("utf-8")
    assert not re.findall(r"pip install|quantgate\[", text)  # of names that nobody published
