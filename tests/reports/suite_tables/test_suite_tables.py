"""Tables of any suite: their shape, that nothing stored makes them fail, that the page and the summary have them."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_page import Page, page_of, reports_of
from report_runs import sample
from suite_runs import compared, every_suite, pair, store
from suite_runs import footprint as checkpoint

from harness.contract.pairs import Pair
from harness.contract.samples import Role
from harness.endpoint import counters
from harness.endpoint.client import Completion
from harness.runs.positions import BUCKETS
from harness.serving import memory
from reports.known_suites import KNOWN_SUITES, known_suite
from reports.render import read_report, render
from reports.suite_tables import (
    decoding,
    footprint,
    language,
    scores,
    speed,
    termination,
)
from reports.suite_tables.table import SuiteRun, Table
from suites.decoding import parting
from suites.language.suite import LANGUAGE_METRICS
from suites.readings.endings import endings
from suites.readings.scripts import SCRIPTS
from suites.readings.thinking import THINKING_METRICS
from suites.registry import SUITES
from suites.speed import METRICS

HOSTILE = "<script>x</script> |\n# \u202e"
RANDOM = random.Random(0)
KNOWN = sorted(
    {name for one in every_suite() for two in one for name in two.metrics}
    | {f"{name}@{bucket}" for name in ("positions", "kl_lower_sum", "flips") for bucket in BUCKETS}
    | set(THINKING_METRICS)
    | {f"answer_{script}" for script in SCRIPTS}
    | {"null", "tool_calls", "accepted_pos_7", "gpus_1gib", "score@999999999"}
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 1e308, -1e308, 5e-324])
METRICS_OF_ANYTHING = st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=8), NUMBERS, max_size=30)
SCORES = st.none() | st.floats(0, 1)
TASKS = st.sampled_from(["vt@4096", "qa_1@8192", "4096", "hard-ja", "c8", "chat-en", "checkpoint"]) | st.text(
    max_size=6
)
ITEMS = st.sampled_from(["d0250-00", "d1000-01", "r00", "0000"]) | st.text(max_size=5)
PAIRS = st.lists(
    st.builds(
        lambda task, item, scores, metrics, text, tokens, repeat: pair(
            "any", task, item, scores=scores, metrics=metrics, text=text, completion_tokens=tokens, repeat=repeat
        ),
        TASKS,
        ITEMS,
        st.tuples(SCORES, SCORES),
        st.tuples(METRICS_OF_ANYTHING, METRICS_OF_ANYTHING),
        st.text(max_size=2),
        st.none() | st.integers(0, 2**53),
        st.integers(0, 2),
    ),
    max_size=5,
)
COUNTERS = st.dictionaries(
    st.text(max_size=5), st.dictionaries(st.sampled_from(["reference", "candidate"]), METRICS_OF_ANYTHING)
)


def check_shape(tables: list[Table]) -> None:
    assert tables and len({table.title for table in tables}) == len(tables)
    for table in tables:
        assert table.rows or table.note.startswith("Not measured: ")
        assert len(table.parts) == len(table.columns) == sum(len(h.columns) or 1 for h in table.headings)
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert all(isinstance(cell, str) for row in table.rows for cell in row)
        assert not any("nan" in cell or "inf" in cell for row in table.rows for cell in row[1:])


@pytest.mark.slow
@pytest.mark.parametrize("suite", [*KNOWN_SUITES])
@given(pairs=PAIRS, noise=PAIRS, speculative=COUNTERS)
@settings(max_examples=20, deadline=None)
def test_nothing_that_is_stored_makes_a_table_fail(
    suite: str, pairs: list[Pair], noise: list[Pair], speculative: dict[str, dict[Role, dict[str, float]]]
) -> None:
    tasks = [one.reference.task for one in pairs] + ["planned"]
    check_shape(known_suite(suite).tables(SuiteRun(pairs, tasks, noise, {}, speculative)))


@pytest.mark.parametrize("suite", [*KNOWN_SUITES, "another"])
def test_a_suite_without_usable_pairs_says_that_nothing_was_measured(suite: str) -> None:
    for table in known_suite(suite).tables(SuiteRun([])):
        assert not table.rows and table.note.startswith("Not measured: ")


def test_every_suite_has_tables_and_an_unknown_one_shows_its_scores() -> None:
    assert set(SUITES) == set(KNOWN_SUITES)
    run = SuiteRun([pair("another", "a", scores=(1.0, 0.5))])
    assert known_suite("another").tables(run) == scores.tables(run)


def test_names_of_metrics_are_those_that_the_suites_write() -> None:
    ended = endings(Completion("", "", "stop", 1, 1, [], [], 0.0, None, [{}], null=True))
    assert ended.keys() | {"no_answer"} == scores.ENDINGS.keys()
    assert set(termination.RATES) <= {*ended, *THINKING_METRICS}
    assert {*language.RATES, *language.COUNTS} <= LANGUAGE_METRICS.keys() and language.SCRIPTS == SCRIPTS
    assert set(speed.FIGURES) <= METRICS.keys()
    measured = f"{counters.__doc__}\n{memory.__doc__}"
    assert set(footprint.FACTS) <= set(re.findall(r"^ *([a-z_]+)  ", measured, re.MULTILINE))
    parted = parting([1, 2, 3], [1, 2])
    (table,) = decoding.tables(SuiteRun([pair("decoding", "chat-en", metrics=({}, parted))]))
    assert table.rows == [("chat-en", "1", "0.0 %", "2", "33.33 %")]


def test_headings_put_columns_under_one_name() -> None:
    table = Table("t", ("Task", "A: reference", "A: candidate", "Difference, points", "B: x", "C"))
    assert [(h.name, h.columns) for h in table.headings] == [
        ("Task", ()),
        ("A", ("reference", "candidate")),
        ("Difference, points", ()),
        ("B", ("x",)),
        ("C", ()),
    ]
    parts = [
        ("task", False),
        ("reference", False),
        ("candidate", True),
        ("difference", True),
        ("x", True),
        ("c", False),
    ]
    assert table.parts == parts
    assert Table("t", ()).parts == []


@pytest.mark.slow
def test_the_page_has_every_table_and_the_summary_the_first_of_each_suite(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", every_suite())
    report = read_report(folder)
    made = reports_of(folder)
    page = Page((folder.report_path / "index.html").read_text("utf-8"))
    shown = {view.name for view in report.suites if view.tables}
    assert shown == KNOWN_SUITES.keys() - {"cot"}
    for view in report.suites:
        for place, table in enumerate(view.tables):
            assert table.title in page.words
            assert " ".join(" ".join(table.rows[-1]).split()) in page.words
            in_summary = f"**{view.name}: {table.title}**" in made["summary.md"].replace("\\", "")
            assert in_summary == (place == 0), (view.name, table.title)
    assert len(page.all("table")) >= sum(len(view.tables) for view in report.suites)
    regions = [tag for tag in page.all("div") if tag.get("class") == "scroll"]
    assert len(regions) >= sum(len(view.tables) for view in report.suites)
    assert not any("without a score" in note for note in report.notes)
    for line in made["summary.md"].splitlines():
        assert not line.startswith("|") or line.replace("\\|", "").count("|") > 2
    for name in [suite.name for suite in KNOWN_SUITES.values() if not suite.has_scores]:
        assert f"{name}: " not in " ".join(report.notes)
        assert f"| {name}/" not in made["model_card.md"]
    assert "ruler/vt@4096" in made["model_card.md"].replace("\\", "")
    assert "KL divergence from the reference: 0.0" in made["model_card.md"]


def test_names_in_tables_are_text(tmp_path: Path) -> None:
    metrics = compared(RANDOM), compared(RANDOM)
    made = [pair(suite, HOSTILE, HOSTILE, scores=(1.0, 0.0), metrics=metrics) for suite in ("cot", "ruler", "decoding")]
    made += [pair("speed", HOSTILE, metrics=({"ttft_p50_ms": 1.0}, {"ttft_p50_ms": 2.0}))]
    made += [pair("language", f"a-{HOSTILE}", metrics=({"wrong_language": 1.0},) * 2)]
    folder = store(tmp_path / "run", made)
    text = reports_of(folder)
    for name in ("index.html", "summary.md"):
        assert "<script>x" not in text[name] and "\u202e" not in text[name], name
    assert "&lt;script&gt;x&lt;/script&gt; |" in text["index.html"]
    assert r"&lt;script&gt;x&lt;/script&gt; \| \# ⟨U\+202E⟩" in text["summary.md"]


def test_what_is_no_answer_is_named_beside_errors_and_never_scored(tmp_path: Path) -> None:
    good = [pair("cot", "a", f"{n:04d}", scores=(1.0, 1.0)) for n in range(3)]
    odd = [
        pair("cot", "a", "0003", scores=(1.0, None), metrics=({}, {"null": 1.0, "unterminated": 0.0})),
        pair("cot", "a", "0004", scores=(1.0, None), metrics=({}, {"tool_calls": 2.0})),
        pair("cot", "a", "0005", scores=(None, None), metrics=({"unterminated": 1.0}, {"unterminated": 1.0})),
        pair("cot", "a", "0006", scores=(None, None), error="timeout: 5 s"),
    ]
    cut = [pair("cot", "a", "0007", scores=(0.0, 0.0), metrics=({"unterminated": 1.0},) * 2, finish_reason="length")]
    folder = store(tmp_path / "run", [*good, *odd, *cut])
    view = next(view for view in read_report(folder).suites if view.name == "cot")
    assert (view.coverage.unscored, view.coverage.errored, view.tasks[0].n) == (3, 1, 4)
    said = (
        "candidate null ×1, candidate thinking not closed ×1, candidate tool call ×1, reference thinking not closed ×1"
    )
    assert view.unscored_said == said
    made = reports_of(folder)
    assert f"Answers without a score: {said}." in page_of(folder).words
    assert "Errors: reference timeout ×1, candidate timeout ×1." in made["summary.md"].replace("\\", "")
    assert f"Answers without a score: {said}." in made["summary.md"].replace("\\", "")


def test_drafts_of_other_suites_are_shown_without_a_suite_of_their_own(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", [pair("cot", "a", scores=(1.0, 1.0))])
    facts = folder.manifest()
    counted = {"drafts": 100.0, "draft_tokens": 200.0, "accepted_tokens": 150.0, "accepted_pos_0": 90.0}
    facts.speculative = {"cot": {"reference": counted, "candidate": counted | {"accepted_tokens": 20.0}}}
    folder.write_manifest(facts)
    report = read_report(folder)
    view = report.suites[-1]
    assert (view.name, [table.title for table in view.tables]) == ("speculative", ["Acceptance by suite"])
    words = page_of(folder).words
    assert "cot 75.0 % 10.0 % −65.0 2.50 1.20 200 200" in words and "speculative Acceptance by suite" in words
    assert not any("speculative" in note for note in report.notes)


def test_suites_that_have_no_scores_miss_none(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", [checkpoint(), pair("speed", "c1", "r00", metrics=({"completed": 4.0},) * 2)])
    report = read_report(folder)
    for view in report.suites:
        assert view.coverage.unscored == 0 and not view.unscored
    words = page_of(folder).words
    assert "without a score" not in words and "No score" in words
    assert "Not measured: no sample has a speed." in words


@given(st.lists(METRICS_OF_ANYTHING, min_size=4, max_size=4))
@settings(max_examples=5, deadline=None)
def test_a_page_of_absurd_numbers_is_rendered(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, float]]
) -> None:
    made = [pair(suite, "a-b", metrics=(found[0], found[1])) for suite in KNOWN_SUITES]
    made += [pair(suite, "a-b", metrics=(found[2], found[3]), role="noise") for suite in ("divergence", "decoding")]
    Page(render(store(tmp_path_factory.mktemp("odd") / "run", made).path).read_text("utf-8"))


def test_only_the_first_sample_of_noise_counts_and_only_beside_its_reference(tmp_path: Path) -> None:
    one = pair(
        "decoding", "chat-en", "0", metrics=({}, {"first_divergence": 5.0, "diverged": 1.0, "decode_positions": 6.0})
    )
    noise = {"first_divergence": 9.0, "diverged": 1.0, "decode_positions": 10.0}
    folder = store(tmp_path / "run", [one])
    with folder.samples_path("decoding").open("a") as file:
        for item, figures in (("0", noise), ("0", noise | {"first_divergence": 99.0}), ("1", noise)):
            file.write(
                sample("noise", "decoding", "chat-en", item, score=None, metrics=figures).model_dump_json() + "\n"
            )
    view = next(view for view in read_report(folder).suites if view.name == "decoding")
    assert view.tables[0].rows == [("chat-en", "1", "0.0 %", "0.0 %", "5", "9", "16.67 %", "10.00 %")]
