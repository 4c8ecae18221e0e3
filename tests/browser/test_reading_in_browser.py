"""Themes, keyboard, paper and other ways to read a report."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser_page import focus, opened, seen, tabbed
from browser_runs import Reports
from playwright.sync_api import Browser, Page, expect

PAPER = "getComputedStyle(document.body).backgroundColor"
DARK, LIGHT = "rgb(16, 20, 24)", "rgb(255, 255, 255)"

MISSED = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((each) => each.checkVisibility({contentVisibilityAuto: false}) && !each.disabled && !each.dataset.reached)
  .map((each) => `${each.localName} ${each.textContent.trim().slice(0, 50)}`)"""


def tab_to(page: Page, name: str) -> None:
    assert any(name in found["name"] for found in tabbed(page)), f"Tab does not reach {name!r}"


def instance_page(report: Reports) -> Any:
    return report("swebench").parent / "swebench" / "django__django-1.html"


def test_the_theme_follows_the_system_until_a_reader_chooses(report: Reports, browser: Browser) -> None:
    context = browser.new_context(color_scheme="dark")
    with opened(browser, report("finished"), context=context) as page:
        assert page.evaluate(PAPER) == DARK
        page.emulate_media(color_scheme="light")
        assert page.evaluate(PAPER) == LIGHT
        page.emulate_media(color_scheme="dark")
        button = page.get_by_role("button", name="Theme")
        expect(button).to_have_text("Theme: auto")
        button.click()
        expect(button).to_have_text("Theme: light")
        assert page.evaluate(PAPER) == LIGHT
        page.reload()
        expect(button).to_have_text("Theme: light")
        assert page.evaluate(PAPER) == LIGHT
        button.click()
        expect(button).to_have_text("Theme: dark")
    with opened(browser, report("no-verdict"), context=context) as page:  # another report, the same reader
        page.emulate_media(color_scheme="light")
        assert page.evaluate(PAPER) == DARK
        page.get_by_role("button", name="Theme: dark").click()
        assert page.evaluate(PAPER) == LIGHT
    context.close()


@pytest.mark.parametrize(("scheme", "paper"), [("light", LIGHT), ("dark", DARK)])
def test_the_page_of_an_instance_follows_the_system(scheme: str, paper: str, report: Reports, browser: Browser) -> None:
    with opened(browser, instance_page(report), color_scheme=scheme) as page:
        assert page.evaluate(PAPER) == paper


@pytest.mark.parametrize("which", ["finished", "swebench", pytest.param("instance", marks=pytest.mark.long)])
def test_tab_reaches_everything_once_and_is_seen(which: str, report: Reports, browser: Browser) -> None:
    path = instance_page(report) if which == "instance" else report(which)
    with opened(browser, path) as page:
        reached = list(tabbed(page))
        assert len(reached) > 5
        assert [found["name"] for found in reached if not found["drawn"]] == [], "focus is not drawn"
        assert [found["name"] for found in reached if not found["inside"]] == [], "focus is out of sight"
        assert page.evaluate(MISSED) == []


def test_everything_opens_from_the_keyboard_alone(report: Reports, browser: Browser) -> None:
    with opened(browser, report("finished")) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # skips to the checks
        expect(page).to_have_url(re.compile("#checks$"))
        tab_to(page, "How to read this")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Losses are positive when the candidate is worse.")).to_be_visible()
        tab_to(page, "every pair")
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("status").first).to_contain_text(f"of {88} pairs")
        tab_to(page, "Worse with the candidate")
        page.keyboard.press("Space")
        expect(page.get_by_label("Answer of the candidate").first).to_be_visible()
        expect(page.get_by_label("Prompt").first).to_contain_text("Natalia sold clips")  # it comes after the answers
        tab_to(page, "Prompt")
        tab_to(page, "Link to this pair")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("#(cot|ruler)/"))


@pytest.mark.parametrize("which", ["finished", "instance"])
def test_paper_has_the_decision_and_no_controls(which: str, report: Reports, browser: Browser) -> None:
    path = instance_page(report) if which == "instance" else report(which)
    with opened(browser, path, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(PAPER) == LIGHT  # no black sheets, whatever the screen has
        assert page.locator("button:visible, input:visible, select:visible, nav:visible").count() == 0
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert len(page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize(
    "emulated",
    [
        pytest.param({"forced_colors": "active"}, marks=pytest.mark.long),
        {"reduced_motion": "reduce"},
        pytest.param({"contrast": "more"}, marks=pytest.mark.long),
    ],
)
def test_wishes_of_the_reader_take_nothing_away(emulated: dict[str, Any], report: Reports, browser: Browser) -> None:
    with opened(browser, report("finished")) as page:
        usual = seen(page)
    with opened(browser, report("finished"), **emulated) as page:
        assert seen(page) == usual
        assert page.evaluate("document.getAnimations().length") == 0
        page.get_by_role("link", name="Samples").first.click()
        expect(page.get_by_role("heading", name="Samples")).to_be_in_viewport()
        page.keyboard.press("Tab")
        assert (focus(page) or {})["drawn"]


def test_the_page_reads_without_script(report: Reports, browser: Browser) -> None:
    with opened(browser, report("finished"), java_script_enabled=False) as page:
        expect(page.get_by_role("heading", level=1)).to_contain_text("Verdict:")
        assert page.get_by_role("table", name="All checks").get_by_role("row").count() == 6
        assert "Without it, read samples/*.jsonl in the run folder." in seen(page)
