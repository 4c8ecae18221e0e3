"""Answers from a file get the very samples that the live path makes of them; what is no answer is no wrong answer."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from offline_cases import POLICY, SEALED, right, save_model, write_lines

from harness.contract.errors import BadInput
from harness.contract.items import read_items
from harness.contract.policy import parse_policy
from harness.contract.samples import Item, Role, Sample, read_samples, sha256_of
from harness.endpoint.client import Completion, EndpointError
from harness.offline.costs import make_item_file
from harness.offline.scoring import OfflineScores, score_answers, score_notes, score_table, to_json
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter
from suites.registry import make_suite


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the items of two suites, <suite>.jsonl."""
    folder = tmp_path_factory.mktemp("items")
    model = save_model(folder / "model")
    for suite in ("ruler", "cot", "divergence"):
        make_item_file(suite, str(model), SEALED, folder / f"{suite}.jsonl", Reporter())
    return folder


def items_of(made: Path, suite: str) -> list[Item]:
    return list(read_items(made / f"{suite}.jsonl"))


def score(
    made: Path, suite: str, lines: list[Any], tmp_path: Path, **options: Any
) -> tuple[OfflineScores, list[Sample]]:
    answers = write_lines(tmp_path / "answers.jsonl", lines)
    out = tmp_path / "samples.jsonl"
    options = {"sealed": SEALED, "out": out} | options
    scores = score_answers(suite, made / f"{suite}.jsonl", answers, Reporter(), **options)
    return scores, list(read_samples(out))


@pytest.mark.parametrize("suite", ["cot", "ruler"])
def test_right_answers_score_one_and_wrong_ones_nothing(made: Path, tmp_path: Path, suite: str) -> None:
    items = items_of(made, suite)
    scores, samples = score(made, suite, [right(item) for item in items], tmp_path)
    assert len(items) == 6 and [s.key.pair for s in samples] == [(suite, i.task, i.item, i.repeat) for i in items]
    assert {s.score for s in samples} == {1.0} and {s.role for s in samples} == {"candidate"}
    assert [s.prompt_sha256 for s in samples] == [item.prompt_sha256 for item in items]
    assert {t: row.answers for t, row in scores.tasks.items()} == Counter(item.task for item in items)
    assert all((row.score, row.score_completed, row.cap_hit_rate) == (1, 1, 0) for row in scores.tasks.values())
    wrong, _ = score(made, suite, [right(item, text="no idea") for item in items], tmp_path, role="reference")
    assert wrong.all_tasks.score == 0 and wrong.all_tasks.not_scored == 0 and wrong.role == "reference"


