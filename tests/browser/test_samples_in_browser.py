"""The list of samples in a real browser: filters, search, permalinks, texts loaded when they are asked for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from browser_page import Watch, axe, axe_contrast, opened, seen, too_wide
from browser_runs import LONG, SCRIPTS, SHOWN_AS, Reports
from playwright.sync_api import Browser, Locator, Page, expect

from reports.render import render

TOTAL = 88
"""Pairs of the finished run."""


def samples(page: Page) -> Locator:
    return page.get_by_role("region", name="Samples")


def rows(page: Page) -> Locator:
    """The pairs that the list shows."""
    return samples(page).locator("details:visible:not(details details)")


def counted(page: Page, number: int, of: int = TOTAL) -> None:
    """The list says and shows that many pairs."""
    said = f"{number} of {of} pairs" if 0 < number < of else f"{of} pairs" if number else "No pair fits."
    expect(samples(page).get_by_role("status")).to_have_text(re.compile(f"^{re.escape(said)}"))
    expect(rows(page)).to_have_count(min(number, 100))


def choose(page: Page, label: str, option: str | re.Pattern[str]) -> str:
    """Choose an option by what it says; returns all that it says."""
    select = samples(page).get_by_role("combobox", name=label)
    said = select.locator("option").filter(has_text=option).first.text_content() or ""
    select.select_option(label=said)
    return said


def pair(page: Page, name: str) -> Locator:
    return rows(page).filter(has=page.locator("summary", has_text=name)).first


def opened_pair(page: Page, row: Locator) -> Locator:
    """Open a pair and wait until its texts are there."""
    row.locator("summary").first.click()
    expect(row.get_by_role("link", name="Link to this pair")).to_be_visible()
    return row


def test_filters_show_what_they_say(report: Reports, browser: Browser) -> None:
    stored = report.samples("finished")
    scored = {key: (roles["reference"].score, roles["candidate"].score) for key, roles in stored.items()}
    worse = sum(a is not None and b is not None and b < a for a, b in scored.values())
    better = sum(a is not None and b is not None and b > a for a, b in scored.values())
    cut = sum(any(one.finish_reason == "length" for one in roles.values()) for roles in stored.values())
    assert len(stored) == TOTAL and worse and cut
    with opened(browser, report("finished")) as page:
        counted(page, TOTAL)
        for option in samples(page).get_by_role("combobox", name="Show").locator("option").all_text_contents():
            choose(page, "Show", option)
            counted(page, int(option.rpartition("(")[2].rstrip(")").replace(",", "")))
        assert choose(page, "Show", "Worse with the candidate").endswith(f"({worse})")
        counted(page, worse)
        assert choose(page, "Show", re.compile("flip", re.I)).endswith(f"({worse + better})")
        assert choose(page, "Show", re.compile("token cap|truncated", re.I)).endswith(f"({cut})")
        choose(page, "Show", "every pair")
        choose(page, "Suite", "ruler")
        counted(page, 24)
        choose(page, "Task", "vt@2048")
        counted(page, 8)
        choose(page, "Suite", "cot")
        counted(page, 48)
        choose(page, "Show", "Worse with the candidate")
        counted(
            page, sum(a is not None and b is not None and b < a for (s, *_), (a, b) in scored.items() if s == "cot")
        )


def test_search_finds_names_at_once_and_whole_answers_on_demand(report: Reports, browser: Browser) -> None:
    stored = report.samples("finished")
    wrong = sum(any("48 · 2 = 96" in one.text for one in roles.values()) for roles in stored.values())
    watch = Watch(report("finished").parent)
    with opened(browser, report("finished"), watch=watch) as page:
        box = samples(page).get_by_role("searchbox", name="Search")
        box.fill("CWE@2048")
        counted(page, 8)
        box.fill("cwe@2048/0003")
        counted(page, 1)
        box.fill("48 · 2 = 96")
        counted(page, 0)
        assert [address for address in watch.asked if "/samples/" in address] == []
        samples(page).get_by_role("button", name="Search whole answers").click()
        counted(page, wrong)
        assert [address for address in watch.asked if "/samples/" in address]
        assert 0 < wrong < TOTAL
        box.fill("<img src=x onerror=owned()>")
        box.press("Enter")
        counted(page, 0)
        box.fill("")
        counted(page, TOTAL)


def test_a_pair_opens_with_both_answers_thinking_prompt_and_differences(report: Reports, browser: Browser) -> None:
    watch = Watch(report("finished").parent)
    with opened(browser, report("finished"), watch=watch) as page:
        choose(page, "Show", "Worse with the candidate")
        choose(page, "Suite", "cot")
        row = opened_pair(page, rows(page).first)
        expect(row.get_by_label("Answer of the reference")).to_have_text(
            "Half of 48 is 24, and 48 + 24 = 72.\n\nAnswer: 72"
        )
        expect(row.get_by_label("Answer of the candidate")).to_have_text("48 · 2 = 96.\n\nAnswer: 96")
        for changed in ("deletion", "insertion"):
            expect(row.get_by_role(changed)).not_to_have_count(0)
        expect(row.get_by_label("Prompt")).to_contain_text("Natalia sold clips")  # beside the answers, unasked
        assert len([address for address in watch.asked if "prompts" in address]) == 1
        assert [*axe(page), *axe_contrast(page)] == []
        page.set_viewport_size({"width": 400, "height": 900})
        assert too_wide(page) == []
        page.emulate_media(color_scheme="dark")
        assert axe_contrast(page) == []


def test_a_permalink_opens_its_pair_even_where_filters_hide_it(report: Reports, browser: Browser) -> None:
    index = report("finished")
    with opened(browser, index) as page:
        row = opened_pair(page, pair(page, "ruler/vt@2048/0005"))
        link = row.get_by_role("link", name="Link to this pair").get_attribute("href")
    assert link
    with opened(browser, index, after=link) as page:
        row = pair(page, "ruler/vt@2048/0005")
        expect(row.get_by_label("Answer of the candidate")).to_be_visible()
        expect(row.locator("summary").first).to_be_in_viewport()
        expect(rows(page).filter(has=page.get_by_label("Answer of the candidate"))).to_have_count(1)
    with opened(browser, index) as page:
        choose(page, "Suite", "cot")
        counted(page, 48)
        page.evaluate("(link) => { location.hash = link; }", link)
        expect(pair(page, "ruler/vt@2048/0005").get_by_label("Answer of the candidate")).to_be_visible()


@pytest.mark.parametrize(
    "after", ["#cot/word_problems/no/0", "#%E0%A4%A/<script>owned()</script>/1/0", "#%00", "#////"]
)
def test_a_permalink_to_nothing_breaks_nothing(after: str, report: Reports, browser: Browser) -> None:
    with opened(browser, report("finished"), after=after) as page:
        counted(page, TOTAL)


def test_a_long_list_has_pages(report: Reports, browser: Browser) -> None:
    total = len([roles for roles in report.samples("every-suite").values() if set(roles) != {"noise"}])
    assert total > 200
    with opened(browser, report("every-suite")) as page:
        status = samples(page).get_by_role("status")
        expect(status).to_have_text(f"{total} pairs, 1 to 100 here")
        first = rows(page).first.text_content() or ""
        samples(page).get_by_role("button", name="Next").click()
        expect(status).to_have_text(f"{total} pairs, 101 to 200 here")
        expect(rows(page)).to_have_count(100)
        expect(rows(page).first).not_to_have_text(first)
        samples(page).get_by_role("spinbutton", name="Page").fill("999")
        samples(page).get_by_role("spinbutton", name="Page").press("Enter")
        expect(status).to_contain_text(f"to {total} here")
        expect(samples(page).get_by_role("button", name="Next")).to_be_disabled()


def test_nothing_that_a_model_wrote_is_run_or_asked_for(report: Reports, browser: Browser) -> None:
    with opened(browser, report("hostile")) as page:
        counted(page, len(SCRIPTS) + 3, len(SCRIPTS) + 3)
        for number, text in enumerate(SCRIPTS):
            row = opened_pair(page, pair(page, f"word_problems/{number:04d}/"))
            row.get_by_text("Thinking").first.click()
            shown = row.get_by_label("Answer of the candidate").text_content()
            assert shown == text.replace("\u2028", "⟨U+2028⟩")
        row = opened_pair(page, pair(page, "word_problems/signs/"))
        assert row.get_by_label("Answer of the reference").text_content() == SHOWN_AS
        assert (
            page.locator(
                "img, iframe, base, form[action], link[rel=stylesheet], [onerror], [onload], [onfocus]"
            ).count()
            == 0
        )
        assert page.locator("[href^='javascript']").count() == 0


def test_an_answer_of_ten_megabytes_is_shortened_and_says_so(report: Reports, browser: Browser) -> None:
    with opened(browser, report("hostile")) as page:
        row = opened_pair(page, pair(page, "word_problems/long/"))
        shown = row.get_by_label("Answer of the candidate").text_content() or ""
        left_out = int(re.findall(r"\[… ([\d,]+) characters left out …\]", shown)[0].replace(",", ""))
        assert 1000 < len(shown) < 100_000 and abs(LONG - left_out - len(shown)) < 100
    files = [path.stat().st_size for path in report("hostile").parent.rglob("*.*")]
    assert max(files) < 1_000_000


def test_side_files_that_are_gone_are_named(report: Reports, browser: Browser, tmp_path: Path) -> None:
    page_alone = tmp_path / "index.html"
    shutil.copy(report("finished"), page_alone)
    watch = Watch(tmp_path)
    with opened(browser, page_alone, watch=watch) as page:
        with page.expect_console_message(lambda said: "ERR_FILE_NOT_FOUND" in said.text):
            rows(page).first.locator("summary").click()
        expect(rows(page).first).to_contain_text("samples/0.js is not there or cannot be read")
        assert [fault for fault in watch.faults if "ERR_FILE_NOT_FOUND" not in fault] == []
        watch.faults.clear()


def test_a_run_without_samples_says_so(report: Reports, browser: Browser) -> None:
    with opened(browser, report("empty")) as page:
        assert "There are no samples." in seen(page)
        assert page.get_by_role("searchbox").count() == 0


def test_a_report_of_a_single_file_needs_no_other(report: Reports, browser: Browser, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(report("finished").parents[1], run)
    alone = tmp_path / "alone" / "index.html"
    alone.parent.mkdir()
    shutil.move(render(run, single_file=True), alone)
    watch = Watch(alone.parent)
    with opened(browser, alone, watch=watch) as page:
        counted(page, TOTAL)
        row = opened_pair(page, pair(page, "ruler/vt@2048/0005"))
        expect(row.get_by_label("Answer of the candidate")).to_contain_text("Answer:")
        expect(row.get_by_label("Prompt")).to_contain_text("Natalia sold clips")
        assert watch.asked == [alone.as_uri()]


def test_filters_and_order_stand_in_the_address(report: Reports, browser: Browser) -> None:
    index = report("finished")
    with opened(browser, index) as page:
        choose(page, "Show", "Worse with the candidate")
        choose(page, "Suite", "cot")
        choose(page, "Sort by", "longest answer")
        shown, address = rows(page).all_text_contents(), page.evaluate("location.hash")
        said = rows(page).locator(".tokens").all_text_contents()
        tokens = [max(map(int, re.findall(r"\d+", text))) for text in said]
        assert len(shown) > 2 and tokens == sorted(tokens, reverse=True)
        choose(page, "Sort by", "most worth a look first")
        assert "sort" not in page.evaluate("location.hash")
    assert address.startswith("#pairs?")
    with opened(browser, index, after=address) as page:  # as it was passed on
        expect(rows(page)).to_have_count(len(shown))
        assert rows(page).all_text_contents() == shown
        expect(samples(page).get_by_role("combobox", name="Suite")).to_have_value("cot")
        page.evaluate("location.hash = '#pairs?suite=no%3Cb%3E&sort=x&task=y&show=z&language=q&q=0003'")
        counted(page, 5)


def test_a_check_leads_to_its_pairs_and_to_its_suite(report: Reports, browser: Browser) -> None:
    stored = report.samples("finished")
    scored = [(key, roles["reference"].score, roles["candidate"].score) for key, roles in stored.items()]
    flips = sum(key[0] == "cot" and before != after for key, before, after in scored)
    with opened(browser, report("finished"), width=400) as page:
        check = page.get_by_role("rowheader", name="Accuracy · cot/word_problems")
        page.get_by_role("button", name="Fold all").click()
        check.get_by_role("link", name="its pairs").click()
        counted(page, flips)
        expect(samples(page)).to_be_in_viewport()
        check.get_by_role("link", name="suite cot").click()
        table = page.get_by_role("table", name="cot: Scores")
        expect(table).to_be_visible()  # the link opens the fold
        heads = table.locator("thead tr").first.locator("th").all_inner_texts()
        assert [head.split(",")[0] for head in heads[:3]] == ["Task", "Difference", "n"]
        page.set_viewport_size({"width": 1280, "height": 900})
        expect(table.locator("thead tr").first.locator("th").nth(1)).to_have_text("n")
