"""`quantgate compare`: its exit code is the verdict, and what it refuses is one line."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign_results import FINE, STAMP, Both, ids, make_run, record, records, report, write
from hangs import no_hang

from harness import cli
from harness.offline.compare import compare, to_json
from harness.offline.compare_policy import policy_of


@pytest.fixture
def quantgate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Run `quantgate compare` in this process: (status, standard output, standard error)."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["quantgate", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("right", "status", "word"), [(400, 0, "PASS"), (300, 1, "FAIL"), (396, 2, "INCONCLUSIVE")])
def test_the_exit_code_is_the_verdict(
    both: Both, quantgate: Callable[..., Any], right: int, status: int, word: str
) -> None:
    sides = both(records([1] * 400), records([1] * right + [0] * (400 - right)))
    code, out, err = quantgate(*sides, "--max-loss", "0.01")
    assert (code, err) == (status, "") and f"\n{word}: " in out and "lm_eval/gsm8k (exact_match)" in out
    code, out, err = quantgate(*sides, "--max-loss", "0.01", "--json", "--metric", "exact_match")
    found = json.loads(out)
    assert (code, err, found["verdict"]) == (status, "", word) and found["reason"]
    (task,) = found["tasks"]
    assert (task["suite"], task["task"], task["verdict"]) == ("lm_eval", "gsm8k (exact_match)", word)
    assert (task["n"], task["b"], task["c"], task["discordant"]) == (400, 400 - right, 0, 400 - right)
    assert task["lower"] <= task["estimate"] <= task["upper"] and task["reason"]
    assert (task["missing"], task["errored"], task["unequal"]) == (0, 0, 0)


def test_bad_input_is_one_line(both: Both, quantgate: Callable[..., Any], tmp_path: Path) -> None:
    folder, other = both(FINE, [*FINE, record(9, "high")])
    swebench, run = report(tmp_path / "r.json", resolved=ids(0, 9)), make_run(tmp_path / "run", 400)
    for arguments, says in (
        ([folder, swebench], f"{folder} is an lm-eval folder, {swebench} is a swebench report; give two of one kind"),
        ([run, folder], f"{run} is a quantgate run, {folder} is an lm-eval folder"),
        ([folder, other], f"samples_gsm8k_{STAMP}.jsonl:6: exact_match is 'high'"),
        ([swebench, report(tmp_path / "c.json", resolved=ids(0, 9)), "--metric", "acc"], "has one score"),
        ([folder, tmp_path / "nowhere", "--json"], "nowhere does not exist"),
        ([folder, other, "--max-loss", "1"], "--max-loss 1 is 100 points; write 0.01 for one point"),
        ([folder, other, "--max-loss", "0.5"], "--max-loss 0.5 is 50 points; write 0.01 for one point"),
        ([folder, other, "--max-loss", "nan"], "--max-loss"),
        ([folder, other, "--max-loss", "-0.1"], "--max-loss"),
        ([swebench, report(tmp_path / "d.json", resolved=ids(1, 10))], "not comparable: the reports differ in 2 of 10"),
        ([folder], "Missing argument"),
    ):
        code, out, err = quantgate("--max-loss", "0.01", *arguments)
        assert (code, err.count("\n")) == (3, 1) and says in err, arguments
        assert ("--json" in arguments and json.loads(out)["error"] == err[11:-1]) or out == ""
    assert quantgate(folder, other)[0] == 3  # the margin is the user's to choose


def test_what_is_left_out_is_printed_with_a_pass_too(quantgate: Callable[..., Any], tmp_path: Path) -> None:
    whole = report(tmp_path / "r.json", resolved=ids(0, 500))
    for name, lists, says in (
        ("a", {}, None),
        ("b", {"incomplete": ids(497, 500)}, "3 missing"),
        ("c", {"incomplete": ids(497, 498), "error": ids(498, 500)}, "1 missing, 2 errored or without a value"),
    ):
        resolved = ids(0, 500 - sum(map(len, lists.values())))
        candidate = report(tmp_path / f"{name}.json", resolved=resolved, **lists)
        code, out, err = quantgate(whole, candidate, "--max-loss", "0.03")
        assert (code, err) == (0, "") and "\nPASS: " in out
        found = [line for line in out.splitlines() if line.startswith("pairs left out")]
        assert found == ([f"pairs left out of accuracy on swebench/resolved: {says}"] if says else [])


def test_unequal_pairs_are_printed(both: Both, quantgate: Callable[..., Any]) -> None:
    sides = both(records([1] * 400), [*records([1] * 399), record(399, 1, prompt_hash="another")])
    code, out, _ = quantgate(*sides, "--max-loss", "0.02")
    assert code == 0 and "\npairs left out of accuracy on lm_eval/gsm8k (exact_match): 1 unequal\n" in out


def test_json_is_printed_on_every_exit_code(both: Both, quantgate: Callable[..., Any], tmp_path: Path) -> None:
    """Who reads standard output as JSON finds one object, with the exit code and the reason, whatever happened."""
    folder, other = both(records([1] * 400), records([1] * 400))
    broken = tmp_path / "broken" / f"samples_gsm8k_{STAMP}.jsonl"
    broken.parent.mkdir()
    broken.symlink_to(broken.name)
    for arguments, status in (
        ([folder, other, "--max-loss", "0.01"], 0),
        ([folder, tmp_path / "nowhere", "--max-loss", "0.01"], 3),
        ([folder, other], 3),
        ([folder, other, "--max-loss", "0.01", "--no-such-option"], 3),
        ([folder, other, "--policy", tmp_path / "none.yaml"], 3),
        ([folder, broken.parent, "--max-loss", "0.01"], 4),
    ):
        code, out, err = quantgate(*arguments, "--json")
        found = json.loads(out)
        assert (code, found["exit_code"]) == (status, status), arguments
        if status > 2:
            assert found["verdict"] is None and err == f"quantgate: {found['error']}\n"


def test_policy_report_and_warnings_on_the_command_line(
    both: Both, quantgate: Callable[..., Any], tmp_path: Path
) -> None:
    sides = both(records([1] * 400), records([1] * 400))
    for side in sides:
        write(side, [record(1, None, metrics=["perplexity"], perplexity=-2.0)], task="wikitext")
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "name: p\nsuites: {lm_eval: {}}\nchecks: [{metric: accuracy, on: lm_eval/*, max_loss: 2 points}]\n"
    )
    folder = tmp_path / "out"
    code, out, err = quantgate(*sides, "--policy", policy, "--report", folder)
    assert (code, err) == (0, "") and f"report: {folder}/report/index.html\n" in out
    assert "\nwarning: wikitext is not judged: of perplexity a single document has no score" in out
    assert "wikitext is not judged" in (folder / "report" / "index.html").read_text("utf-8")
    command = json.loads((folder / "manifest.json").read_text("utf-8"))["command"]
    assert command == ["quantgate", "compare", *map(str, sides), "--policy", str(policy)]
    code, out, _ = quantgate(*sides, "--policy", policy, "--json")
    assert [line[:24] for line in json.loads(out)["warnings"]] == ["wikitext is not judged: "]
    for arguments, says in (
        (
            ["--policy", policy, "--max-loss", "0.1"],
            "give --max-loss (0.01 is one point) or --policy FILE, one of them",
        ),
        (["--max-loss", "0.1", "--report", folder], f"--report {folder} is there already"),
    ):
        code, out, err = quantgate(*sides, *arguments)
        assert (code, out) == (3, "") and says in err


@pytest.mark.long
def test_twelve_thousand_graded_answers_are_judged_quickly(both: Both, quantgate: Callable[..., Any]) -> None:
    """No two scores are alike: nothing can be counted, every bound is drawn."""
    scores = [(i * 0.618033988749895) % 1 for i in range(12_000)]
    sides = both(records(scores), records([score * 0.9 for score in scores]))
    with no_hang():
        code, out, _ = quantgate(*sides, "--max-loss", "0.01", "--json")
    (task,) = json.loads(out)["tasks"]
    assert (code, task["n"]) == (1, 12_000) and task["lower"] > 0.045


def test_no_more_items_are_asked_for_than_anybody_has(both: Both, quantgate: Callable[..., Any]) -> None:
    sides = both(records([1] * 4000), records([1] * 3961 + [0] * 39))  # 0.975 points, at a margin of 1
    code, out, _ = quantgate(*sides, "--max-loss", "0.01", "--json")
    (task,) = json.loads(out)["tasks"]
    assert (code, task["items_needed"]) == (2, None) and "more than 100,000 items would be needed" in task["reason"]


def test_a_file_that_cannot_be_read_is_status_4(both: Both, quantgate: Callable[..., Any]) -> None:
    folder, other = both(FINE, FINE)
    path = other / "org__model" / f"samples_gsm8k_{STAMP}.jsonl"
    path.unlink()
    path.symlink_to(path.name)
    code, out, err = quantgate(folder, other, "--max-loss", "0.01")
    assert (code, out, err.count("\n")) == (4, "", 1) and "symbolic link" in err


def test_json_is_plain_ascii(both: Both) -> None:
    text = to_json(compare(*both(records([1] * 9, filter="厳密"), records([1] * 9, filter="厳密")), policy_of(0.01)))
    assert text.isascii() and json.loads(text)["tasks"][0]["n"] == 9
