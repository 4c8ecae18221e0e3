"""Pairs as CSV and as Parquet: every planned pair is there, numbers are numbers, and no text is a formula."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from report_runs import make_run, sample, small_run

from harness.contract.errors import BadInput
from harness.contract.samples import Item
from harness.runs.folder import RunFolder
from reports.formats.pair_table import COLUMNS, Row, export_pairs


def rows_of(run: RunFolder, path: Path) -> tuple[list[dict[str, str]], list[Row]]:
    """The rows of both files."""
    assert export_pairs(run, path / "pairs.csv") == export_pairs(run, path / "pairs.parquet")
    text = (path / "pairs.csv").read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text))), pq.read_table(path / "pairs.parquet").to_pylist()


def test_both_files_hold_every_pair_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", damage=0.3)
    plain, typed = rows_of(run, tmp_path)
    assert len(plain) == len(typed) == 88 and list(typed[0]) == list(COLUMNS) == list(plain[0])
    stored = {(s.suite, s.task, s.item, s.role): s for s in run.samples()}
    for row, said in zip(typed, plain, strict=True):
        reference, candidate = (stored[row["suite"], row["task"], row["item"], r] for r in ("reference", "candidate"))  # type: ignore[index]
        assert (row["reference_score"], row["candidate_score"]) == (reference.score, candidate.score)
        assert row["candidate_completion_tokens"] == candidate.completion_tokens and row["unusable"] is None
        assert said["reference_score"] == ("" if reference.score is None else str(reference.score))
        if reference.score is not None and candidate.score is not None:
            assert row["difference"] == candidate.score - reference.score
        metrics = json.loads(str(row["candidate_metrics"])) if row["candidate_metrics"] else {}
        assert metrics == candidate.metrics
        if metrics:
            assert row["kl"] == pytest.approx(metrics["kl_upper_sum"] / metrics["positions"])


def test_what_was_not_answered_is_there_and_hostile_text_is_inert(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", {"cot/word_problems": 3})
    log = run.log("cot")
    log.append(sample("reference", "cot", "word_problems", "0", answer='=HYPERLINK("http://x")'))
    log.append(sample("candidate", "cot", "word_problems", "0", answer="-3", score=0.0))
    log.append(
        sample("candidate", "cot", "word_problems", "1", error="timeout: 1 s", score=None, answer="\x1b[31m\u202e")
    )
    log.close()
    facts = run.manifest()
    shas = {one.item: one.prompt_sha256 for one in run.samples()}
    items = [Item(task="word_problems", item=n, prompt=[], prompt_sha256=shas.get(n, "a")) for n in ("0", "1", "2")]
    facts.items_sha256["cot"] = run.write_items("cot", items)
    run.write_manifest(facts)
    plain, typed = rows_of(run, tmp_path)
    assert [row["unusable"] for row in typed] == [None, "missing", "missing"]
    assert plain[0]["reference_answer"].startswith("'=HYPERLINK") and plain[0]["candidate_answer"] == "-3"
    assert typed[0]["reference_answer"] == '=HYPERLINK("http://x")'
    assert typed[1]["candidate_error"] == "timeout: 1 s" and typed[1]["candidate_answer"] == "␛[31m⟨U+202E⟩"
    assert typed[2]["reference_score"] is None and plain[2]["reference_score"] == ""


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"pairs\.xlsx: name a file that ends in \.csv or \.parquet"):
        export_pairs(small_run(tmp_path / "run", {}), tmp_path / "pairs.xlsx")
