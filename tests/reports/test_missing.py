"""What is missing, broken or of another version is named, and stops no report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_page import page_of, plain, reports_of
from report_runs import SEALED, judge_run, make_run, manifest, sample

from harness.contract.errors import BadInput
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from reports.render import read_report, render


def test_a_run_with_nothing_in_it_still_renders(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    empty = manifest(planned={}).model_copy(
        update={
            "models": {},
            "servers": {},
            "hardware": {},
            "versions": {},
            "stages": [],
            "command": [],
            "created": "yesterday",
        }
    )
    folder.create(empty, SEALED)
    words = page_of(folder).words
    for said in (
        "There are no samples.",
        "The manifest says nothing about the reference model.",
        "yesterday",
        "The manifest names no stages.",
        "The manifest holds no facts of the servers.",
    ):
        assert said in words, said


def test_a_verdict_with_zero_checks_and_null_fields_renders(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    sha = folder.manifest().policy_sha256
    folder.write_verdict(
        Verdict(
            verdict="PASS",
            reason="",
            policy_name="demo",
            policy_sha256=sha,
            sealed_policy_sha256=sha,
            checks=[],
        )
    )
    assert "The verdict holds no checks: nothing was asked of this model." in page_of(folder).words


def test_checks_without_numbers_and_suites_that_never_ran_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.samples_path("ruler").unlink()
    folder.samples_path("divergence").unlink()
    judge_run(folder)
    words = page_of(folder).words
    assert "ruler: no samples, of 24 planned pairs." in words
    assert "24 missing" in words and "zero usable pairs" in words


def test_broken_pieces_are_named_and_do_not_stop_the_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    with folder.samples_path("cot").open("a") as file:
        file.write('{"suite": "cot", "older": true}\n')
    folder.items_path("ruler").write_text("changed\n")
    (folder.path / "verdict.json").write_text("{")
    (folder.path / "policy.yaml").write_text("name: other\n")
    words = page_of(folder).words
    assert (
        "1 line of samples/cot.jsonl is not a sample and is left out: samples/cot.jsonl:97 (task: Field required)."
        in words
    )
    assert "items/ruler.jsonl is not the file that the manifest names" in words
    assert "verdict.json: not JSON" in words
    assert "policy.yaml: suites: Field required" in words
    assert "The sealed policy cannot be read." in words


def test_a_run_without_manifest_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"manifest\.json"):
        render(tmp_path)


def test_a_run_without_verdict_says_so(tmp_path: Path) -> None:
    report = read_report(make_run(tmp_path / "run", verdict=False))
    assert report.outcome == "NOT JUDGED" and report.sentence.startswith("verdict.json is not there")
    assert "There is no verdict: nothing below was judged." in report.notes


@pytest.mark.parametrize(("version", "said"), [(1, "an older version"), (9, "another version")])
def test_a_verdict_of_another_version_is_not_read(tmp_path: Path, version: int, said: str) -> None:
    folder = make_run(tmp_path / "run")
    path = folder.path / "verdict.json"
    stored = json.loads(path.read_text("utf-8")) | {"schema_version": version}
    for check in stored["checks"]:
        del check["unit"]  # version 1 had none
    path.write_text(json.dumps(stored), "utf-8")
    report = read_report(folder)
    assert report.outcome == "NOT JUDGED" and not report.checks
    assert report.sentence == f"Judged by {said} of quantgate: run quantgate judge RUN."
    assert not [note for note in report.notes if "verdict.json" in note]
    for name, text in reports_of(folder).items():
        assert "NOT JUDGED" in text.replace("\u00a0", " ") or "NOT_JUDGED" in text, name


def test_a_verdict_that_cannot_be_read_is_not_a_missing_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for broken in ("{", '{"schema_version": 2}', "[" * 100_000):
        (folder.path / "verdict.json").write_text(broken)
        report = read_report(folder)
        assert report.outcome == "NOT JUDGED" and report.sentence.startswith("verdict.json cannot be read"), broken[:9]


def test_samples_edited_after_the_run_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 8})
    facts = folder.manifest()
    facts.samples = folder.sample_files()
    folder.write_manifest(facts)
    report = read_report(folder)
    assert not report.banners and not [note for note in report.notes if "samples/" in note]
    with folder.samples_path("cot").open("a") as file:
        file.write(sample("noise", "cot", "word_problems", "0000").model_dump_json() + "\n")
    made = reports_of(folder)
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        found = plain(made[name])
        assert "Samples were changed after the run." in found, name
        assert "samples/cot.jsonl is not what the run wrote: 16 lines then, 17 now." in found, name
    (banner,) = read_report(folder).banners
    assert banner.title == "Samples were changed after the run."
    folder.samples_path("cot").unlink()
    assert "16 lines then, 0 now" in read_report(folder).banners[0].text


def test_a_broken_line_hides_no_other(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 8}, verdict=False)
    lines = folder.samples_path("cot").read_bytes().splitlines(keepends=True)
    older = json.loads(lines[9]) | {"of_version_0": 1}
    lines[3:4], lines[9] = [b'{"suite": \xff\n'], json.dumps(older).encode() + b"\n"
    folder.samples_path("cot").write_bytes(b"".join(lines))
    report = read_report(folder)
    assert report.suites[0].coverage.usable == 6 and report.pairs.total == 8
    (note,) = [note for note in report.notes if "jsonl" in note]
    assert note.startswith(
        "2 lines of samples/cot.jsonl are not samples and are left out: the first samples/cot.jsonl:4 ("
    )
