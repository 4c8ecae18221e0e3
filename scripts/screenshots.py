"""Pictures of reports as a reader sees them, at three widths, light and dark: what is looked at before a release.

    python scripts/screenshots.py [RUN ...] [--out docs/screenshots]

Without RUN they are of invented runs (scripts/made_up_runs.py), as those in docs/screenshots are. Every RUN is rendered
beside itself, in a temporary folder: nothing in it changes. The first gives the top of the
report, its checks, its samples with one opened and its provenance; every suite is pictured once, of the first run that
has it; the instance of SWE-bench is the one that the list shows first, which is one that the candidate lost where there
is any; the history is that of all runs. Needs Chromium (scripts/browser.sh) and the extra `dev`.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from browser_page import WIDTHS, chromium, opened

from reports.history.page import write_history
from reports.render import render
from scripts.made_up_runs import make

ROOT = Path(__file__).parents[1]
LIMIT = 250_000
"""Bytes of a picture."""
MOST_BYTES = 4_000_000
"""Of all together."""
DARK_WIDTH = 1280
"""The width at which the dark theme is pictured as well."""
HEIGHT = 2400
"""Most CSS pixels of a picture's height; narrow pages, which say the same in more of them, have half as many again."""
NARROW = 400
MARGIN = 16
SECTIONS = {"checks": "#checks", "samples": "#pairs", "provenance": "#provenance"}
TALLEST = {"report": 1500, "samples": 1500, "history": 1800}
IN_DARK = ("report", "samples", "instance", "history")


def main() -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python scripts/screenshots.py", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    asked = parser.parse_args()
    none = [str(run) for run in asked.runs if not (run / "manifest.json").is_file()]
    if none:
        parser.error(f"no run: {', '.join(none)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        given = asked.runs or make(Path(name) / "made")
        runs = [beside(run, Path(name) / run.resolve().name) for run in given]
        pages = [render(run) for run in runs]
        history = Path(name) / "history.html"
        write_history(runs, history)
        sizes = dict(of_pages(browser, pages, history, asked.out))
    for old in asked.out.glob("*-*.*"):
        if old not in sizes and old.suffix in (".png", ".webp") and old.stem.split("-")[-1] in ("light", "dark"):
            old.unlink()
    total = sum(sizes.values())
    print(f"{len(sizes)} pictures, {total / 1e6:.1f} MB")
    if total > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 1e6:.0f} MB")
    return 0


def beside(run: Path, target: Path) -> Path:
    """A folder with all of a run but its report, by links: rendering writes into it and not into the run."""
    while target.exists():
        target = target.with_name(f"{target.name}-again")
    target.mkdir()
    for part in run.resolve().iterdir():
        if part.name != "report":
            (target / part.name).symlink_to(part)
    return target


def of_pages(browser: Browser, pages: list[Path], history: Path, out: Path) -> Iterator[tuple[Path, int]]:
    """Take all pictures; yields each with its bytes."""
    suites = suites_of(browser, pages)
    instance = next((path for page in pages for path in instance_of(browser, page)), None)
    for width, scheme in [*((width, "light") for width in WIDTHS), (DARK_WIDTH, "dark")]:
        what = {"report": (pages[0], ""), "history": (history, ""), "instance": (instance, "")}
        what |= {name: (pages[0], place) for name, place in SECTIONS.items()}
        what |= {
            f"suite-{name}": (page, f"section.suite:has(> details > summary > h3:text-is('{name}'))")
            for name, page in suites.items()
        }
        for name, (path, place) in what.items():
            if path and (scheme == "light" or name in IN_DARK):
                target = out / f"{name}-{width}-{scheme}.webp"
                yield target, shoot(browser, path, place, target, name)


def suites_of(browser: Browser, pages: list[Path]) -> dict[str, Path]:
    """Of every suite the first report that shows something of it."""
    found: dict[str, Path] = {}
    for path in pages:
        with opened(browser, path) as page:
            for name in page.locator("section.suite:has(table) > details > summary > h3").all_inner_texts():
                found.setdefault(name, path)
    return found


def instance_of(browser: Browser, path: Path) -> list[Path]:
    """The first instance in the list of a report; nothing where there is none."""
    with opened(browser, path) as page:
        links = page.locator("a[href^='swebench/']")
        return [path.parent / str(links.first.get_attribute("href"))] if links.count() else []


def shoot(browser: Browser, path: Path, place: str, target: Path, name: str) -> int:
    """Write the picture of a page's top, or of the element at `place`; returns its bytes."""
    width, scheme = int(target.stem.split("-")[-2]), target.stem.split("-")[-1]
    height = TALLEST.get(name, HEIGHT) * (3 if width == NARROW else 2) // 2
    with opened(browser, path, width=width, height=1000, color_scheme=scheme) as page:
        page.evaluate("document.fonts.ready")
        if name == "samples":
            open_a_flip(page)
        # The window is made as high as the picture: parts that are drawn only when they are near it are drawn then.
        whole = page.evaluate("document.scrollingElement.scrollHeight")
        page.set_viewport_size({"width": width, "height": min(whole, height)})
        if place:
            return write(section(page, page.locator(place), height), target)
        return write(page.screenshot(animations="disabled"), target)


def open_a_flip(page: Page) -> None:
    """Open the first pair of the list: those that are worse with the candidate come first."""
    first = page.locator("#list > .pair").first
    first.locator("summary").first.click()
    first.locator(".sides").wait_for()


def section(page: Page, element: Locator, height: int) -> bytes:
    """The beginning of an element."""
    element.evaluate("(each) => each.scrollIntoView()")
    page.wait_for_timeout(200)
    box = element.bounding_box()
    if box is None:
        raise SystemExit(f"{page.url}: nothing to be seen at {element}")
    top = max(box["y"], 0)
    width = int(page.evaluate("document.scrollingElement.clientWidth"))
    left, right = max(box["x"] - MARGIN, 0), min(box["x"] + box["width"] + MARGIN, width)
    clip = {"x": left, "width": right - left, "y": top, "height": min(box["y"] + box["height"], height) - top}
    return page.screenshot(animations="disabled", clip=clip)  # type: ignore[arg-type]


def write(picture: bytes, target: Path) -> int:
    """Write a picture without loss: every colour is the page's own. Raises SystemExit: it is too large."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.save(target, "WEBP", lossless=True, quality=100, method=6)
    size = target.stat().st_size
    print(f"{target}: {image.width} × {image.height}, {size / 1000:.0f} KB", flush=True)
    if size > LIMIT:
        raise SystemExit(f"{target}: {size} bytes, more than {LIMIT}")
    return size


if __name__ == "__main__":
    sys.exit(main())