CASES: dict[str, dict[str, Any]] = {
    "right": {"text": None},
    "wrong": {"text": "no idea"},
    "empty": {"text": ""},
    "thinking by tags": {"text": "<think>\nhm </think>\n\nRIGHT"},
    "thinking by the server's parser": {"text": "RIGHT", "reasoning": " hm\n"},
    "thinking closed by a tag alone": {"text": "hm</think>RIGHT"},
    "thinking that stops": {"text": "<think> hm, RIGHT"},
    "thinking that the budget cuts": {"text": "<think> hm, RIGHT", "finish": "length", "completion_tokens": 0},
    "parsed thinking without an answer": {"text": None, "reasoning": "hm, RIGHT", "null": True},
    "cut by its budget": {"text": "it is", "finish": "length", "completion_tokens": 0},
    "null": {"text": None, "null": True},
    "a call of a tool": {
        "text": None,
        "null": True,
        "finish": "tool_calls",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    "a loop": {"text": "RIGHT and again " * 300},
    "hostile": {"text": "\x1b[2J\ud800 RIGHT \u202e\x00"},
}


@pytest.mark.parametrize("suite", ["cot", "ruler"])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_sample_is_the_one_of_the_live_path(made: Path, tmp_path: Path, suite: str, case: str, opened: bool) -> None:
    """Byte by byte, the seconds that the answer took excepted."""
    item = items_of(made, suite)[1]
    live_suite = make_suite(SEALED.policy, suite, tmp_path)
    fields = dict(CASES[case])
    target = right(item)["text"]
    text = None if fields.pop("null", False) else (fields.pop("text") or target).replace("RIGHT", target)
    if case == "empty":
        text = ""
    fields.pop("text", None)
    if "completion_tokens" in fields:
        fields["completion_tokens"] = live_suite.max_tokens  # type: ignore[attr-defined]

    async def live(endpoint: Any) -> Sample:
        endpoint.thinking_opened = opened
        return await live_suite.answer(item, "reference", endpoint)

    reply = chat_reply(text, **fields)
    with FakeServer() as server:
        server.script(reply)
        expected = ask(server.url, live, max_tokens=SEALED.policy.sampling.max_tokens)

    message, usage = reply["choices"][0]["message"], reply["usage"]
    line = {"item": item.item, "task": item.task, "text": message["content"], "seconds": expected.seconds}
    line |= {key: message[key] for key in ("reasoning", "tool_calls") if key in message}
    line |= {"finish_reason": reply["choices"][0]["finish_reason"]}
    line |= {key: usage[key] for key in ("prompt_tokens", "completion_tokens")}
    _, (sample,) = score(made, suite, [line], tmp_path, role="reference", thinking_opened=opened)
    assert sample.model_dump_json() == expected.model_dump_json()


def test_what_is_no_answer_is_counted_as_what_it_is(made: Path, tmp_path: Path) -> None:
    a, b, c, d, e, f = items_of(made, "cot")
    lines = [
        right(a),
        right(b, text=None),
        right(c, text=None, tool_calls=[{"function": {"name": "f"}}], finish_reason="tool_calls"),
        right(d, text="<think> for ever"),
        right(e, text="it is", finish_reason="length", completion_tokens=24),
        right(f, text="so " * 1000, finish_reason="length"),
    ]
    scores, samples = score(made, "cot", lines, tmp_path)
    row = scores.all_tasks
    assert [s.score for s in samples] == [1, None, None, None, 0, 0]
    assert (row.score, row.score_completed, row.cap_hit_rate) == (1 / 3, 1.0, 2 / 6)
    assert (row.null, row.tool_calls, row.not_scored, row.errors, row.missing) == (1, 1, 3, 0, 0)
    assert (row.unterminated_rate, row.looped_rate) == (1 / 6, 1 / 6)
    assert scores.tasks == {"word_problems": row}


def test_a_budget_that_is_not_the_policys_is_an_error_as_on_the_live_path(made: Path, tmp_path: Path) -> None:
    a, b, c, d, *_ = items_of(made, "cot")
    lines = [
        right(a, finish_reason="length", completion_tokens=23),
        right(b, completion_tokens=25),
        right(c, completion_tokens=24),
        right(d, completion_tokens=23),
    ]
    scores, samples = score(made, "cot", lines, tmp_path)
    assert [(s.error is None, s.score) for s in samples] == [(False, None), (False, None), (True, 1), (True, 1)]
    assert samples[0].error == "budget: the answer was cut at 23 tokens, before max_tokens 24"
    assert samples[1].error == "budget: the answer has 25 tokens, more than max_tokens 24 of the policy"
    assert scores.all_tasks.errors == 2 and scores.all_tasks.score == 1 and scores.all_tasks.cap_hit_rate == 0
    assert scores.errors == [f"word_problems/{i.item}: {s.error}" for i, s in zip((a, b), samples, strict=False)]

    suite = make_suite(SEALED.policy, "cot", tmp_path)
    with FakeServer() as server:
        server.script(chat_reply("x", finish="length", completion_tokens=23))
        with pytest.raises(EndpointError, match=r"^budget: .*before max_tokens 24"):
            ask(server.url, lambda endpoint: suite.answer(a, "candidate", endpoint), max_tokens=24)


def test_what_the_file_does_not_tell_stays_unknown(made: Path, tmp_path: Path) -> None:
    a, b, c, *_ = items_of(made, "cot")
    bare = [{"item": i.item, "text": right(i)["text"]} for i in (a, b)]
    scores, samples = score(made, "cot", [*bare, {"item": c.item, "text": None}], tmp_path)
    assert all((s.finish_reason, s.prompt_tokens, s.completion_tokens) == (None, None, None) for s in samples)
    row = scores.all_tasks
    assert [s.score for s in samples] == [1, 1, None] and row.null == 1 and row.finish_unknown == 3
    assert (row.score, row.score_completed, row.cap_hit_rate) == (1.0, None, None)
    assert score_notes(scores)[0].startswith("3 answers have no finish_reason")


def test_missing_answers_are_named_and_counted(made: Path, tmp_path: Path) -> None:
    items = items_of(made, "ruler")
    scores, samples = score(made, "ruler", [right(items[4]), right(items[0])], tmp_path)
    assert [s.key.pair[1:] for s in samples] == [(items[i].task, items[i].item, 0) for i in (4, 0)]
    assert scores.missing == [f"{items[i].task}/{items[i].item}" for i in (1, 2, 3, 5)]
    assert {task: row.missing for task, row in scores.tasks.items()} == {"niah_single_1@2048": 2, "vt@2048": 2}
    assert scores.all_tasks.missing == 4 and scores.all_tasks.score == 1
    none_of_vt, _ = score(made, "ruler", [right(items[0])], tmp_path)
    row = none_of_vt.tasks["vt@2048"]
    assert (row.answers, row.score, row.cap_hit_rate, row.missing) == (0, None, None, 3)


def test_repeats_are_items_of_their_own(made: Path, tmp_path: Path) -> None:
    first = items_of(made, "cot")[0]
    twice = tmp_path / "cot.jsonl"
    write_lines(twice, [first.model_copy(update={"repeat": i}).model_dump_json() for i in range(3)])
    lines = [right(first, repeat=2), right(first, repeat=0, text="no idea")]
    scores, samples = score(tmp_path, "cot", lines, tmp_path)
    assert [(s.repeat, s.score) for s in samples] == [(2, 1), (0, 0)]
    assert scores.missing == [f"word_problems/{first.item}/1"] and scores.all_tasks.score == 0.5


def test_without_out_the_same_is_counted_and_nothing_written(made: Path, tmp_path: Path) -> None:
    lines = [right(item) for item in items_of(made, "cot")]
    with_out, _ = score(made, "cot", lines, tmp_path)
    (tmp_path / "samples.jsonl").unlink()
    answers = tmp_path / "answers.jsonl"
    assert score_answers("cot", made / "cot.jsonl", answers, Reporter(), sealed=SEALED) == with_out
    assert list(tmp_path.iterdir()) == [answers]


# -- a run's own items -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    """A run with the items of cot, by a policy that is not demo's, of a model whose template opens the thinking."""
    folder = RunFolder(tmp_path / "run")
    facts: dict[str, Any] = {"run_id": "r", "created": "c", "quantgate_version": "0", "command": []}
    manifest = Manifest(**facts, policy_name="small", policy_sha256=SEALED.sha256, thinking_opened=True)
    folder.create(manifest, SEALED)
    manifest.items_sha256["cot"] = folder.write_items("cot", items_of(made, "cot"))
    folder.write_manifest(manifest)
    return folder


def test_a_runs_items_bring_its_policy_and_its_template(run: RunFolder, made: Path, tmp_path: Path) -> None:
    item = items_of(made, "cot")[0]
    answers = write_lines(tmp_path / "a.jsonl", [right(item, text="so it is #### 1, no end of thinking")])
    out = tmp_path / "s.jsonl"
    scores = score_answers("cot", run.items_path("cot"), answers, Reporter(), out=out)
    assert scores.policy_sha256 == SEALED.sha256
    (sample,) = read_samples(out)
    assert sample.metrics["unterminated"] == 1 and sample.score is None and sample.text == ""
    other = parse_policy(POLICY.replace("name: small", "name: other"))
    assert score_answers("cot", run.items_path("cot"), answers, Reporter(), sealed=other).policy == "other"


def test_a_runs_items_that_were_edited_are_refused(run: RunFolder, made: Path, tmp_path: Path) -> None:
    path = run.items_path("cot")
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "cot")[0])])
    path.write_bytes(path.read_bytes().replace(b'"target":"', b'"target":"1', 1))
    with pytest.raises(BadInput, match="is not the file that the manifest names"):
        score_answers("cot", path, answers, Reporter())


