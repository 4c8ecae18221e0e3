"""`quantgate items` and `quantgate score`: what they print, and one line with exit code 3 for what they refuse."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from offline_cases import NO_SYSTEM, POLICY, TEMPLATE, right, save_model, write_lines

from harness import cli
from harness.contract.items import read_items
from harness.contract.samples import read_samples


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Quantgate = Callable[..., Ended]


@pytest.fixture
def quantgate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Quantgate]:
    """Run a command in this process, in a folder with a policy and a model."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTGATE_DEBUG", "")
    (tmp_path / "p.yaml").write_text(POLICY, "utf-8")
    save_model(tmp_path / "model")

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["quantgate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int) and "Traceback" not in captured.err
        return Ended(ended.value.code, captured.out, captured.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


ITEMS = ("items", "ruler", "--model", "model", "--policy", "p.yaml", "--out", "i.jsonl")
SCORE = ("score", "ruler", "i.jsonl", "a.jsonl", "--policy", "p.yaml")


def test_items_and_answers_go_round(quantgate: Quantgate, tmp_path: Path) -> None:
    ended = quantgate(*ITEMS)
    assert ended.status == 0 and "items: 6" in ended.err
    header, *rows, last = ended.out.splitlines()
    assert header.split() == ["task", "items", "prompt", "tokens", "longest", "prompt", "most", "answer", "tokens"]
    assert [row.split()[0] for row in rows] == ["niah_single_1@2048", "vt@2048", "one", "both"]
    assert rows[2].split()[2] == "6" and rows[3].split()[2] == "12" and rows[3].split()[-1] == "192"
    assert last.startswith("items: i.jsonl (sha256 ")

    items = list(read_items(tmp_path / "i.jsonl"))
    write_lines(tmp_path / "a.jsonl", [right(item) for item in items[:-1]])
    ended = quantgate(*SCORE, "--out", "s.jsonl", "--role", "reference")
    assert ended.status == 0 and "score: 5/5" in ended.err
    assert "100.0%" in ended.out and ended.out.splitlines()[-1] == f"missing: vt@2048/{items[-1].item}"
    assert [(s.role, s.score) for s in read_samples(tmp_path / "s.jsonl")] == [("reference", 1.0)] * 5


def test_json_is_one_object_on_standard_output(quantgate: Quantgate, tmp_path: Path) -> None:
    ended = quantgate(*ITEMS, "--json")
    assert ended.status == 0 and json.loads(ended.out)["both_roles"]["most_answer_tokens"] == 192
    write_lines(tmp_path / "a.jsonl", [right(item) for item in read_items(tmp_path / "i.jsonl")])
    ended = quantgate(*SCORE, "--json")
    found = json.loads(ended.out)
    assert ended.status == 0 and found["all_tasks"]["score"] == 1 and found["missing"] == []
    assert not (tmp_path / "s.jsonl").exists()


def test_a_template_that_opens_the_thinking_is_said_and_taken(quantgate: Quantgate, tmp_path: Path) -> None:
    save_model(tmp_path / "model", TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}")
    assert "score the answers with --thinking-opened" in quantgate(*ITEMS).out
    item = next(iter(read_items(tmp_path / "i.jsonl")))
    write_lines(tmp_path / "a.jsonl", [right(item)])
    by_flag = [json.loads(quantgate(*SCORE, "--json", *flag).out)["all_tasks"] for flag in ([], ["--thinking-opened"])]
    assert [row["score"] for row in by_flag] == [1, None]
    assert [row["unterminated_rate"] for row in by_flag] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["items"], "Missing argument"),
        (["items", "ruler"], "--out"),
        (["items", "nosuch", "--out", "f"], "policy demo names no suite 'nosuch'; it names cot, ruler, "),
        (["items", "\x1b[2Jx", "--out", "f"], "names no suite"),
        (["items", "ruler", "--out", "f", "--policy", "nosuch.yaml"], "nosuch.yaml"),
        (["items", "ruler", "--out", "f", "--model", "nowhere"], "model folder nowhere does not exist"),
        (["items", "ruler", "--out", ".", "--model", "model"], "is a folder; name a file"),
        (["score", "ruler"], "Missing argument"),
        (["score", "ruler", "i.jsonl", "a.jsonl", "--role", "judge"], "use one of: reference, candidate"),
        (["score", "ruler", "i.jsonl", "a.jsonl", "--role", "noise"], "use one of: reference, candidate"),
        (["score", "ruler", "nowhere.jsonl", "a.jsonl"], "nowhere.jsonl: No such file"),
        (["score", "ruler", "i.jsonl", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["score", "divergence", "i.jsonl", "a.jsonl"], "cannot be scored offline: it measures a server"),
        (
            ["score", "needle", "i.jsonl", "a.jsonl", "--policy", "p.yaml"],
            "policy small names no suite 'needle'; it names",
        ),
        (["score", "ruler", "i.jsonl", "broken.jsonl"], "broken.jsonl:2: there is no item 'x [31m'"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_code_3(
    quantgate: Quantgate, tmp_path: Path, arguments: list[str], says: str
) -> None:
    item = '{"task": "t", "item": "1", "prompt": [], "prompt_sha256": "a", "target": ["7"]}'
    write_lines(tmp_path / "i.jsonl", [item])
    write_lines(tmp_path / "a.jsonl", [{"item": "1", "text": "7"}])
    write_lines(tmp_path / "broken.jsonl", [{"item": "1", "text": "7"}, {"item": "x\x1b[31m", "text": "7"}])
    ended = quantgate(*arguments)
    *progress, last = ended.err.splitlines()
    assert (ended.status, ended.out) == (3, "") and last.startswith("quantgate: ") and says in last
    assert all(line.isprintable() for line in ended.err.splitlines())
    assert all(line.startswith(("start: ", "score: ", "items: ")) for line in progress)
    assert not (tmp_path / "f").exists()


def test_several_faults_are_listed_before_the_one_line(quantgate: Quantgate, tmp_path: Path) -> None:
    quantgate(*ITEMS)
    write_lines(tmp_path / "a.jsonl", ["{", {"item": "\x1b]0;x\x07", "text": "7"}])
    ended = quantgate(*SCORE)
    *_, first, second, last = ended.err.splitlines()
    assert (ended.status, ended.out) == (3, "") and all(line.isprintable() for line in ended.err.splitlines())
    assert first.startswith("a.jsonl:1: not JSON") and second == "a.jsonl:2: there is no item ']0;x'"
    assert last.startswith("quantgate: a.jsonl:1: not JSON") and "2 of 2 answers cannot be used" in last


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "model model has no chat template"),
        ("{{ raise_exception('\x1b[2Jno\nuse') }}", "model model: its chat template fails: [2Jno use"),
        (NO_SYSTEM + "{% for m in messages %}{% if m.content|length > 99 %}{{ raise_exception('long') }}{% endif %}"
         "{% endfor %}x", "the chat template of model model refuses an item of suite ruler: long"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_asked_is_one_line(
    quantgate: Quantgate, tmp_path: Path, template: str | None, says: str
) -> None:
    (tmp_path / "model" / "chat_template.jinja").unlink(missing_ok=True)
    save_model(tmp_path / "model", template)
    ended = quantgate(*ITEMS)
    last = ended.err.splitlines()[-1]
    assert (ended.status, ended.out) == (3, "") and last.startswith(f"quantgate: {says}") and last.isprintable()
    assert not (tmp_path / "i.jsonl").exists()


def test_a_disk_that_cannot_be_written_is_status_4(quantgate: Quantgate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    ended = quantgate(*ITEMS[:-1], "file/i.jsonl")
    assert ended.status == 4 and ended.err.splitlines()[-1].startswith("quantgate: ")


def test_the_commands_are_in_the_help(quantgate: Quantgate) -> None:
    ended = quantgate("score", "--help")
    assert ended.status == 0 and "--thinking-opened" in ended.out and "--out" in quantgate("items", "--help").out
