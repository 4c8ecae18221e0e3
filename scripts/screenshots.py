"""Pictures of reports as a reader sees them, at three widths, light and dark: what is looked at before a release.

    python scripts/screenshots.py [NAME=PAGE ...] [--out docs/screenshots] [--sections]

Without pages it takes those of docs/example-report. Needs Chromium (scripts/browser.sh) and the extra `dev`.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from browser_page import WIDTHS, chromium, opened

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example-report"
SCHEMES = ("light", "dark")
LIMIT = 300_000
"""Bytes of a picture."""


def main() -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python scripts/screenshots.py", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="NAME=PAGE")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    parser.add_argument("--height", type=int, default=2400, help="most CSS pixels of a picture's height")
    parser.add_argument("--sections", action="store_true", help="a picture of each section as well")
    asked = parser.parse_args()
    pages = {name: Path(path) for name, _, path in (each.partition("=") for each in asked.pages)} or of_example()
    gone = [f"{name}={path}" for name, path in pages.items() if not path.is_file()]
    if gone:
        parser.error(f"no page: {', '.join(gone)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, path in pages.items():
            for width in WIDTHS:
                for scheme in SCHEMES:
                    shoot(browser, path, asked.out / f"{name}-{width}-{scheme}", asked.height, asked.sections)
    return 0


def of_example() -> dict[str, Path]:
    """The pages of the example report: of several instances the first."""
    found = {
        "report": [EXAMPLE / "report" / "index.html"],
        "instance": sorted(EXAMPLE.glob("report/swebench/*.html")),
        "history": sorted(EXAMPLE.glob("history*.html")),
    }
    return {name: paths[0] for name, paths in found.items() if paths}


def shoot(browser: Browser, path: Path, target: Path, height: int, sections: bool) -> None:
    """Write TARGET.png, and with `sections` TARGET-ID.png of each section that has an id."""
    width, scheme = int(target.name.split("-")[-2]), target.name.split("-")[-1]
    with opened(browser, path, width=width, height=1000, color_scheme=scheme) as page:
        page.evaluate("document.fonts.ready")
        whole = page.evaluate("document.scrollingElement.scrollHeight")
        # The window is made as high as the picture: parts that are drawn only when they are near it are drawn then.
        page.set_viewport_size({"width": width, "height": min(whole, height)})
        write(page.screenshot(animations="disabled"), target.with_suffix(".png"))
        for name in page.evaluate("[...document.querySelectorAll('main > section[id]')].map((each) => each.id)"):
            if sections:
                section(page, name, target.with_name(f"{target.name}-{name}.png"), height)


def section(page: Page, name: str, target: Path, height: int) -> None:
    """A picture of a section's beginning."""
    page.evaluate("(id) => document.getElementById(id).scrollIntoView()", name)
    box = page.locator(f"main > section[id={name}]").bounding_box()
    if box:
        clip = {**box, "height": min(box["height"], height - max(box["y"], 0))}
        write(page.screenshot(animations="disabled", clip=clip), target)  # type: ignore[arg-type]


def write(picture: bytes, target: Path) -> None:
    """Write a picture with as many colours as fit into LIMIT bytes. Raises SystemExit when not even 16 do."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        packed = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
        if packed.tell() < LIMIT:
            target.write_bytes(packed.getvalue())
            said = f"{image.width} × {image.height}, {packed.tell() / 1000:.0f} KB, {colours} colours"
            print(f"{target}: {said}", flush=True)
            return
    raise SystemExit(f"{target}: {packed.tell()} bytes with 16 colours: take a smaller --height than {image.height}")


if __name__ == "__main__":
    sys.exit(main())
