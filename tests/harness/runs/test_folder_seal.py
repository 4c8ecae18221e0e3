"""A finished run is sealed: what somebody edited, added or took away afterwards is named, and nothing is judged."""

import hashlib
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from jobs import make_items

from harness import cli
from harness.contract.errors import BadInput
from harness.contract.policy import parse_policy
from harness.contract.samples import Item, Sample
from harness.gate import pipeline as gate
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter

SEALED = parse_policy("""\
name: test
suites: {cot: {}, ruler: {}}
checks: [{metric: accuracy, on: cot/*, max_loss: 0.01}]
""")


def sample(item: Item, role: Any, **fields: Any) -> Sample:
    names = {"suite": "cot", "task": item.task, "item": item.item, "role": role}
    return Sample(**names, prompt_sha256=item.prompt_sha256, **({"score": 1.0} | fields))


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """Two suites; one was asked nothing yet when it ended."""
    run = RunFolder(tmp_path / "r1")
    named: dict[str, Any] = {"run_id": "r1", "created": "c", "quantgate_version": "0", "command": []}
    manifest = Manifest(**named, policy_name="test", policy_sha256=SEALED.sha256)
    run.create(manifest, SEALED)
    log = run.log("cot")
    for item in make_items(3):
        for role in ("reference", "candidate"):
            log.append(sample(item, role))
    log.close()
    run.log("ruler").close()
    manifest.items_sha256 = {suite: run.write_items(suite, make_items(n)) for suite, n in (("cot", 3), ("ruler", 1))}
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    return run


def test_what_is_planned_is_what_the_items_say(finished: RunFolder) -> None:
    planned = {("cot", "t", item.item, 0): item.prompt_sha256 for item in make_items(3)}
    assert finished.planned() == planned | {("ruler", "t", "000", 0): make_items(1)[0].prompt_sha256}


def test_a_plan_of_other_items_is_refused(finished: RunFolder) -> None:
    path = finished.items_path("ruler")
    path.write_bytes(path.read_bytes() + path.read_bytes().replace(b'"item":"000"', b'"item":"001"'))
    with pytest.raises(BadInput, match=r"ruler\.jsonl is not the file that the manifest names"):
        finished.planned()
    path.unlink()
    with pytest.raises(BadInput, match=r"ruler\.jsonl: No such file"):
        finished.planned()


def test_samples_are_sealed_by_their_bytes(finished: RunFolder) -> None:
    data = finished.samples_path("cot").read_bytes()
    files = finished.sample_files()
    assert {name: file.model_dump() for name, file in files.items()} == {
        "cot": {"lines": 6, "sha256": hashlib.sha256(data).hexdigest()},
        "ruler": {"lines": 0, "sha256": hashlib.sha256(b"").hexdigest()},
    }
    assert finished.manifest().samples == files
    (finished.path / "samples" / "notes.txt").write_text("not ours", "utf-8")
    assert finished.sample_files() == files
    finished.require_untouched()


def change(run: RunFolder, how: str) -> str:
    """Edit a finished run in one way; returns the name of the file."""
    path = run.samples_path("cot")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    foreign = sample(make_items(9)[7], "candidate").model_dump_json() + "\n"
    edits = {
        "a score": [lines[0].replace('"score":1.0', '"score":0.0'), *lines[1:]],
        "a removed line": lines[:-1],
        "an added line": [*lines, foreign],
        "a line of another run in the place of one": [*lines[:-1], foreign],
        "another order": lines[::-1],
        "half a line": [*lines, foreign[:40]],
        "nothing left": [],
    }
    if how == "another suite":
        path = run.samples_path("needle")
        path.write_text(foreign, "utf-8")
    elif how == "a suite that is gone":
        path.unlink()
    else:
        path.write_text("".join(edits[how]), "utf-8")
    return path.name


CHANGES = {
    **{
        "a score": "6 lines then, 6 now",
        "a removed line": "6 lines then, 5 now",
        "an added line": "6 lines then, 7 now",
    },
    **{"a line of another run in the place of one": "6 lines then, 6 now", "another order": "6 lines then, 6 now"},
    **{"half a line": "6 lines then, 6 now", "nothing left": "6 lines then, 0 now"},
    **{"another suite": "0 lines then, 1 now", "a suite that is gone": "6 lines then, 0 now"},
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_finished_run_that_somebody_edited_is_refused(finished: RunFolder, how: str) -> None:
    name = change(finished, how)
    with pytest.raises(BadInput, match=rf"samples/{name} is not what the run wrote \({CHANGES[how]}\)") as caught:
        finished.require_untouched()
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("how", CHANGES)
def test_a_run_that_is_not_finished_has_no_seal_yet(finished: RunFolder, how: str) -> None:
    finished.write_manifest(finished.manifest().model_copy(update={"samples": {}}))
    change(finished, how)
    finished.require_untouched()


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`quantgate judge RUN` in this process, without its page: exit code and the lines on stderr."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handlers of pytest stay
    monkeypatch.setattr(gate, "render_run", lambda run, single_file=False: run.report_path / "index.html")

    def judge(run: RunFolder) -> tuple[Any, list[str]]:
        monkeypatch.setattr(sys, "argv", ["quantgate", "judge", str(run.path)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err.splitlines()

    return judge


@pytest.mark.parametrize("how", CHANGES)
def test_judging_an_edited_run_is_one_line_and_exit_code_3(finished: RunFolder, judged: Any, how: str) -> None:
    assert judged(finished) == (2, [])  # as it was: too few items
    before = finished.verdict()
    name = change(finished, how)
    status, (line,) = judged(finished)
    assert status == 3 and line.startswith("quantgate: ") and f"samples/{name} is not what the run wrote" in line
    assert finished.verdict() == before


def test_a_run_that_is_not_finished_can_be_judged(finished: RunFolder, judged: Any) -> None:
    finished.write_manifest(finished.manifest().model_copy(update={"samples": {}}))
    change(finished, "a removed line")
    assert judged(finished) == (2, [])
    assert finished.verdict().checks[0].missing == 1


def test_resume_does_not_seal_what_somebody_edited(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "render_run", lambda run, single_file=False: run.report_path / "index.html")
    monkeypatch.setattr(gate, "_models", lambda *_: {})
    monkeypatch.setattr(gate, "make_suites", lambda *_: [])
    monkeypatch.setattr(gate, "_make_items", lambda _: None)
    options = gate.GateOptions("m", out=finished.path, resume=True)
    gate.run_gate(options, Reporter())  # as it was: nothing is left to ask
    change(finished, "a score")
    with pytest.raises(BadInput, match="is not what the run wrote"):
        gate.run_gate(options, Reporter())
    with pytest.raises(BadInput, match="is not what the run wrote"):
        gate.judge_run(finished)