# -- refused ---------------------------------------------------------------------------------------------------------


def test_a_suite_that_measures_a_server_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="suite divergence cannot be scored offline: it measures a server"):
        score(made, "divergence", [{"item": "x", "text": "x"}], tmp_path)


def test_a_suite_that_the_policy_does_not_name_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="policy small names no suite 'nosuch'; it names cot, ruler, divergence"):
        score_answers("nosuch", made / "cot.jsonl", tmp_path / "a", Reporter(), sealed=SEALED)


def test_one_bad_line_and_nothing_is_scored_or_written(made: Path, tmp_path: Path) -> None:
    lines = [right(item) for item in items_of(made, "cot")]
    for bad in ("{", lines[0], right(items_of(made, "ruler")[0])):
        with pytest.raises(BadInput, match=r"answers\.jsonl:7: "):
            score(made, "cot", [*lines, bad], tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_items_of_another_suite_are_refused(made: Path, tmp_path: Path) -> None:
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "ruler")[0])])
    with pytest.raises(BadInput, match="item niah_single_1@2048/0000"):
        score_answers("cot", made / "ruler.jsonl", answers, Reporter(), sealed=SEALED, out=tmp_path / "s.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("target", "why"), [(5, "TypeError"), ([], "ZeroDivisionError"), ([5], "AttributeError"), (None, "TypeError")]
)
def test_an_item_that_the_scorer_cannot_use_is_named(tmp_path: Path, target: Any, why: str) -> None:
    item = Item(task="\x1b[2Jt", item="1", prompt=[], prompt_sha256="a", target=target)
    write_lines(tmp_path / "ruler.jsonl", [item.model_dump_json()])
    says = rf"item \[2Jt/1 cannot be scored by suite ruler \({why}: .*\); is it of this suite and policy\?"
    with pytest.raises(BadInput, match=says):
        score(tmp_path, "ruler", [{"item": "1", "text": "x"}], tmp_path)
    assert not (tmp_path / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "items.jsonl: no item is in it"),
        (["{"], "items.jsonl:1: not an item"),
        (['{"task": "t", "item": "1", "prompt": [], "prompt_sha256": "a"}'] * 2, "item t/1 is there twice"),
    ],
)
def test_broken_items_are_refused(tmp_path: Path, lines: list[Any], says: str) -> None:
    items = write_lines(tmp_path / "items.jsonl", lines)
    with pytest.raises(BadInput, match=says):
        score_answers("cot", items, tmp_path / "a.jsonl", Reporter(), sealed=SEALED)


