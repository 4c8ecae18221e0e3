"""The page of many runs in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser_page import axe, axe_contrast, check_page, opened, seen, too_wide
from browser_runs import SCRIPTS
from playwright.sync_api import Browser, expect
from report_runs import judge_run, make_run, small_run

from harness.runs.folder import RunFolder
from reports.history.page import write_history
from reports.render import render


def dated(folder: RunFolder, day: int, **facts: Any) -> None:
    """Make it a run of that day of May, and judge it again."""
    manifest = folder.manifest().model_copy(update={"created": f"2025-05-{day:02d}T10:00:00+00:00", **facts})
    folder.write_manifest(manifest)
    judge_run(folder)


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three judged runs, one of them with hostile words, and two folders that cannot be shown."""
    folder = tmp_path_factory.mktemp("history")
    runs = folder / "runs"
    for day, (name, damage) in enumerate((("first", 0.0), ("second", 0.3), ("third", 0.3)), start=1):
        run = make_run(runs / name, damage=damage, planned={"cot/word_problems": 48, "ruler/vt@2048": 8})
        dated(
            run,
            day,
            run_id=name,
            **({"versions": {"vllm": SCRIPTS[0], "torch": SCRIPTS[2]}} if name == "third" else {}),
        )
    small_run(runs / "unfinished", {"cot/word_problems": 4})
    (runs / "broken").mkdir()
    (runs / "broken" / "manifest.json").write_text(json.dumps({"run_id": SCRIPTS[1]}))
    render(runs / "first")
    write_history([runs], folder / "history.html")
    return folder / "history.html"


@pytest.mark.long  # the pages of single runs are looked at in the same ways
def test_the_page_of_many_runs_is_fit_to_be_published(history: Path, browser: Browser) -> None:
    check_page(history, browser)


def test_it_shows_judged_runs_and_names_the_others(history: Path, browser: Browser) -> None:
    with opened(browser, history) as page:
        rows = page.get_by_role("region", name="Table of runs").get_by_role("row")
        assert rows.count() == 4
        expect(rows.nth(1)).to_contain_text("3 May 2025")
        assert "unfinished" in seen(page) and "broken" in seen(page)
        assert page.get_by_role("img").count() >= 2


def test_two_runs_are_laid_side_by_side(history: Path, browser: Browser) -> None:
    judged = {run: RunFolder(history.parent / "runs" / run).verdict().checks[0] for run in ("first", "third")}
    losses = {run: check.estimate or 0.0 for run, check in judged.items()}
    assert losses["third"] > losses["first"] and judged["third"].on == "cot/word_problems"
    with opened(browser, history) as page:
        for side, run in (("First run", "first"), ("Second run", "third")):
            select = page.get_by_role("combobox", name=side)
            named = [said for said in select.locator("option").all_text_contents() if said.endswith(f"· {run}")]
            select.select_option(label=named[0])
        checks = page.get_by_role("table", name="Checks of both runs")
        changed = checks.get_by_role("row").filter(has_text="Accuracy on cot/word_problems")
        expect(changed.get_by_role("cell").last).to_have_text(
            f"+{100 * (losses['third'] - losses['first']):.1f} points"
        )
        expect(page.get_by_role("table", name="Versions")).to_contain_text(SCRIPTS[0])
        assert [*axe(page), *axe_contrast(page)] == []
        page.set_viewport_size({"width": 400, "height": 900})
        assert too_wide(page) == []
        select.select_option(index=0)  # a run beside itself
        expect(page.get_by_role("table", name="Versions")).to_have_count(0)


def test_it_leads_to_a_report(history: Path, browser: Browser) -> None:
    with opened(browser, history) as page:
        page.get_by_role("region", name="Table of runs").get_by_role("link").first.click()
        expect(page).to_have_url(re.compile("/runs/first/report/index.html$"))
        expect(page.get_by_role("heading", level=1)).to_contain_text("Verdict:")
