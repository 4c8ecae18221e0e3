"""The page of many runs: which are on it, how their checks are drawn, and that it is as inert as a report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_page import Page
from report_runs import SEALED, edited, manifest, result, small_run, verdict_of

from harness.contract.errors import BadInput
from harness.contract.policy import SealedPolicy
from harness.judging.results import CheckResult
from harness.runs.folder import RunFolder
from harness.runs.manifest import SampleFile
from reports.history.chart import BOTTOM, HEIGHT, MOST_POINTS, TOP, Chart, chart
from reports.history.page import write_history
from reports.history.runs import groups, read_history
from reports.html import source_hash


def judged(path: Path, day: int, *checks: CheckResult, sealed: SealedPolicy = SEALED, **changed: Any) -> RunFolder:
    """A run without samples that began on a day of May; `changed` are fields of its candidate."""
    folder, facts = RunFolder(path), manifest(sealed)
    facts.run_id, facts.created = path.name, f"2025-05-{day:02d}T10:00:00+00:00"
    facts.models["candidate"] = facts.models["candidate"].model_copy(update=changed)
    folder.create(facts, sealed)
    verdict_of(folder, *(checks or (result(),)))
    return folder


def page(tmp_path: Path, *paths: Path) -> tuple[Page, str]:
    out = tmp_path / "out" / "history.html"
    write_history(paths or (tmp_path / "runs",), out)
    text = out.read_text("utf-8")
    return Page(text), text


def charts(tmp_path: Path) -> list[Chart]:
    return [chart(line) for group in groups(read_history([tmp_path / "runs"]).runs) for line in group.lines]


def test_runs_are_ordered_by_when_they_began_and_named_once(tmp_path: Path) -> None:
    for name, day in (("c", 3), ("a", 9), ("b", 1)):
        judged(tmp_path / "runs" / name, day)
    found = read_history([tmp_path / "runs" / "a", tmp_path / "runs", tmp_path / "runs" / "c"])
    assert [run.name for run in found.runs] == ["b", "c", "a"] and not found.skipped


def test_what_cannot_be_shown_is_named_with_the_reason(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    judged(runs / "good", 1)
    small_run(runs / "unfinished", {"cot/a": 1})
    old = judged(runs / "old", 2)
    path = old.path / "verdict.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"schema_version": 1}), "utf-8")
    for name, file in (("torn", "manifest.json"), ("sealed", "policy.yaml"), ("bad\u202e", "manifest.json")):
        (runs / name).mkdir()
        (runs / name / file).write_text('{"a', "utf-8")
    (judged(runs / "half", 3).path / "verdict.json").write_text("{")
    (runs / "notes").mkdir()
    (runs / "notes" / "readme.txt").write_text("no run")
    found = read_history([runs])
    why = dict(found.skipped)
    assert [run.name for run in found.runs] == ["good"]
    assert set(why) == {f"runs/{n}" for n in ("unfinished", "old", "torn", "sealed", "half", "bad⟨U+202E⟩")}
    assert why["runs/unfinished"].startswith("no verdict: the run did not finish")
    assert why["runs/old"] == "judged by another version of quantgate: run quantgate judge RUN"
    assert why["runs/torn"].startswith("manifest.json: ") and why["runs/half"].startswith("verdict.json: ")
    assert str(tmp_path) not in " ".join(why.values())
    shown, _ = page(tmp_path)
    assert "Not shown: 6 folders" in shown.words and "runs/unfinished: no verdict" in shown.words


@pytest.mark.parametrize("inside", [None, "empty"])
def test_without_any_run_it_is_bad_input(tmp_path: Path, inside: str | None) -> None:
    if inside:
        (tmp_path / "runs" / inside).mkdir(parents=True)
    with pytest.raises(BadInput, match="no run folder found" if inside else "is no folder"):
        read_history([tmp_path / "runs"])


def test_a_page_of_nothing_but_broken_runs_still_renders(tmp_path: Path) -> None:
    small_run(tmp_path / "runs" / "one", {"cot/a": 1})
    shown, _ = page(tmp_path)
    assert "0 runs of 0 models" in shown.words and "None of the folders holds a judged run." in shown.words


def test_one_line_for_each_check_of_a_model_under_a_policy(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    other = SEALED.model_copy(update={"text": SEALED.text.replace("name: demo", "name: other", 1)})
    judged(runs / "a1", 1, result(), result(metric="kl_mean", on="divergence", unit="nats", margin_kind="max"))
    judged(runs / "a2", 2, result(on="cot/b"), result(estimate=0.02))
    judged(runs / "b1", 3, name="b")
    folder = judged(runs / "a3", 4, sealed=other.model_copy())
    verdict_of(folder, result(), policy_name="other")
    found = groups(read_history([runs]).runs)
    assert [(g.model, g.policy, [run.name for run in g.runs]) for g in found] == [
        ("qwen2.5-0.5b-w4a16", "other", ["a3"]),
        ("qwen2.5-0.5b-w4a16", "demo", ["a1", "a2"]),
        ("b", "demo", ["b1"]),
    ]
    lines = {line.key[:2]: [check.estimate for _, check in line.points] for line in found[1].lines}
    assert list(lines.items()) == [
        (("accuracy", "cot/b"), [0.0]),
        (("accuracy", "cot/a"), [0.0, 0.02]),
        (("kl_mean", "divergence"), [0.0]),
    ]


def test_a_chart_places_estimates_bounds_and_a_margin_that_moved(tmp_path: Path) -> None:
    for day, (estimate, margin) in enumerate([(0.0, 0.05), (0.02, 0.05), (0.06, 0.03)], 1):
        verdict = "FAIL" if estimate > margin else "PASS"
        fields: dict[str, Any] = {"lower": estimate - 0.01, "upper": estimate + 0.01, "margin": margin}
        judged(tmp_path / "runs" / f"r{day}", day, result(estimate=estimate, verdict=verdict, **fields))
    (drawn,) = charts(tmp_path)
    inner = HEIGHT - TOP - BOTTOM
    ys = [mark.y for mark in drawn.marks if mark.y is not None]
    assert [mark.verdict for mark in drawn.marks] == ["PASS", "PASS", "FAIL"]
    assert ys[0] == drawn.equal and ys[0] > ys[1] > ys[2]
    assert (ys[0] - ys[1]) / (ys[1] - ys[2]) == pytest.approx(0.5, abs=0.01)
    for mark in drawn.marks:
        assert mark.y is not None and TOP <= mark.high < mark.y < mark.low <= TOP + inner
    heights = [float(point.split(",")[1]) for point in drawn.margin.split()]
    assert heights[0] == heights[3] and heights[4] == heights[5] > heights[0]
    assert heights[0] - ys[2] == pytest.approx(ys[1] - heights[4], abs=0.11)
    assert "Accuracy on cot/a in 3 runs; the verdict changed 1 time. Latest: 3 May 2025" in drawn.label
    assert drawn.dates == ["1 May 2025", "3 May 2025"]
    assert [label.text for label in drawn.labels] == ["3.0", "0.0"]


def test_a_value_of_the_candidate_alone_has_no_line_of_no_loss(tmp_path: Path) -> None:
    length = {"metric": "accepted_length", "on": "speculative", "unit": "ratio", "margin_kind": "min", "margin": 2.0}
    judged(tmp_path / "runs" / "r", 1, result(**length, estimate=2.4, lower=2.3, upper=2.5))
    (drawn,) = charts(tmp_path)
    assert drawn.equal is None and [label.text for label in drawn.labels] == ["2.000"]
    shown, text = page(tmp_path)
    assert shown.all("svg") and 'class="s-rule"' not in text.partition("<main>")[2]


def test_checks_without_numbers_ratios_and_endless_bounds_are_drawn(tmp_path: Path) -> None:
    blank = result(estimate=None, lower=None, upper=None, n=0, verdict="INCONCLUSIVE")
    ratio = {"metric": "speed_ratio", "on": "speed", "unit": "ratio", "margin_kind": "min", "margin": 0.9}
    same = {"metric": "bytes_ratio", "on": "footprint", "unit": "ratio", "margin_kind": "max", "margin": 1.0}
    kl = {"metric": "kl_mean", "on": "divergence", "unit": "nats", "margin_kind": "max", "margin": 0.05}
    judged(
        tmp_path / "runs" / "r",
        1,
        blank,
        result(**ratio, estimate=1.2, lower=None, upper=None),
        result(**same, estimate=1.0, lower=1.0, upper=1.0),
        result(**kl, estimate=0.01, lower=-1e300, upper=1e300),
    )
    empty, speed, size, wide = charts(tmp_path)
    assert empty.latest == "not estimated" and empty.trend == "" and empty.marks[0].y is None
    assert [label.text for label in speed.labels] == ["0.900", "1.000"]
    assert (speed.marks[0].high, speed.marks[0].low) == (TOP, HEIGHT - BOTTOM)
    assert [label.text for label in size.labels] == ["1.000"] and size.marks[0].y == size.equal
    assert wide.equal is not None and wide.equal - wide.labels[0].y > 20  # bounds without end do not flatten the rest
    shown, text = page(tmp_path)
    assert "nan" not in text.partition("<main>")[2].partition('<section id="runs"')[0]
    assert shown.all("svg")


def test_only_the_latest_runs_are_drawn(tmp_path: Path) -> None:
    for number in range(MOST_POINTS + 3):
        judged(tmp_path / "runs" / f"r{number:02d}", 1 + number % 28)
    (drawn,) = charts(tmp_path)
    assert len(drawn.marks) == MOST_POINTS and drawn.left_out == 3
    shown, _ = page(tmp_path)
    assert "3 older runs left out here." in shown.words


def test_two_runs_differ_in_what_they_differ_in(tmp_path: Path) -> None:
    first = judged(tmp_path / "runs" / "first", 1)
    second = judged(tmp_path / "runs" / "second", 2, result(estimate=0.03, verdict="FAIL"), sha256="ee" * 32)
    facts = second.manifest()
    facts.versions["vllm"] = "0.27.0"
    facts.servers["candidate"].readback["dtype"] = "float16"
    facts.servers["candidate"].readback["auth_token"] = "hf_verysecret"
    facts.samples["cot"] = SampleFile(lines=8, sha256="aa" * 32)
    second.write_manifest(facts)
    shown, text = page(tmp_path)
    before, after = json.loads(shown.raw["script"][-1])
    key = "accuracy\ncot/a\nmax_loss"
    assert (before["checks"][key]["verdict"], before["checks"][key]["value"]) == ("PASS", 0.0)
    assert after["checks"][key] == {
        "name": "Accuracy on cot/a",
        "verdict": "FAIL",
        "estimate": "3.0",
        "bounds": "−0.5 to 0.5",
        "margin": "≤ 1.0",
        "unit": "points",
        "n": "400",
        "value": 3.0,
        "digits": 1,
    }
    differing = {part: set(names) for part, names in after["facts"].items() if names}
    assert differing == {
        "Models": {"candidate: sha256"},
        "Versions": {"vllm"},
        "Servers": {"candidate: dtype", "candidate: auth_token"},
        "Samples, sha256": {"cot"},
    }
    assert before["facts"]["Samples, sha256"] == {"cot": None}
    assert after["facts"]["Samples, sha256"] == {"cot": f"{'aa' * 32} (8 lines)"}
    assert after["same"]["Versions"] == len(first.manifest().versions)  # and quantgate's own, but for vllm
    assert "hf_verysecret" not in text


def test_the_latest_run_is_laid_beside_the_one_before_it_of_its_kind(tmp_path: Path) -> None:
    judged(tmp_path / "runs" / "a1", 1)
    judged(tmp_path / "runs" / "b1", 2, name="b")
    judged(tmp_path / "runs" / "a2", 3)
    shown, _ = page(tmp_path)
    chosen = [option["value"] for option in shown.all("option") if "selected" in option]
    assert chosen == ["0", "2"]


def test_reports_are_linked_relative_to_the_page(tmp_path: Path) -> None:
    folder = judged(tmp_path / "runs" / "a b#c", 1)
    judged(tmp_path / "runs" / "without", 2)
    folder.report_path.mkdir()
    (folder.report_path / "index.html").write_text("x")
    shown, _ = page(tmp_path)
    links = [a["href"] for a in shown.all("a") if not str(a["href"]).startswith("#")]
    assert links == ["../runs/a%20b%23c/report/index.html"]
    assert "without no report" in shown.words


def test_a_verdict_after_the_fact_is_marked_wherever_it_stands(tmp_path: Path) -> None:
    folder = judged(tmp_path / "runs" / "a", 1)
    weaker = "accuracy on cot/*: max_loss 0.1 -> 0.5"
    lax = edited(folder, "max_loss: 0.10", "max_loss: 0.50")
    verdict_of(folder, result(), policy_sha256=lax.sha256, weakened=[weaker])
    judged(tmp_path / "runs" / "b", 2)
    shown, _ = page(tmp_path)
    # In the table, in both choices, in the words of the mark, and in the legend of hollow marks.
    assert shown.words.count("judged after the fact") == 5
    assert f"judged after the fact: {weaker}" in shown.words
    # A policy of the same name is one line through time: the mark itself says that another one judged.
    marks = [attributes for tag, attributes in shown.elements if tag == "circle" and "class" in attributes]
    assert [mark["class"] for mark in marks if mark["cy"] != "7"] == ["f-pass after", "f-pass"]
    before, after = json.loads(shown.raw["script"][-1])
    (check,) = before["checks"].values()
    assert check["verdict"] == "PASS after the fact" and next(iter(after["checks"].values()))["verdict"] == "PASS"


def test_the_page_is_inert_and_asks_nobody(tmp_path: Path) -> None:
    hostile = "</script><script>owned()</script><img src=x onerror=y> \u202e \x00"
    for day in (1, 2):
        folder = judged(tmp_path / "runs" / f"r{day}", day, result(on=hostile, reason=hostile), name=hostile)
        facts = folder.manifest()
        facts.run_id = hostile
        facts.servers["candidate"].readback["dtype"] = f"{hostile}{day}"
        folder.write_manifest(facts)
    shown, text = page(tmp_path)
    assert [script.get("type") for script in shown.all("script")] == [None, "application/json"]
    assert not shown.all("img") and not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", text)
    policy = next(m["content"] for m in shown.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in str(policy).split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["style-src"] == f"'{source_hash(shown.raw['style'][0])}'"
    assert directives["script-src"] == f"'{source_hash(shown.raw['script'][0])}'"
    for _, attributes in shown.elements:
        assert "style" not in attributes and not [name for name in attributes if name.startswith("on")]


def test_many_runs_take_seconds_and_few_bytes(tmp_path: Path) -> None:
    checks = [result(on=f"cot/t{number}") for number in range(12)]
    for number in range(60):
        judged(tmp_path / "runs" / f"r{number:02d}", 1 + number % 28, *checks)
    _, text = page(tmp_path)
    assert len(text) < 1_500_000
