"""Which words two answers do not share, as the page's own script finds them, in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from reports.html import TEMPLATES

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")

NOTHING_MARKED = {"remark": "", "left": None, "right": None}


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.add_script_tag(content=(TEMPLATES / "words.js").read_text("utf-8"))
        yield page
        browser.close()


def compare(page: Any, left: str, right: str) -> dict[str, Any]:
    """What the page makes of two texts; marked runs stand in brackets."""
    found = page.evaluate("([left, right]) => words.compare(left, right)", [left, right])
    for side, text in (("left", left), ("right", right)):
        if found[side] is not None:
            assert "".join(part for part, _ in found[side]) == text  # no letter is lost
            found[side] = "".join(f"[{part}]" if marked else part for part, marked in found[side])
    return dict(found)


@pytest.mark.parametrize(
    ("left", "right", "marked_left", "marked_right"),
    [
        ("the cat sat", "the dog sat", "the [cat] sat", "the [dog] sat"),
        ("a b c d e", "a c d x e", "a [b] c d e", "a c d [x] e"),
        ("= 72.", "= 96.", "= [72].", "= [96]."),
        ("one two", "one two three", "one two", "one two [three]"),
        ("  one\n  two words here", "one\n\ntwo here", "  one\n  two [words] here", "one\n\ntwo here"),
        ("so a big\n  red dog ran", "so dog ran", "so [a big]\n  [red] dog ran", "so dog ran"),
        ("日本語の本", "日本人の本", "日本[語]の本", "日本[人]の本"),
        ("עברית טוב מאוד", "עברית רע מאוד", "עברית [טוב] מאוד", "עברית [רע] מאוד"),
        ("é 👩\u200d🔬 x y", "é 👩 x y", "é 👩[\u200d🔬] x y", "é 👩 x y"),
        ("<b>1</b> 2", "<i>1</i> 2", "<[b]>1</[b]> 2", "<[i]>1</[i]> 2"),
    ],
)
def test_words_that_are_not_shared_are_marked(
    page: Any, left: str, right: str, marked_left: str, marked_right: str
) -> None:
    assert compare(page, left, right) == {"remark": "", "left": marked_left, "right": marked_right}


def test_where_marks_would_say_nothing_a_sentence_does(page: Any) -> None:
    assert compare(page, "a b", "a b") == NOTHING_MARKED | {"remark": "Both answers are the same."}
    assert compare(page, "a", "") == NOTHING_MARKED == compare(page, "", "a")
    few = compare(page, "one two three four five six", "seven eight nine ten eleven six!")
    assert few == NOTHING_MARKED | {"remark": "The answers share so few words that none are marked."}
    cut = "a\n[… 9,976,003 characters left out …]\nb"
    assert compare(page, cut, cut)["remark"] == "Both answers are the same as far as they are shown."


def test_long_texts_are_compared_where_they_differ_and_given_up_where_that_is_too_much(page: Any) -> None:
    same = "word " * 4000
    found = compare(page, f"{same}72 {same}", f"{same}96 {same}")
    assert (found["left"], found["right"]) == (f"{same}[72] {same}", f"{same}[96] {same}")
    left, right = (" ".join(f"{letter}{n}" for n in range(2001)) for letter in "xy")
    assert compare(page, left, right)["remark"] == "The answers are too long to be compared word by word."
