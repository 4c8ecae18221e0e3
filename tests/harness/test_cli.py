"""Every way to end is a designed exit code, and every failure is one line on stderr without a traceback."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness import cli
from harness.contract.errors import BadInput, GateError, NotComparable, RunFailed
from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Item, Sample
from harness.gate import pipeline as gate
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter

POLICY = """\
name: test
suites: {cot: {tasks: {word_problems: {limit: 4}}}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Quantgate = Callable[..., Ended]


@pytest.fixture
def quantgate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Quantgate]:
    """Run a command in this process, in an empty folder and with an empty cache."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QUANTGATE_DEBUG", "")  # so that --debug of one test is not that of the next

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["quantgate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, captured.out, captured.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def last_line(ended: Ended) -> str:
    """The line that says what happened; nothing on stderr may be a traceback."""
    assert "Traceback" not in ended.err
    lines = ended.err.splitlines()
    assert lines and lines[-1].startswith("quantgate: ")
    return lines[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "nosuch"),
        (["gate", "--nosuch"], "--nosuch"),
        (["gate", "demo", "extra"], "extra"),
        (["gate", "--policy"], "--policy"),
        (["judge"], "Missing argument"),
        (["quantize", "demo"], "--out"),
        (["serve", "demo", "--role", "judge"], "use one of: reference, candidate"),
        (["gate", "--resume"], "--resume needs --out"),
        (["gate", "--candidate-url", "http://127.0.0.1:1"], "give both or none"),
        (["gate", "--policy", "nosuch.yaml"], "nosuch.yaml"),
        (["gate", "nowhere"], "model folder nowhere does not exist"),
        (["gate", "--resume", "--out", "nowhere"], "nowhere"),
        (["judge", "."], "not a run folder?"),
        (["judge", "nowhere"], "not a run folder?"),
        (["report", "."], "run folder?"),
        (["report", "nowhere"], "run folder?"),
        (["card", "."], "run folder?"),
        (["card"], "Missing argument"),
        (["history"], "Missing argument"),
        (["history", "nowhere"], "nowhere is no folder"),
        (["history", "."], "no run folder found"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_3(
    quantgate: Quantgate, arguments: list[str], says: str
) -> None:
    ended = quantgate(*arguments)
    assert ended.status == 3 and says in last_line(ended)


def test_one_server_is_not_compared_with_itself(quantgate: Quantgate) -> None:
    ended = quantgate("gate", "--candidate-url", "http://127.0.0.1:1/", "--reference-url", "http://127.0.0.1:1")
    assert ended.status == 3 and "same server" in last_line(ended)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (POLICY + "confidense: 0.9\n", "unknown key 'confidense'; did you mean 'confidence'?"),
        (POLICY.replace("max_loss", "max_los"), "unknown key 'checks.0.max_los'; did you mean 'max_loss'?"),
        (POLICY.replace("cot:", "cott:"), "suite 'cott' is unknown"),
        (POLICY.replace("{limit: 4}", "{limt: 4}"), "did you mean 'limit'?"),
        ("name: [", "not YAML"),
    ],
)
def test_a_wrong_policy_is_refused_before_any_work(
    quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, says: str
) -> None:
    monkeypatch.setattr(gate, "resolve_model", lambda *_: pytest.fail("began to work"))
    (tmp_path / "p.yaml").write_text(text, "utf-8")
    ended = quantgate("gate", "--policy", "p.yaml", "--out", "run")
    assert ended.status == 3 and says in last_line(ended)
    assert not (tmp_path / "run").exists()


def test_help_is_no_failure(quantgate: Quantgate) -> None:
    ended = quantgate("--help")
    assert ended.status == 0 and "INCONCLUSIVE" in ended.out and ended.err == ""
    assert "--candidate-url" in quantgate("gate", "--help").out


# -- how a run ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BadInput("bad\n input"), 3, "quantgate: bad input"),
        (NotComparable("not comparable: x"), 3, "quantgate: not comparable: x"),
        (RunFailed("server ended", details="first\nlast of the log"), 4, "quantgate: server ended"),
        (GateError("other"), 4, "quantgate: other"),
        (OSError(28, "No space left on device", "/data/x"), 4, "quantgate: /data/x: No space left on device"),
        (KeyboardInterrupt(), 4, "--resume --out RUN"),
        (ZeroDivisionError("division by\nzero"), 4, "internal error: ZeroDivisionError: division by zero"),
    ],
)
def test_every_failure_has_its_exit_code(
    quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, says: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(gate, "run_gate", fail)
    ended = quantgate("gate")
    assert ended.status == status and says in last_line(ended)
    assert ended.out == ""
    if isinstance(error, RunFailed):
        assert "first\nlast of the log\n" in ended.err
    else:
        assert all(line.startswith("start: ") for line in ended.err.splitlines()[:-1])  # progress, then the one line


def test_debug_shows_where(quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BadInput("no such thing")

    monkeypatch.setattr(gate, "run_gate", fail)
    ended = quantgate("--debug", "gate")
    assert ended.status == 3 and "Traceback" in ended.err and "no such thing" in ended.err


@pytest.mark.parametrize(("outcome", "status"), [("PASS", 0), ("FAIL", 1), ("INCONCLUSIVE", 2)])
def test_a_gate_ends_with_its_verdict(
    quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch, outcome: Any, status: int
) -> None:
    shas = {"policy_sha256": "a", "sealed_policy_sha256": "a"}
    verdict = Verdict(verdict=outcome, reason="because", policy_name="p", checks=[], **shas)

    def run_gate(_: object, reporter: Reporter) -> tuple[RunFolder, Verdict]:
        with reporter.stage("servers"):
            return RunFolder(Path("runs/r1")), verdict

    monkeypatch.setattr(gate, "run_gate", run_gate)
    ended = quantgate("gate")
    assert ended.status == status
    assert f"{outcome}: because\nreport: runs/r1/report/index.html\n" in ended.out
    assert "Where the time went" in ended.err and "Where the time went" not in ended.out


def test_what_the_command_line_says_reaches_the_gate(quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[gate.GateOptions] = []

    def fail(options: gate.GateOptions, _: object) -> None:
        asked.append(options)
        raise BadInput("seen")

    monkeypatch.setattr(gate, "run_gate", fail)
    quantgate("gate")
    urls = ["--candidate-url", "http://c", "--reference-url", "http://r"]
    more = ["--baseline", "B", "--single-file"]
    quantgate("gate", "M", "--reference", "R", "--policy", "P", "--out", "O", "--resume", *urls, *more)
    assert asked == [
        gate.GateOptions("demo"),
        gate.GateOptions("M", "R", "P", Path("O"), True, "http://c", "http://r", Path("B"), True),
    ]


# -- judging again -------------------------------------------------------------------------------------------


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    """Store a run with so many pairs; pages are not rendered here."""
    monkeypatch.setattr(gate, "render_run", lambda run, *_: run.report_path / "index.html")

    def make(both: int, lost: int = 0) -> RunFolder:
        folder, sealed = RunFolder(tmp_path / "run"), parse_policy(POLICY)
        facts: dict[str, Any] = {"run_id": "r", "created": "c", "quantgate_version": "0", "command": []}
        manifest = Manifest(**facts, policy_name="test", policy_sha256=sealed.sha256)
        folder.create(manifest, sealed)
        items = [Item(task="word_problems", item=str(i), prompt=[], prompt_sha256="a") for i in range(both + lost)]
        manifest.items_sha256["cot"] = folder.write_items("cot", items)
        folder.write_manifest(manifest)
        log = folder.log("cot")
        for i in range(both + lost):
            for role in ROLES:
                score = float(role == "reference" or i < both)
                fields: dict[str, Any] = {"suite": "cot", "task": "word_problems", "item": str(i), "role": role}
                log.append(Sample(**fields, prompt_sha256="a", score=score))
        log.close()
        return folder

    return make


@pytest.mark.parametrize(
    ("both", "lost", "status", "word"), [(400, 0, 0, "PASS"), (0, 40, 1, "FAIL"), (10, 0, 2, "INCONCLUSIVE")]
)
def test_judging_again_ends_with_the_verdict(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], both: int, lost: int, status: int, word: str
) -> None:
    run = make_run(both, lost)
    ended = quantgate("judge", run.path)
    assert ended.status == status and ended.err == ""
    assert f"{word}: " in ended.out and "cot/word_problems" in ended.out and "index.html" in ended.out
    assert run.verdict().verdict == word and not run.verdict().after_the_fact


def test_judging_with_another_policy_is_marked_as_after_the_fact(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = make_run(10)
    (tmp_path / "lax.yaml").write_text(POLICY.replace("0.01", "0.9"), "utf-8")
    ended = quantgate("judge", run.path, "--policy", "lax.yaml")
    assert ended.status == 0 and "after the fact" in ended.out
    assert run.verdict().after_the_fact
    assert quantgate("judge", run.path).status == 2  # the sealed policy is still the sealed one


def test_a_run_whose_policy_was_edited_is_not_judged(quantgate: Quantgate, make_run: Callable[..., RunFolder]) -> None:
    run = make_run(10)
    policy = run.path / "policy.yaml"
    policy.write_text(policy.read_text("utf-8").replace("0.01", "0.9"), "utf-8")
    ended = quantgate("judge", run.path)
    assert ended.status == 3 and "edited after the run began" in last_line(ended)


def test_a_run_with_a_broken_sample_is_not_judged(quantgate: Quantgate, make_run: Callable[..., RunFolder]) -> None:
    run = make_run(3)
    path = run.samples_path("cot")
    path.write_text(path.read_text("utf-8").replace('"score":1.0', '"score":7.0', 1), "utf-8")
    ended = quantgate("judge", run.path)
    assert ended.status == 3 and "cot.jsonl:1: not a sample (score" in last_line(ended)


# -- stored runs ---------------------------------------------------------------------------------------------


def test_a_report_is_asked_for_with_or_without_files_beside_it(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(gate, "render_run", lambda run, single_file: asked.append(single_file))
    run = make_run(1)
    assert [quantgate("report", run.path, *more).status for more in ([], ["--single-file"])] == [0, 0]
    assert asked == [False, True]


def test_a_card_is_printed_or_laid_into_a_file(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = make_run(400)
    quantgate("judge", run.path)
    printed = quantgate("card", run.path)
    assert printed.status == 0 and printed.out.startswith("---\n") and "## Evaluation" in printed.out
    (tmp_path / "README.md").write_text("# Mine\n", "utf-8")
    for _ in range(2):
        ended = quantgate("card", run.path, "--into", "README.md")
        assert (ended.status, ended.out) == (0, "README.md\n")
        text = (tmp_path / "README.md").read_text("utf-8")
        assert text.count("## Evaluation") == 1 and "\n# Mine\n" in text
    refused = quantgate("card", run.path, "--source-url", "file:///etc")
    assert refused.status == 3 and "give the http(s) address" in last_line(refused)


def test_a_history_names_what_is_not_on_it(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = make_run(4)
    ended = quantgate("history", run.path)
    assert ended.status == 0 and ended.out.startswith(f"not shown: {tmp_path.name}/run: no verdict")
    quantgate("judge", run.path)
    ended = quantgate("history", tmp_path, "--out", "new/h.html")
    assert (ended.status, ended.out) == (0, "new/h.html\n")
    assert "1 run of 1 model" in (tmp_path / "new" / "h.html").read_text("utf-8")


def test_names_from_a_policy_are_no_markup(quantgate: Quantgate, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict(
        verdict="FAIL",
        reason="[red]x[/red] [/]",
        policy_name="p",
        policy_sha256="a",
        sealed_policy_sha256="a",
        checks=[],
    )
    cli.print_verdict(verdict)
    assert "FAIL: [red]x[/red] [/]" in capsys.readouterr().out


# -- as a process --------------------------------------------------------------------------------------------


def test_the_process_ends_as_the_function_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "judge", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("quantgate: ")


CANCELLED = """
import os, signal, sys, time
from harness.gate import pipeline as gate
from harness import cli
def run_gate(*_):
    try:
        print("began", flush=True)
        time.sleep(60)
    finally:
        print("servers ended", flush=True)
gate.run_gate = run_gate
sys.argv = ["quantgate", "gate"]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_job_cleans_up_and_fails(number: signal.Signals) -> None:
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CANCELLED], **pipes) as process:
        assert process.stdout and process.stdout.readline() == "began\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 4 and out == "servers ended\n"
    *progress, last = err.splitlines()
    assert last.startswith("quantgate: interrupted") and all(line.startswith("start: ") for line in progress)


def test_exit_codes_are_those_of_the_help() -> None:
    assert json.dumps([e.exit_code for e in (BadInput, NotComparable, RunFailed, GateError)]) == "[3, 3, 4, 4]"
    assert "0 PASS, 1 FAIL, 2 INCONCLUSIVE" in str(cli.app.info.help)
