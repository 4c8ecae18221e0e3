"""On paper: A4, where nobody can scroll and no word may be cut to fit its column."""

from __future__ import annotations

import pytest
from browser_page import opened
from browser_runs import Reports
from playwright.sync_api import Browser

A4_PIXELS = 718
"""Between the margins that Chromium prints with, at 96 pixels an inch."""
CUT = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const cell = node.parentElement.closest("th, td, h1, h2, h3, h4, dt");
    const hidden = node.parentElement.closest("code, pre, svg, .hidden") || !node.parentElement.checkVisibility();
    if (!cell || hidden) continue;
    for (const word of node.data.matchAll(/[A-Za-zÄ-ü]{2,16}/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
      const lines = new Set(boxes.map((box) => Math.round(box.top)));
      if (lines.size > 1) found.push(word[0] + " in: " + cell.textContent.trim().replace(/\\s+/g, " ").slice(0, 60));
    }
  }
  return [...new Set(found)];
}"""
"""Words of tables and headings that stand on two lines."""
WIDEST = "Math.max(...[...document.querySelectorAll('table')].map((table) => table.getBoundingClientRect().right))"


@pytest.mark.parametrize("name", ["finished", "every-suite", "swebench"])
def test_no_word_is_cut_and_nothing_leaves_the_page(name: str, report: Reports, browser: Browser) -> None:
    with opened(browser, report(name), width=A4_PIXELS) as page:
        page.emulate_media(media="print")
        assert page.evaluate(CUT) == []
        assert page.evaluate(WIDEST) <= A4_PIXELS
