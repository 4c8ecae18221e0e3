"""What machines read: JUnit, Markdown and badge. report.json, model card and history have tests of their own."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from report_runs import judge_run, make_run, result, sample, small_run, verdict_of

from harness.judging.results import NoiseResult
from harness.runs.folder import RunFolder
from reports.formats.markdown import MAX_FLIPS, SIGNS, escape, within
from reports.render import render


def run_with(path: Path, *outcomes: str, overall: str | None = None) -> RunFolder:
    folder = make_run(path, planned={"cot/word_problems": 2}, verdict=False)
    checks = [
        result(name=f"check {i} | of <cot>", on="cot/word_problems", verdict=outcome, reason=f"reason {i}")
        for i, outcome in enumerate(outcomes)
    ]
    verdict_of(folder, *checks, **({"verdict": overall} if overall else {}))
    return folder


def read(folder: RunFolder, name: str) -> str:
    render(folder.path)
    return (folder.report_path / name).read_text("utf-8")


@pytest.mark.parametrize(
    ("outcomes", "failures", "errors"),
    [
        (["PASS"] * 3, 0, 0),
        (["PASS", "FAIL", "FAIL"], 2, 0),
        (["INCONCLUSIVE", "PASS", "FAIL"], 1, 1),
        (["INCONCLUSIVE"], 0, 1),
    ],
)
def test_junit_counts_what_the_verdict_counts(tmp_path: Path, outcomes: list[str], failures: int, errors: int) -> None:
    root = ET.fromstring(read(run_with(tmp_path / "run", *outcomes), "junit.xml"))
    suite = root[0]
    for element in (root, suite):
        counts = [int(element.attrib[name]) for name in ("tests", "failures", "errors")]
        assert counts == [len(outcomes), failures, errors]
    assert len(suite.findall("testcase")) == len(outcomes)
    assert [e.get("type") for e in suite.iterfind("testcase/failure")] == ["FAIL"] * failures
    assert [e.get("type") for e in suite.iterfind("testcase/error")] == ["INCONCLUSIVE"] * errors
    properties = {p.get("name"): p.get("value") for p in suite.iterfind("properties/property")}
    assert properties["verdict"] in outcomes and properties["judged_after_the_fact"] == "false"


@pytest.mark.parametrize(
    ("overall", "kind", "tag"),
    [(None, "NOT_JUDGED", "error"), ("PASS", "PASS", "error"), ("FAIL", "FAIL", "failure")],
)
def test_junit_is_never_green_without_a_check_that_holds(
    tmp_path: Path, overall: str | None, kind: str, tag: str
) -> None:
    folder = run_with(tmp_path / "run", overall=overall or "PASS")
    if overall is None:
        (folder.path / "verdict.json").unlink()
    root = ET.fromstring(read(folder, "junit.xml"))
    assert root.attrib["tests"] == "1"
    assert [element.get("type") for element in root.iter(tag)] == [kind]


def test_junit_blocks_when_the_verdict_is_worse_than_its_checks(tmp_path: Path) -> None:
    root = ET.fromstring(read(run_with(tmp_path / "run", "PASS", overall="INCONCLUSIVE"), "junit.xml"))
    assert (root.attrib["tests"], root.attrib["errors"]) == ("2", "1")


def test_markdown_has_the_head_the_models_and_every_check(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    text = read(folder, "summary.md")
    verdict = folder.verdict()
    assert text.startswith(f"## {SIGNS[verdict.verdict]} quantgate: {verdict.verdict}\n")
    assert "| Size | 988 MB | 457 MB |" in text
    rows = [line for line in text.splitlines() if line.startswith(("| ✅", "| ❌", "| ⚠️"))]
    assert len(rows) == len(verdict.checks)
    assert {line.replace("\\|", "").count("|") for line in rows} == {11}
    assert "[!WARNING]" not in text


def test_markdown_prints_foreign_text_as_it_is(tmp_path: Path) -> None:
    assert escape("a|b *c* <img> @all\n# x `y` [z](http://w)") == (
        r"a\|b \*c\* &lt;img&gt; &#64;all \# x \`y\` \[z\]\(http&#58;//w\)"
    )
    assert escape("vt@4096 a@1.b x@all @77 c@7d") == "vt@4096 a&#64;1.b x&#64;all &#64;77 c&#64;7d"
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    verdict_of(folder, result(on="cot/| of <cot>"))
    assert r"Accuracy · cot/\| of &lt;cot&gt;" in read(folder, "summary.md")


def test_badge_says_the_verdict_in_words(tmp_path: Path) -> None:
    for outcomes, said in ((["PASS"] * 2, "PASS · 2 checks"), (["FAIL", "PASS"], "FAIL · 1 of 2 hold")):
        root = ET.fromstring(read(run_with(tmp_path / said[:4], *outcomes), "badge.svg"))
        assert root.get("aria-label") == f"quantgate: {said}"
        assert said in "".join(root.itertext())


def test_badge_of_an_unjudged_run(tmp_path: Path) -> None:
    root = ET.fromstring(read(make_run(tmp_path / "run", verdict=False), "badge.svg"))
    assert root.get("aria-label") == "quantgate: NOT JUDGED"


def test_checks_of_one_name_stay_apart_in_junit(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    verdict_of(folder, result(), result(margin=0.0101), result(on="ruler"))
    cases = ET.fromstring(read(folder, "junit.xml")).findall("testsuite/testcase")
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names) == 3
    assert names.count(("quantgate.cot", "loss of accuracy on cot/a at most 1.0 points (2)")) == 1


def test_the_summary_shows_the_largest_loss_of_every_task_and_where_the_rest_is(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 12, "ruler/vt@2048": 2})
    for suite, task, count, lost in (("cot", "word_problems", 12, 0.0), ("ruler", "vt@2048", 2, 0.5)):
        log = folder.log(suite)
        for number in range(count):
            log.append(sample("reference", suite, task, f"{number:04d}", answer="a|b"))
            score = 1.0 if number == count - 1 else lost
            log.append(sample("candidate", suite, task, f"{number:04d}", score=score, answer="<b>"))
        log.close()
    judge_run(folder)
    lines = read(folder, "summary.md").splitlines()
    rows = [line for line in lines if " → " in line and line.startswith(("| cot", "| ruler"))]
    assert "**12 pairs worse with the candidate, 0 better**; the worst:" in lines
    assert len(rows) == MAX_FLIPS
    assert rows[0] == r"| cot/word\_problems/0000/0 | 1 → 0 | a\|b | &lt;b&gt; |"
    assert rows[1].startswith("| ruler/vt@2048/0000/0 | 1 → 0.5 |")
    assert lines[-1].startswith("The whole report is `report/index.html` in the folder of run 2025-11-21")


def test_a_summary_always_fits_into_a_comment(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    facts = folder.manifest()
    facts.models["candidate"].doubts = ["&" * 1000 for _ in range(60)]
    facts.stopped = ["<" * 500 for _ in range(60)]
    folder.write_manifest(facts)
    checks = [result(name=f"{number} {'界' * 280}", on=f"cot/t{number}", reason="<" * 900) for number in range(250)]
    verdict_of(folder, result(on="the one that fails", verdict="FAIL"), *checks)
    text = read(folder, "summary.md")
    assert 40_000 < len(text.encode()) < 60_000
    assert text.startswith("## ❌ quantgate: FAIL\n") and "| ❌ FAIL | Accuracy · the one that fails |" in text
    assert "_The rest of this part does not fit here; the report has it._" in text
    assert text.count("<details>") == text.count("</details>")
    assert text.splitlines()[-1].startswith("The whole report is")


def test_room_is_never_exceeded_and_a_fold_is_whole_or_absent() -> None:
    lines = ["<details>", *(["x" * 50] * 10), "</details>"]
    for room in range(0, 700, 7):
        kept = within(lines, room)
        assert sum(len(line) + 1 for line in kept) <= room
        assert ("<details>" in kept) == ("</details>" in kept)
        kept = within(lines[1:-1], room)
        assert sum(len(line) + 1 for line in kept) <= room


def test_errors_and_duplicates_are_told_to_every_reader(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2})
    line = sample("candidate", "cot", "word_problems", "0000").model_dump_json()
    with folder.samples_path("cot").open("a") as file:
        file.write(line + "\n")
    said = "1 sample with a key that was there before"
    assert said in read(folder, "summary.md")
    assert said in (folder.report_path / "junit.xml").read_text("utf-8")
    assert said in (folder.report_path / "model_card.md").read_text("utf-8")


def test_every_report_says_what_a_result_is_worth(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    noise = NoiseResult(estimate=0.002, lower=-0.01, upper=0.02, n=400, b=7, c=5, discordant=12)
    ratio = {"metric": "speed_ratio", "margin_kind": "min", "margin": 0.9, "unit": "ratio", "estimate": 1.0}
    verdict_of(
        folder,
        result(
            verdict="INCONCLUSIVE",
            power=0.314,
            reason="about 2,120 items would decide",
            noise=noise,
            foreign=3,
            reference_value=0.833,
            candidate_value=0.708,
        ),
        result(verdict="FAIL", p_fail=0.04, after_holm=False),
        result(**ratio, lower=0.95, upper=1.05),
    )
    page = read(folder, "index.html")
    assert page.count('class="c-bar at-least"') == 1
    texts = [page, *((folder.report_path / name).read_text("utf-8") for name in ("junit.xml", "summary.md"))]
    texts.append((folder.report_path / "model_card.md").read_text("utf-8"))
    for text in texts:
        said = text.replace("&#39;", "'")
        for words in ("31 %", "about 2,120 items would decide", "noise floor 0.2 points", "D 12 of 400, −1.0 to 2.0"):
            assert words in said, words
        assert "83.3 → 70.8 %" in said and "85.0 %" in said
        assert "fails by itself, which may be chance among 3 checks" in said
        assert "3 foreign" in said and "≥ 0.900" in said and "≤ 1.0" in said
