"""SWE-bench's tables: counted by hand, from the very samples that results become; and the list of all instances."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instance_runs import change, instance_run, store_samples
from report_page import Page, page_of, reports_of

from harness.contract.pairs import Pair
from harness.contract.samples import ROLES, Sample
from harness.runs.instances import BROKEN, InstanceOutcome, InstanceResult, sample_of_result
from reports.instances.outcomes import NOT_RUN, instances, listed, outcomes
from reports.known_suites import known_suite
from reports.render import render
from reports.scores import task_scores
from reports.suite_tables import swebench
from reports.suite_tables.table import SuiteRun, Table
from suites.base import make_item


def of_role(role: str, name: str, outcome: InstanceOutcome, **fields: object) -> Sample:
    known: dict[str, object] = {
        "exit_status": "Submitted",
        "steps": 40,
        "prompt_tokens": 1000,
        "completion_tokens": 100,
    }
    result = InstanceResult.model_validate({"instance_id": name, "role": role, "outcome": outcome} | known | fields)
    return sample_of_result(make_item("instances", name, []), result.role, result)


def ran(name: str, reference: InstanceOutcome, candidate: InstanceOutcome, *fields: dict[str, object]) -> Pair:
    more = fields or ({}, {})
    made = [of_role(role, name, o, **f) for role, o, f in zip(ROLES, (reference, candidate), more, strict=True)]
    return Pair(*made)


def table(tables: list[Table], title: str) -> Table:
    return next(table for table in tables if table.title == title)


def test_resolved_counts_both_roles_and_what_only_one_resolved() -> None:
    pairs = [
        ran("django__django-1", "resolved", "resolved"),
        ran("django__django-2", "resolved", "unresolved"),
        ran("django__django-3", "resolved", "patch does not apply"),
        ran("sympy__sympy-4", "empty patch", "resolved"),
        ran("sympy__sympy-5", "unresolved", "empty patch"),
    ]
    first, *_, last = known_suite("swebench").tables(SuiteRun(pairs, ["instances"]))
    assert first.columns[-4:] == ("Difference, points", "b", "c", "D")
    assert first.rows == [("instances", "5", "60.0 %", "40.0 %", "20.0 %", "−20.0", "2", "1", "3")]
    assert last.title == "Resolved by repository" and last.total
    assert last.rows == [
        ("django", "3", "100.0 %", "33.3 %", "33.3 %", "−66.7", "2", "0", "2"),
        ("sympy", "2", "0.0 %", "50.0 %", "0.0 %", "+50.0", "0", "1", "1"),
        ("all repositories", "5", "60.0 %", "40.0 %", "20.0 %", "−20.0", "2", "1", "3"),
    ]


def test_a_step_or_time_limit_is_no_token_cap() -> None:
    pairs = [ran(f"a__b-{n}", "resolved", "unresolved") for n in range(3)]
    pairs.append(Pair(*(s.model_copy(update={"finish_reason": "limit"}) for s in ran("a__b-3", "resolved", BROKEN))))
    (first, *_) = known_suite("swebench").tables(SuiteRun(pairs))
    assert first.columns[-1] == "D"  # the pair at a limit was not graded for both
    limited = pairs[0].candidate.model_copy(update={"finish_reason": "limit"})
    (first, *_) = known_suite("swebench").tables(SuiteRun([Pair(pairs[0].reference, limited), *pairs[1:3]]))
    name = "Hit a step or time limit"
    assert first.columns[-2:] == (f"{name}: reference", f"{name}: candidate")
    assert first.rows[0][-2:] == ("0.0 %", "33.3 %")
    scores = task_scores("instances", [Pair(pairs[0].reference, limited), *pairs[1:3]])
    assert (scores.candidate.limit_rate, scores.candidate.cap_hit_rate) == (1 / 3, 0.0)


def test_a_single_file_links_to_no_instance(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {"a__a-1": ("resolved", "unresolved")})
    store_samples(folder)
    page = Page(render(folder.path, single_file=True).read_text("utf-8"))
    assert not [a["href"] for a in page.all("a") if not str(a["href"]).startswith("#")]
    assert "Pages in the run's folder, report/swebench/, show both trajectories" in page.words
    assert (folder.report_path / "swebench" / "a__a-1.html").is_file()


def test_one_repository_needs_no_table_of_its_own() -> None:
    titles = [one.title for one in swebench.tables(SuiteRun([ran("a__b-1", "resolved", "resolved")]))]
    assert titles == ["Resolved", "How trajectories ended", "What a trajectory took"]


def test_exit_statuses_shift() -> None:
    pairs = [
        ran("a__a-1", "resolved", "resolved"),
        ran("a__a-2", "resolved", "empty patch", {}, {"exit_status": "RepeatedFormatError"}),
        ran(
            "a__a-3", "empty patch", "empty patch", {"exit_status": "LimitsExceeded"}, {"exit_status": "LimitsExceeded"}
        ),
        ran("a__a-4", "unresolved", "empty patch", {}, {"exit_status": "RepeatedFormatError"}),
    ]
    assert table(swebench.tables(SuiteRun(pairs)), "How trajectories ended").rows == [
        ("Submitted", "3", "1", "75.0 %", "25.0 %", "−50.0"),
        ("LimitsExceeded", "1", "1", "25.0 %", "25.0 %", "0.0"),
        ("RepeatedFormatError", "0", "2", "0.0 %", "50.0 %", "+50.0"),
    ]


def test_means_and_medians_of_what_a_trajectory_took() -> None:
    steps = [(10, 20), (20, 30), (90, 190)]
    pairs = [
        ran(f"a__a-{n}", "resolved", "resolved", {"steps": r}, {"steps": c, "format_errors": n})
        for n, (r, c) in enumerate(steps)
    ]
    rows = {row[0]: row[1:] for row in table(swebench.tables(SuiteRun(pairs)), "What a trajectory took").rows}
    assert rows["Steps"] == ("3", "40.0", "80.0", "2.00", "20.0", "30.0", "1.50")
    assert rows["Format errors"] == ("3", "0.00", "1.00", "–", "0.00", "1.00", "–")
    assert rows["Prompt tokens"] == ("3", "1,000", "1,000", "1.00", "1,000", "1,000", "1.00")
    assert set(rows) == set(swebench.USED.values())


def test_an_instance_that_was_not_graded_counts_for_neither_role() -> None:
    pairs = [ran("a__a-1", "resolved", BROKEN, {}, {"failures": ["no image"]})]
    (only,) = swebench.tables(SuiteRun(pairs))
    assert only.note == "Not measured: no instance was graded for both roles."


METRICS = st.dictionaries(
    st.sampled_from([*swebench.USED, "exit Submitted", "exit ", "exit \u202e<b>"]) | st.text(max_size=8),
    st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e308, -1e308, 5e-324]),
    max_size=8,
)


@given(
    found=st.lists(
        st.tuples(st.text(max_size=4), st.none() | st.floats(0, 1), METRICS, st.none() | st.integers(0, 2**60)),
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_nothing_that_is_stored_makes_a_table_fail(
    found: list[tuple[str, float | None, dict[str, float], int]],
) -> None:
    made = [
        [
            Sample(
                suite="swebench",
                task="instances",
                item=f"{place}{name}",
                role=role,
                prompt_sha256="",
                score=score,
                metrics=metrics,
                prompt_tokens=tokens,
            )
            for role in ROLES
        ]
        for place, (name, score, metrics, tokens) in enumerate(found)
    ]
    tables = swebench.tables(SuiteRun([Pair(*pair) for pair in made]))
    found_instances = instances([sample for pair in made for sample in pair])
    for one in (*tables, outcomes(found_instances), listed(found_instances, {})):
        assert all(len(row) == len(one.columns) == len(one.parts) for row in one.rows)
        assert not any("nan" in cell or cell == "inf" for row in one.rows for cell in row[1:])


def test_every_instance_has_one_outcome_a_role_and_those_worth_a_look_come_first() -> None:
    samples = [
        *ran("a__same-1", "unresolved", "unresolved"),
        *ran("a__both-1", "resolved", "resolved"),
        *ran("a__status-1", "empty patch", "empty patch", {}, {"exit_status": "LimitsExceeded"}),
        *ran("a__other-1", "unresolved", "patch does not apply"),
        *ran("a__broken-1", BROKEN, "resolved", {"failures": ["no image"]}, {}),
        *ran("a__won-1", "unresolved", "resolved"),
        *ran("a__lost-1", "resolved", "empty patch"),
        of_role("reference", "a__half-1", "resolved"),
        of_role("reference", "z__foreign-1", "resolved"),
    ]
    planned = {sample.item for sample in samples} - {"z__foreign-1"} | {"a__nobody-1"}
    found = instances(samples, planned)
    assert [(i.name.split("__")[1][:-2], i.resolved_by) for i in found] == [
        ("lost", "reference only"),
        ("won", "candidate only"),
        ("broken", "–"),
        ("half", "–"),
        ("other", "neither"),
        ("status", "neither"),
        ("both", "both"),
        ("same", "neither"),
        ("nobody", "–"),
    ]
    assert outcomes(found).rows == [
        ("resolved", "3", "3"),
        ("unresolved", "3", "1"),
        ("empty patch", "1", "2"),
        ("patch does not apply", "0", "1"),
        (BROKEN, "1", "0"),
        (NOT_RUN, "1", "2"),
    ]
    rows = listed(found, {"a__lost-1": "swebench/a__lost-1.html"})
    assert rows.rows[0] == (
        "a__lost-1",
        "reference only",
        "resolved",
        "empty patch",
        "Submitted",
        "Submitted",
        "40",
        "40",
    )
    assert rows.links[0] == "swebench/a__lost-1.html" and set(rows.links[1:]) == {None}


def test_without_a_plan_every_sample_counts_and_the_first_of_a_key() -> None:
    samples = [of_role("reference", "a__a-1", "resolved"), of_role("reference", "a__a-1", "unresolved")]
    (only,) = instances(samples)
    assert only.of("reference").outcome == "resolved" and only.of("candidate").outcome == NOT_RUN


def test_an_error_is_no_outcome_of_the_model_whatever_it_is_called() -> None:
    sample = of_role("candidate", "a__a-1", "unresolved").model_copy(update={"score": None, "error": "timeout: 9 s"})
    (only,) = instances([sample, of_role("reference", "a__a-1", "resolved")])
    assert (only.of("candidate").outcome, only.resolved_by) == (BROKEN, "–")


@pytest.mark.parametrize("differs", [True, False])
def test_other_images_and_versions_are_said(tmp_path: Path, differs: bool) -> None:
    folder, _ = instance_run(tmp_path / "run", {"a__a-1": ("resolved", "unresolved")})
    if differs:
        change(folder, "candidate", "a__a-1", image_digest="sha256:" + "cd" * 32, grader_version="5.1.0")
    store_samples(folder)
    words = page_of(folder).words
    image = "swebench: the roles' images differ in 1 instance (a__a-1)."
    version = "swebench: results of different versions of swebench: candidate 5.1.0 ×1, reference 5.0.2 ×1."
    assert (image in words, version in words) == (differs, differs)
    assert f"Made by mini-swe-agent 2.4.6, swebench 5.0.2{' and 5.1.0' if differs else ''}." in words


def test_the_report_lists_instances_with_links_and_the_summary_says_what_was_resolved(tmp_path: Path) -> None:
    folder, _ = instance_run(
        tmp_path / "run",
        {"b__b-1": ("resolved", "resolved"), "a__a-2": ("resolved", "empty patch"), "c__c-3": ("unresolved", None)},
    )
    store_samples(folder)
    page = page_of(folder)
    links = [a["href"] for a in page.all("a") if str(a.get("href", "")).startswith("swebench/")]
    assert links == ["swebench/a__a-2.html", "swebench/c__c-3.html", "swebench/b__b-1.html"]
    assert all((folder.report_path / str(link)).is_file() for link in links)
    said = "a__a-2 reference only resolved empty patch Submitted LimitsExceeded"
    assert said in page.words and "c__c-3 – unresolved not run Submitted –" in page.words
    assert "infrastructure error 0 0" in page.words and "not run 0 1" in page.words
    summary = reports_of(folder)["summary.md"]
    assert "| instances | 2 | 100.0 % | 50.0 % | 50.0 % | −50.0 | 1 | 0 | 1 |" in summary
