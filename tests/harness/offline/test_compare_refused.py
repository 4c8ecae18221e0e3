"""What of an lm-eval folder is refused: metrics, records, lines, folders and margins, each named."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_results import FINE, STAMP, Both, record, records, write

from harness.contract.errors import BadInput
from harness.offline import results
from harness.offline.compare import compare_results


@pytest.mark.parametrize(
    ("metric", "value", "says"),
    [
        ("word_perplexity", [-12.5, 7], "nothing can be judged: gsm8k is not judged: of word_perplexity a single"),
        ("rouge1", 43.5, r"jsonl:1: rouge1 is 43\.5; a score is a number from 0 to 1"),
        ("inst_level", [True, False], r"jsonl:1: inst_level is \[True, False\]; a score"),
        ("edits", 0.25, "task gsm8k: nothing says whether more or less edits is better .* policy"),
    ],
)
def test_a_metric_that_is_no_score_is_refused(both: Both, metric: str, value: object, says: str) -> None:
    rows = records([None] * 3, metrics=[metric], **{metric: value})
    with pytest.raises(BadInput, match=says):
        compare_results(*both(rows, rows), 0.05)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (records([1, float("nan")]), r"jsonl:2: exact_match is nan; a score"),
        (records([1, float("inf")]), r"jsonl:2: exact_match is inf"),
        ([*FINE, {**FINE[0], "doc_id": 5, "exact_match": None}], r"jsonl:6: exact_match is None"),
        (records([1, "1"]), r"jsonl:2: exact_match is '1'"),
        (records([1, {"a": 1}]), r"jsonl:2: exact_match is \{'a': 1\}"),
        (records([1, -0.5]), r"jsonl:2: exact_match is -0\.5"),
        ([*FINE, record(9, None)], r"jsonl:6: no exact_match"),
        ([*FINE, FINE[2]], r"jsonl:6: the same document and filter as line 3"),
        ([*FINE, record(9, 1, doc_hash=None, prompt_hash=None)], r"jsonl:6: no doc_hash, prompt_hash"),
        ([*FINE, record(9, 1, doc_hash=["x"])], r"jsonl:6: doc_hash \['x'\] is no text"),
        ([*FINE, record(9, 1, filter="\x1b[31m")], r"jsonl:6: filter ' \[31m' has a character"),
        ([*FINE, record(9, 1, filter="x" * 9999)], r"jsonl:6: filter 'x{60}…' is no text of 1 to 200"),
        ([*FINE, record(9, 1, metrics="acc")], r"jsonl:6: metrics is 'acc', no list"),
        ([*FINE, ["no object"]], r"jsonl:6: expected an object, found list"),
        ([], "no record is in it"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_by_file_and_line(both: Both, rows: list[Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        compare_results(*both(FINE, rows), 0.01)
    with pytest.raises(BadInput, match=says):
        compare_results(*both(rows, FINE), 0.01)


@pytest.mark.parametrize("tail", [b'{"doc_id": 7, "do', b"[" * 100_000, b"\xff\xfe\x00", b"1" * 10_000, b"x" * 3000])
def test_a_broken_line_is_named(both: Both, tail: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_BYTES", 200_000)
    sides = both(FINE, FINE)
    with (sides[1] / "org__model" / f"samples_gsm8k_{STAMP}.jsonl").open("ab") as file:
        file.write(tail)
    with pytest.raises(BadInput, match=r"jsonl:6: (not JSON|expected an object)") as refused:
        compare_results(*sides, 0.01)
    assert len(str(refused.value)) < 500
    monkeypatch.setattr(results, "MAX_BYTES", 50)
    with pytest.raises(BadInput, match=r"jsonl:1: longer than"):
        compare_results(*sides, 0.01)


def test_two_runs_or_two_models_in_one_folder_are_ambiguous(both: Both) -> None:
    sides = both(FINE, FINE)
    write(sides[1], FINE, stamp="2026-02-02T00-00-00.000000")
    with pytest.raises(BadInput, match=r"two runs of gsm8k, samples_.*2026-01-01.* and samples_.*2026-02-02"):
        compare_results(*sides, 0.01)
    (sides[0] / "org__other").mkdir()
    (sides[0] / "org__other" / f"samples_aime_{STAMP}.jsonl").write_text(json.dumps(FINE[0]))
    with pytest.raises(BadInput, match=r"two models, .*org__model and .*org__other: name one"):
        compare_results(*sides, 0.01)


def test_a_folder_without_samples_says_what_is_needed(both: Both, tmp_path: Path) -> None:
    fine, _ = both(FINE, FINE)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="neither a run folder"):
        compare_results(fine, empty, 0.01)
    (empty / f"results_{STAMP}.json").write_text("{}")
    with pytest.raises(BadInput, match="run lm-eval with --log_samples"):
        compare_results(fine, empty, 0.01)
    with pytest.raises(BadInput, match="name the folder"):
        compare_results(fine, empty / f"results_{STAMP}.json", 0.01)
    with pytest.raises(BadInput, match="does not exist"):
        compare_results(fine, tmp_path / "nowhere", 0.01)
    with pytest.raises(BadInput, match="nothing to compare"):
        compare_results(fine, fine / ".." / fine.name, 0.01)


@pytest.mark.parametrize("margin", [float("nan"), -0.1, 1.5])
def test_a_margin_outside_0_to_1_is_refused(both: Both, margin: float) -> None:
    with pytest.raises(BadInput, match="max_loss"):
        compare_results(*both(FINE, FINE[1:]), margin)