def test_out_never_replaces_what_is_read(made: Path, tmp_path: Path) -> None:
    items = tmp_path / "cot.jsonl"
    items.write_bytes((made / "cot.jsonl").read_bytes())
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "cot")[0])])
    for out in (items, answers, tmp_path, tmp_path / "." / "cot.jsonl"):
        before = items.read_bytes(), answers.read_bytes()
        with pytest.raises(BadInput, match="name another file"):
            score_answers("cot", items, answers, Reporter(), sealed=SEALED, out=out)
        assert (items.read_bytes(), answers.read_bytes()) == before


# -- shown -----------------------------------------------------------------------------------------------------------


def printed(table: Any) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_hostile_names_and_texts_do_not_reach_the_terminal(tmp_path: Path) -> None:
    evil = "[red]\x1b]0;owned\x07\u202etask\n"
    prompt = [{"role": "user", "content": "a"}]
    fields: dict[str, Any] = {"prompt": prompt, "prompt_sha256": sha256_of(prompt), "target": ["7"]}
    items = [Item(task=evil, item=name, **fields) for name in ("\x1b[2J1", "2", "3")]
    write_lines(tmp_path / "ruler.jsonl", [item.model_dump_json() for item in items])
    lines = [right(items[1], text="\x1b[2J 7"), right(items[2], finish_reason="length", completion_tokens=1)]
    scores, samples = score(tmp_path, "ruler", lines, tmp_path)
    assert samples[0].score == 1 and samples[0].task == evil
    rows, notes = printed(score_table(scores)), score_notes(scores)
    assert all(line.isprintable() for line in (*rows.splitlines(), *notes)) and "[red]" in rows
    assert any(note.startswith("missing: [red]") for note in notes) and any("error: [red]" in note for note in notes)
    assert to_json(scores).isascii() and all(line.isprintable() for line in to_json(scores).splitlines())


