"""Every page of every kind of run, as check_page examines it, and what is seen first."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from browser_page import check_page, opened, seen
from browser_runs import MAKERS, Reports
from playwright.sync_api import Browser, expect

from harness.runs.folder import RunFolder
from reports.render import render

ORDER = ["FAIL", "INCONCLUSIVE", "PASS"]
LONG = ("no-verdict",)
"""Pages of which most is looked at in others too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in MAKERS]
)
def test_the_page_of_a_run_is_fit_to_be_published(name: str, report: Reports, browser: Browser) -> None:
    check_page(report(name), browser)


def test_the_page_of_a_single_file_is_fit_to_be_published(report: Reports, browser: Browser, tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone.html"
    shutil.copytree(report("swebench").parents[1], run)
    shutil.move(render(run, single_file=True), alone)
    check_page(alone, browser)


@pytest.mark.parametrize("instance", ["django__django-1", "sympy__sympy-4"])
def test_the_page_of_an_instance_is_fit_to_be_published(instance: str, report: Reports, browser: Browser) -> None:
    check_page(report("swebench").parent / "swebench" / f"{instance}.html", browser)


def test_the_verdict_and_its_reason_are_seen_first(report: Reports, browser: Browser) -> None:
    verdict = RunFolder(report("finished").parents[1]).verdict()
    for width, height in ((400, 800), (1280, 800), (2560, 1400)):
        with opened(browser, report("finished"), width=width, height=height) as page:
            heading = page.get_by_role("heading", level=1)
            expect(heading).to_have_text(f"Verdict: {verdict.verdict}")
            box = heading.bounding_box()
            assert box and box["y"] + box["height"] < height / 2


def test_checks_stand_in_the_order_of_their_danger(report: Reports, browser: Browser) -> None:
    verdict = RunFolder(report("finished").parents[1]).verdict()
    with opened(browser, report("finished")) as page:
        table = page.get_by_role("table", name="All checks")
        said = [" ".join(row.split()) for row in table.get_by_role("row").all_inner_texts()[1:]]
    outcomes = [next(outcome for outcome in ORDER if outcome in row) for row in said]
    assert outcomes == sorted(outcomes, key=ORDER.index) and len(set(outcomes)) > 1
    assert sorted(outcomes) == sorted(check.verdict for check in verdict.checks)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-verdict", "There is no verdict: nothing below was judged."),
        ("unfinished", "is not a sample and is left out: samples/cot.jsonl:24 ("),
        ("unfinished", "divergence: no samples, of 16 planned pairs."),
        ("empty", "There are no samples."),
    ],
)
def test_what_is_missing_is_said(name: str, said: str, report: Reports, browser: Browser) -> None:
    with opened(browser, report(name)) as page:
        assert said in seen(page)


def test_an_instance_is_reached_from_the_list_and_leads_back(report: Reports, browser: Browser) -> None:
    with opened(browser, report("swebench")) as page:
        page.get_by_role("link", name="django__django-1").first.click()
        expect(page).to_have_url(re.compile("/swebench/django__django-1.html$"))
        expect(page.locator("body")).to_contain_text("<script>owned()</script>")
        page.get_by_role("link", name="quantgate").click()
        expect(page).to_have_url(re.compile("/index.html#suites$"))


def test_checks_can_be_ordered(report: Reports, browser: Browser) -> None:
    with opened(browser, report("finished")) as page:
        rows = page.locator("table.checks tbody tr")
        names = "rows => rows.map((row) => row.querySelector('.c-name').textContent)"
        first = rows.evaluate_all(names)
        order = page.get_by_role("combobox", name="Order")
        order.select_option("most items first")
        counts = [
            int(text.split("\n")[0].replace(",", "")) for text in rows.locator("[data-label^=n]").all_inner_texts()
        ]
        assert counts == sorted(counts, reverse=True) and len(set(counts)) > 1
        order.select_option("by what is checked")
        assert rows.evaluate_all(names) != first and sorted(rows.evaluate_all(names)) == sorted(first)
        order.select_option("closest to failing first")
        assert rows.evaluate_all(names) == first
