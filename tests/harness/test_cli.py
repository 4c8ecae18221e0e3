"""Every way to end is a designed exit code, and every failure is one line on stderr without a traceback."""

import json
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from command_line import POLICY, Quantgate, last_line
from report_runs import make_run, result, verdict_of

from harness import __version__, commands, terminal
from harness.contract.errors import BadInput, GateError, NotComparable, RunFailed
from harness.gate import pipeline as gate
from harness.gate.mixing import Size
from harness.judging.results import Outcome, TaskResult
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter


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
        (["traces", "demo", "--out", "traces.txt"], "a file that ends in .jsonl"),
        (["traces", "nowhere", "--out", "traces.jsonl"], "model folder nowhere does not exist"),
        (["measure-tiers", "nowhere", "--out", "d.json"], "model folder nowhere does not exist"),
        (["measure-tiers", "nowhere"], "--out"),
        (["choose-tiers", "nowhere.json", "--bits", "1.71", "--out", "r.yaml"], "nowhere.json is no file"),
        (["choose-tiers", "nowhere.json", "--out", "r.yaml"], "either in bits a weight or in bytes"),
        (["quantize", "nowhere", "--out", "x", "--policy", "nosuch.yaml"], "nosuch.yaml"),
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
    assert "--candidate-url" in quantgate("gate", "--help").out == quantgate("gate", "-h").out
    assert "--install-completion" in ended.out and quantgate("-h").out == ended.out


def test_the_version_is_that_of_the_package(quantgate: Quantgate) -> None:
    ended = quantgate("--version")
    assert (ended.status, ended.out, ended.err) == (0, f"quantgate {__version__}\n", "")
    assert __version__ == metadata.version("quantgate")


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
    assert f"{outcome}: because\nno checks in 0:00\nreport: runs/r1/report/index.html\n" in ended.out
    assert "Where the time went" in ended.err and "Where the time went" not in ended.out


def test_what_the_command_line_says_reaches_the_gate(quantgate: Quantgate, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[gate.GateOptions] = []

    def fail(options: gate.GateOptions, _: object) -> None:
        asked.append(options)
        raise BadInput("seen")

    monkeypatch.setattr(gate, "run_gate", fail)
    quantgate("gate")
    urls = ["--candidate-url", "http://c", "--reference-url", "http://r"]
    more = ["--baseline", "B", "--single-file", "--recipe", "mixed", "--bytes", "167GiB"]
    quantgate("gate", "M", "--reference", "R", "--policy", "P", "--out", "O", "--resume", *urls, *more)
    assert asked == [
        gate.GateOptions("demo"),
        gate.GateOptions(
            "M", "R", "P", Path("O"), True, "http://c", "http://r", Path("B"), True, "mixed", Size(None, "167GiB")
        ),
    ]


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (("PASS", "FAIL", "PASS", "INCONCLUSIVE", "FAIL"), "2 failed, 1 inconclusive, 2 passed in 6:55"),
        (("PASS",), "1 passed in 6:55"),
        ((), "no checks in 6:55"),
    ],
)
def test_the_closing_line_counts_checks(outcomes: tuple[Outcome, ...], said: str) -> None:
    fields: dict[str, Any] = dict.fromkeys(("reason", "policy_name", "policy_sha256", "sealed_policy_sha256"), "")
    verdict = Verdict(verdict="FAIL", checks=[result(verdict=outcome) for outcome in outcomes], **fields)
    assert terminal.closing_line(verdict, 415) == said


# -- hostile names -------------------------------------------------------------------------------------------


def test_names_from_a_policy_are_no_markup(quantgate: Quantgate, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict(
        verdict="FAIL",
        reason="[red]x[/red] [/]",
        policy_name="p",
        policy_sha256="a",
        sealed_policy_sha256="a",
        checks=[],
    )
    terminal.print_verdict(verdict)
    assert "FAIL: [red]x[/red] [/]" in capsys.readouterr().out


def test_the_console_has_both_values_and_folds_tasks_of_few_items(capsys: pytest.CaptureFixture[str]) -> None:
    few = [
        TaskResult(task=f"kind-{n}", verdict="PASS", estimate=0.01, lower=0, upper=1, n=1, p_fail=1, after_holm=False)
        for n in range(12)
    ]
    checks = [
        result(reference_value=0.208, candidate_value=0.042, estimate=0.166, margin=0.05),
        result(metric="kl_mean", on="divergence", unit="nats", margin_kind="max", tasks=few),
    ]
    verdict = Verdict(
        verdict="PASS", reason="r", policy_name="p", policy_sha256="a", sealed_policy_sha256="a", checks=checks
    )
    terminal.print_verdict(verdict)
    said = capsys.readouterr().out
    assert re.search(r"accuracy on cot/a +PASS +20\.8 → 4\.2 % +20\.2 % +16\.6 points +.* ≤ 5\.0 ", said)
    assert "kind-" not in said and "12 tasks of 1 item each, folded" in said


def test_the_reasons_are_a_line_each_those_of_the_run_first_and_three_checks_after(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/math500": 2}, verdict=False)
    said = "-1.0 points to 3.0 points straddles the margin of 1.0 points; about 41,112 items would decide"
    open_ = {"verdict": "INCONCLUSIVE", "reason": said, "upper": 0.03, "items_needed": 41_112}
    checks = [result(name=f"check {n}", on="cot/math500", **open_) for n in range(5)]
    reasons = "; ".join(["required a/b: nothing was answered", *(f"{check.name}: {said}" for check in checks)])
    verdict = verdict_of(folder, *checks, result(), reason=reasons)
    lines = terminal.why(verdict, folder)
    assert lines[0] == "required a/b: nothing was answered" and lines[-1] == "and 2 more, in the report"
    assert len(lines) == 5 and lines[1].startswith("check 0: −1.0 points to 3.0 points straddles the margin")
    assert "all 500 items there are would not decide it" in lines[1]
    assert terminal.why(verdict)[1].endswith("about 41,112 items would decide")
    assert terminal.why(verdict_of(folder, result(), reason="all 1 checks hold")) == ["all 1 checks hold"]


# -- as a process --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_process_ends_as_the_function_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "judge", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("quantgate: ")


CANCELLED = """
import os, signal, sys, time
from harness.gate import pipeline as gate
from harness.gate.mixing import Size
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


@pytest.mark.slow
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
    assert "0 PASS, 1 FAIL, 2 INCONCLUSIVE" in str(commands.app.info.help)
