"""The index of all pairs, and their texts in files beside the page."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from report_page import Page, page_of, texts_of
from report_runs import make_run, sample, small_run

from harness.contract.items import read_items
from harness.contract.samples import ROLES, Item, Key, Sample
from harness.runs.folder import RunFolder
from reports.render import located_report, render
from reports.samples.index import PairRow, path_of, show_pairs
from reports.samples.pairs import KINDS, StoredPair, collect, planned_pairs
from reports.samples.side_files import FILE_PAIRS, write_texts


def pair(number: int, reference: dict[str, object], candidate: dict[str, object], task: str = "gsm8k") -> StoredPair:
    name = f"{number:03d}"
    both = sample("reference", "cot", task, name, **reference), sample("candidate", "cot", task, name, **candidate)
    return collect(both).pairs[0]


def log_samples(folder: RunFolder, *samples: Sample, suite: str = "cot") -> None:
    log = folder.log(suite)
    for one in samples:
        log.append(one)
    log.close()


def test_the_index_has_kinds_flags_scores_lengths_languages_and_answers() -> None:
    cut: dict[str, object] = {"finish_reason": "length"}
    view = show_pairs(
        [
            pair(1, {}, {}),
            pair(2, {}, {"score": 0.0, "answer": "96", "completion_tokens": 400} | cut, task="hard-ja"),
            pair(
                3, {"answer": "a" * 64, "metrics": {"looped": 1.0}}, {"answer": None, "completion_tokens": None} | cut
            ),
            pair(4, {"answer": "\u202ex\n" * 60}, {"metrics": {"unterminated": 1.0}}),
            pair(5, {}, {"score": None, "error": "timeout: 120 s"}),
        ]
    )
    assert [item for _, _, item, _ in view.keys] == ["002", "005", "003", "001", "004"]
    assert (view.tasks, view.languages, view.total) == ([("cot", "gsm8k"), ("cot", "hard-ja")], ["ja"], 5)
    kinds = list(KINDS)
    assert view.rows[0] == PairRow(
        1, "002", 0, kinds.index("worse"), 2, 0, "1 → 0", ("72", "96"), (120, 400), -1.0, None
    )
    assert view.rows[1].scores == "timeout: 120 s" and view.rows[1].language == -1
    assert view.rows[2][3:] == (kinds.index("truncated"), 6, -1, "1 → 1", (None, None), (120, None), 0.0, None)
    assert view.rows[3].flags == 0 and view.rows[4].flags == 8
    shown = view.rows[4].answers[0]
    assert shown is not None and shown.startswith("⟨U+202E⟩x ⟨U+202E⟩x") and len(shown) == 80
    assert {(choice.value, choice.label, choice.count) for choice in view.choices} == {
        ("kinds:worse,better", "Flips, either way", 1),
        ("kinds:worse", "Worse with the candidate", 1),
        ("kinds:error", "Error", 1),
        ("flags:3", "Hit the token cap, either answer", 2),
        ("flags:3=2", "Hit the token cap, the candidate alone", 2),
        ("flags:12", "Looped or thinking not closed", 2),
        ("flags:12=8", "Looped or thinking not closed, the candidate alone", 1),
        ("kinds:same", "Same score", 2),
    }


@pytest.mark.parametrize(
    ("task", "language"),
    [
        ("hard-ja", "ja"),
        ("cross-en-zh", "zh"),
        ("mgsm_ja", "ja"),
        ("mgsm_native_cot_sw", "sw"),
        ("niah_single_ja@32768", "ja"),
        ("niah_word_zh@4096", "zh"),
        *((name, None) for name in ("fetch-it", "say_no", "mmlu_pro", "gsm8k", "vt@4096", "4096", "ja", "x-jaa")),
    ],
)
def test_the_end_of_a_tasks_name_tells_its_language_where_it_is_a_code(task: str, language: str | None) -> None:
    assert show_pairs([pair(1, {}, {}, task=task)]).languages == ([language] if language else [])


def test_items_and_policy_tell_the_language_that_no_name_does() -> None:
    def item(task: str, **data: object) -> Item:
        return Item(task=task, item="1", prompt=[], prompt_sha256="h", data=data)

    items = {"needle": [item("4096")], "x": [item("fetch-it", language="it"), item("a-de", language=["no code"])]}
    plan = planned_pairs(items, lambda suite: items[suite], {"needle": "ja", "x": ""})
    assert {key[1]: of.language for key, of in plan.items()} == {"4096": "ja", "fetch-it": "it", "a-de": ""}
    made = [sample(role, *key[:2], "1", prompt_sha256="h") for key in plan for role in ROLES]
    view = show_pairs(collect(made, plan).pairs)
    assert {key[1]: view.languages[row.language] for key, row in zip(view.keys, view.rows, strict=True)} == (
        {"4096": "ja", "fetch-it": "it", "a-de": "de"}
    )


def test_an_agent_at_its_step_or_time_limit_did_not_hit_the_token_cap() -> None:
    ended: dict[str, object] = {"finish_reason": "limit"}
    view = show_pairs(
        [pair(1, {}, ended), pair(2, ended, {"finish_reason": "length"}), pair(3, {}, {"score": 0.0} | ended)]
    )
    kinds = list(KINDS)
    assert [(kinds[row.kind], row.flags) for row in view.rows] == [("worse", 32), ("truncated", 18), ("limited", 32)]
    assert {choice.label: choice.count for choice in view.choices if "Hit" in choice.label} == {
        "Hit the token cap, either answer": 1,
        "Hit the token cap, the candidate alone": 1,
        "Hit a step or time limit, either answer": 3,
        "Hit a step or time limit, the candidate alone": 2,
    }


def test_a_permalink_names_the_pair_whatever_its_name_is() -> None:
    assert path_of(("cot", "gsm8k", "0017", 2)) == "cot/gsm8k/0017/2"
    hostile = ("a/b", "#?&%2F", "<i> é\u202e", 0)
    assert [unquote(part) for part in path_of(hostile).split("/")] == ["a/b", "#?&%2F", "<i> é⟨U+202E⟩", "0"]
    assert path_of(("it's", "f(x)*~!@8", "\ud800", 0)).startswith("it's/f(x)*~!@8/")  # as encodeURIComponent does


def test_every_text_is_beside_the_page_with_its_prompt(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    page, texts = page_of(folder), texts_of(folder)
    stored = {one.key: one for one in folder.samples()}
    suites = {suite for suite, _ in page.index["tasks"]}
    items = {(suite, item.task, item.item): item for suite in suites for item in read_items(folder.items_path(suite))}
    assert len(texts) == 88
    for row, pair in zip(page.index["rows"], texts, strict=True):
        suite, task = page.index["tasks"][PairRow(*row).task]
        item = PairRow(*row).item
        assert pair["path"] == f"{suite}/{task}/{item}/0"
        for role in ROLES:
            one = stored[Key(suite, task, item, 0, role)]
            assert (pair[role]["text"], pair[role]["reasoning"]) == (one.text, one.reasoning)
            assert dict(pair[role]["facts"])["tokens"] == str(one.completion_tokens)
            assert [name for name, _ in pair[role]["metrics"]] == list(one.metrics)
        question = items[suite, task, item]
        assert pair["prompt"] == f"[user]\n{question.prompt[0]['content']}" and pair["target"] == question.target


def test_files_end_by_number_and_by_size_and_old_ones_go(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 450})
    samples = [
        sample(role, "cot", "word_problems", f"{n:03d}", score=float(n > 1), text=("x" if n > 1 else "y" * 1_000_000))
        for role in ROLES  # all of the reference first: the two samples of a pair are far apart
        for n in range(450)
    ]
    log_samples(folder, *samples)
    beside = folder.report_path / "samples"
    beside.mkdir(parents=True)
    for name in ("7.js", "7-prompts.js", "notes.txt"):
        (beside / name).write_text("old")
    page = page_of(folder)
    assert page.index["starts"] == [0, FILE_PAIRS, 2 * FILE_PAIRS]
    scripts = {f"{number}{what}.js" for number in range(3) for what in ("", "-prompts")}
    assert {path.name for path in beside.iterdir()} == scripts | {"notes.txt"}
    (beside / "notes.txt").unlink()
    assert [pair["path"].split("/")[2] for pair in texts_of(folder)] == [PairRow(*r).item for r in page.index["rows"]]
    log_samples(
        folder,
        *(
            sample(role, "cot", "word_problems", f"long{n:03d}", score=0.0, text="z" * 24_000, reasoning="z" * 24_000)
            for n in range(150)
            for role in ROLES
        ),
    )
    starts = page_of(folder).index["starts"]
    assert len(starts) > 4 and all(0 < b - a <= FILE_PAIRS for a, b in pairwise(starts))
    assert max(path.stat().st_size for path in beside.iterdir()) < 2_300_000


@pytest.mark.slow
def test_a_single_file_holds_the_texts_of_the_first_pairs_and_says_so(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 350})
    log_samples(folder, *(sample(role, "cot", "word_problems", f"{n:03d}") for n in range(350) for role in ROLES))
    render(folder.path)
    assert (folder.report_path / "samples" / "0.js").exists()
    page = Page(render(folder.path, single_file=True).read_text("utf-8"))
    assert not (folder.report_path / "samples").exists()
    assert (len(page.index["rows"]), len(page.index["inlined"]), page.index["starts"]) == (350, 300, [])
    assert page.index["inlined"][0]["candidate"]["text"].endswith("Answer: 72")
    assert "This page holds the texts of the first 300; those of the other 50 are in the run folder" in page.words
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "'self'" not in policy and "file:" not in policy


def test_a_broken_line_an_older_schema_and_a_killed_run_cost_only_themselves(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 3, "ruler/vt@2048": 1, "language/facts-ja": 1})
    whole = [sample(role, "cot", "word_problems", "0", text=f"by {role}") for role in ROLES]
    log_samples(folder, *whole)
    later = sample("candidate", "cot", "word_problems", "1").model_dump_json()
    with folder.samples_path("cot").open("ab") as file:
        file.write(f"{whole[0].model_copy(update={'text': 'a second one'}).model_dump_json()}\n".encode())
        file.write(b'{"suite":"cot","task":"\xff\xfe\n' + f"{later}\n".encode())
    old = json.loads(later) | {"suite": "ruler"}
    del old["role"]
    folder.samples_path("ruler").write_text(json.dumps(old) + "\n")
    half = sample("candidate", "language", "facts-ja", "0").model_dump_json()
    folder.samples_path("language").write_text(half)  # without its newline
    page = page_of(folder)
    later_pair, pair = texts_of(folder)
    assert later_pair["candidate"]["text"].startswith("Half of 48") and later_pair["reference"] is None
    assert (pair["reference"]["text"], pair["candidate"]["text"]) == ("by reference", "by candidate")
    assert pair["prompt"] is None and page.kinds == ["missing", "same"]
    for name in ("cot.jsonl:4", "ruler.jsonl:1"):
        assert f"is not a sample and is left out: samples/{name} (" in page.words


@pytest.mark.parametrize("suite", ["../cot", "a\x00b", ""])
def test_a_suite_that_is_no_file_name_has_no_texts(suite: str, tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 1})
    log_samples(folder, sample("candidate", suite, "t", "0"))
    page = page_of(folder)
    assert page.kinds == ["missing"]
    assert [pair["candidate"] for pair in texts_of(folder)] == [None]


def test_without_samples_nothing_is_beside_the_page(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 1})
    page = page_of(folder)
    assert "There are no samples." in page.words and not (folder.report_path / "samples").exists()


def test_texts_are_written_with_little_in_memory(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 300})
    log_samples(
        folder,
        *(sample(role, "cot", "word_problems", str(n), text="t" * 100_000) for role in ROLES for n in range(300)),
    )
    report, offsets = located_report(folder)
    tracemalloc.start()
    try:
        texts = write_texts(folder, report.pairs, offsets)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(texts.starts) > 5
    assert folder.samples_path("cot").stat().st_size > 60e6 and peak < 20e6