def test_the_table_shows_score_completed_and_cap_hits_together(made: Path, tmp_path: Path) -> None:
    items = items_of(made, "ruler")
    lines = [right(items[0]), right(items[1], text="no"), right(items[2], finish_reason="length"), right(items[3])]
    scores, _ = score(made, "ruler", lines, tmp_path)
    header, first, second, every = printed(score_table(scores)).splitlines()
    assert header.split()[:6] == ["task", "answers", "score", "completed", "cap", "hit"]
    assert first.split() == ["niah_single_1@2048", "3", "66.7%", "50.0%", "33.3%", "0.0%", "0.0%", *"00000"]
    assert second.split() == ["vt@2048", "1", "100.0%", "100.0%", "0.0%", "0.0%", "0.0%", *"00002"]
    assert every.split()[:5] == ["all", "4", "75.0%", "66.7%", "25.0%"]


def test_many_missing_answers_are_listed_in_part_and_counted_in_full(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "a"}]
    fields: dict[str, Any] = {"prompt": prompt, "prompt_sha256": sha256_of(prompt), "target": ["7"]}
    items = [Item(task="t", item=str(i), **fields) for i in range(50)]
    write_lines(tmp_path / "ruler.jsonl", [item.model_dump_json() for item in items])
    scores, _ = score(tmp_path, "ruler", [right(items[0])], tmp_path)
    notes = score_notes(scores)
    assert len(notes) == 21 and notes[-1] == "missing: 29 more; --json names them all"
    assert len(json.loads(to_json(scores))["missing"]) == 49


def test_the_scorer_is_the_suites_own(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's answer reaches `score` as a Completion; what `score` returns is what is stored."""
    from suites.ruler.suite import Ruler

    seen: list[Completion] = []
    real = Ruler.score

    def score_of(self: Ruler, item: Item, role: Role, completion: Completion) -> Sample:
        seen.append(completion)
        return real(self, item, role, completion).model_copy(update={"score": 0.25})

    monkeypatch.setattr(Ruler, "score", score_of)
    item = items_of(made, "ruler")[0]
    scores, _ = score(made, "ruler", [right(item, text="<think>a</think>b", completion_tokens=3)], tmp_path)
    assert scores.all_tasks.score == 0.25
    assert (seen[0].text, seen[0].reasoning, seen[0].completion_tokens) == ("b", "a", 3)


def test_an_answer_that_the_scorer_calls_unusable_is_an_error(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suites.ruler.suite import Ruler

    def refuse(*_: object) -> Sample:
        raise EndpointError("garbage", "no \x1b[31muse")

    monkeypatch.setattr(Ruler, "score", refuse)
    scores, samples = score(made, "ruler", [right(items_of(made, "ruler")[0])], tmp_path)
    assert scores.all_tasks.errors == 1 and samples[0].error == "garbage: no \x1b[31muse" and samples[0].score is None
    assert all(note.isprintable() for note in score_notes(scores))
