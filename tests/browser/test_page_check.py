"""The examination itself: a page without fault passes it, and each fault is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_page import check_page, opened, tabbed
from playwright.sync_api import Browser

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Page</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; background: light-dark(#fff, #111) }} a {{ color: light-dark(#00c, #9cf) }}
</style></head>
<body><main><h1>Page</h1><p id="here">Text and <a href="#here">a link</a> beside it.</p>{0}</main></body></html>"""

DONE = {
    "<img alt='' src='http://127.0.0.1:9/pixel.png'>": "asks for http://127.0.0.1:9/pixel.png",
    "<link rel=stylesheet href='https://a.invalid/a.css'>": "asks for https://a.invalid/a.css",
    "<script>fetch('https://a.invalid/b').catch(() => 0)</script>": "asks for https://a.invalid/b",
    "<script>new WebSocket('ws://a.invalid/c')</script>": "asks for ws://a.invalid/c",
    "<iframe title=other src='../other.html'></iframe>": "asks for file://",
    "<script>console.error('oh')</script>": "error: oh",
    "<script>console.warn('eh')</script>": "warning: eh",
    "<script>null.oh</script>": "exception: Cannot read properties of null",
    "<script>alert('ah')</script>": "dialog: ah",
    "<script>owned()</script>": "text of a model was run",
    "<meta http-equiv=content-security-policy content=\"object-src 'none'\"><object data=a></object>": "Security",
}
SHOWN = {
    "<a href='missing.html'>a</a>": "leads nowhere: missing.html",
    "<a href='#missing'>a</a>": "leads nowhere: #missing",
    "<a href='https://a.invalid/d'>a</a>": "out of the report: https://a.invalid/d",
    "<p><span style='display:block;width:600px'>wide</span></p>": '400 px: <span class=""> wide',
    "<table style='width:730px'><tr><td>broad</td></tr></table>": "print: scrolls sideways",
    "<p style='color:#aaa;background:#fff'>pale</p>": "light: serious color-contrast",
    "<p style='color:light-dark(#000,#333)'>dim</p>": "dark: serious color-contrast",
    "<input>": "1280 px: critical label: ['input']",
    "<button>Sort</button>": "print: button is printed: Sort",
}


def written(folder: Path, *more: str) -> Path:
    (folder / "other.html").write_text("<title>other</title>")
    page = folder / "report" / "index.html"
    page.parent.mkdir()
    page.write_text(PAGE.format("\n".join(more)))
    return page


@pytest.mark.parametrize("faults", [DONE, SHOWN], ids=["done", "shown"])
def test_every_fault_is_found(faults: dict[str, str], tmp_path: Path, browser: Browser) -> None:
    with pytest.raises(AssertionError) as found:
        check_page(written(tmp_path, *faults), browser)
    missed = [said for said in faults.values() if said not in str(found.value)]
    assert not missed, str(found.value)


LATE = """<div style="height: 3000px"></div><a href="#here">far</a><script>
const link = document.links[1];
link.addEventListener("focus", () => { scrollTo(0, 0); setTimeout(() => link.scrollIntoView(), 200); });
</script>"""


def test_focus_is_looked_at_once_the_page_stands_still(tmp_path: Path, browser: Browser) -> None:
    with opened(browser, written(tmp_path, LATE)) as page:
        assert [(found["name"], found["inside"]) for found in tabbed(page)] == [("a a link", True), ("a far", True)]


def test_a_page_without_fault_passes(tmp_path: Path, browser: Browser) -> None:
    check_page(written(tmp_path), browser)
