"""A page in a real Chromium that is watched: what it asks for, what it prints, what it runs, and what axe-core finds.

`check_page(path)` is the whole examination of one page in one line, for tests elsewhere too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Route, sync_playwright

WIDTHS = (400, 1280, 2560)
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing of the browser's own may ask anything of anybody; a name that a page asks for is not found.
FLAGS = ["--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"]
LOUD = ("error", "warning")
IMPACTS = ("serious", "critical")


def executable() -> str | None:
    """The browser that QUANTGATE_CHROMIUM names (scripts/browser.sh prints it), else Debian's; None where none is."""
    named = os.environ.get("QUANTGATE_CHROMIUM")
    return named or next((found for found in map(shutil.which, NAMES) if found), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium. Skips the test where there is none."""
    path = executable()
    if path is None:
        pytest.skip("no Chromium: scripts/browser.sh installs it, or set QUANTGATE_CHROMIUM")
    with sync_playwright() as playwright:
        # As root Chromium starts only without its sandbox; the pages are our own and all their requests are stopped.
        running = playwright.chromium.launch(executable_path=path, args=FLAGS, chromium_sandbox=os.geteuid() != 0)
        yield running
        running.close()


@dataclass
class Watch:
    """What a page did that no report does."""

    folder: Path
    """Files of this folder may be asked for."""
    asked: list[str] = field(default_factory=list)
    """Every address once, in order."""
    faults: list[str] = field(default_factory=list)

    def see(self, address: str) -> bool:
        """Take down a request; false when it is none for a file of the report."""
        parts = urlsplit(address)
        inside = parts.scheme == "file" and Path(unquote(parts.path)).resolve().is_relative_to(self.folder.resolve())
        allowed = inside or parts.scheme in ("data", "blob")
        if address not in self.asked:
            self.asked.append(address)
            self.faults += [] if allowed else [f"asks for {address[:200]}"]
        return allowed

    def route(self, route: Route) -> None:
        if self.see(route.request.url):
            route.continue_()
        else:
            route.abort()

    def dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def of_devtools(self, event: dict[str, Any]) -> None:
        """Requests that no route sees, such as sockets, besides those that one does."""
        self.see(event.get("request", event).get("url", ""))


@contextmanager
def opened(
    browser: Browser,
    path: Path,
    *,
    width: int = 1280,
    height: int = 900,
    after: str = "",
    context: BrowserContext | None = None,
    watch: Watch | None = None,
    **emulated: Any,
) -> Iterator[Page]:
    """The page of `path` + `after`, open in a window of its own; leaving it asserts that nothing foreign happened.

    `emulated` is what Browser.new_context takes (color_scheme, forced_colors, reduced_motion, ...). With `context`
    the page shares what that one remembers. `watch` is for a test that looks at what was seen, or expects a fault.
    """
    own = context is None
    context = context or browser.new_context(viewport={"width": width, "height": height}, **emulated)
    watch = watch or Watch(path.parent)
    page = context.new_page()
    page.route("**", watch.route)
    page.on("console", lambda said: watch.faults.append(f"{said.type}: {said.text}") if said.type in LOUD else None)
    page.on("pageerror", lambda error: watch.faults.append(f"exception: {error}"))
    page.on("dialog", watch.dialog)
    page.on("popup", lambda other: watch.faults.append(f"opens a window: {other.url}"))
    page.add_init_script("globalThis.owned = () => { globalThis.wasOwned = true; };")
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
    for event in ("Network.requestWillBeSent", "Network.webSocketCreated", "Network.webTransportCreated"):
        devtools.on(event, watch.of_devtools)
    try:
        page.goto(path.resolve().as_uri() + after)
        yield page
        if page.evaluate("globalThis.wasOwned === true"):
            watch.faults.append("text of a model was run")
    finally:
        page.close()
        if own:
            context.close()
    assert not watch.faults, "\n".join([f"{path.name}:", *watch.faults])


def check_page(path: Path, browser: Browser | None = None, widths: Sequence[int] = WIDTHS) -> None:
    """Open a page from disk in light and dark and on paper, and assert that it is fit to be published.

    Nothing is asked for outside its folder, nothing is written to the console, every link leads somewhere, it never
    scrolls sideways, and axe-core finds nothing serious or critical. Skips the test where there is no Chromium.
    """
    if browser is None:
        with chromium() as own:
            return check_page(path, own, widths)
    faults = []
    with opened(browser, path, color_scheme="light") as page:
        faults += dead_links(page, path)
        unfold(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            faults += [f"{scheme}: {said}" for said in axe_contrast(page)]
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            faults += [f"{width} px: {said}" for said in too_wide(page)]
            faults += [f"{width} px: {said}" for said in axe(page)]
        page.emulate_media(media="print", color_scheme="light")
        page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins
        faults += [f"print: {said}" for said in [*too_wide(page), *shown_controls(page)]]
    assert not faults, "\n".join([f"{path}:", *dict.fromkeys(faults)])
    return None


def axe(page: Page, impacts: Sequence[str] = IMPACTS) -> list[str]:
    """Findings of axe-core of these impacts, one line a node, by all its rules but that of contrast."""
    return _axe(
        page,
        "axe.run({preload: false, resultTypes: ['violations'], rules: {'color-contrast': {enabled: false}}})",
        impacts,
    )


def axe_contrast(page: Page) -> list[str]:
    """Texts whose contrast axe-core finds too low.

    The rule asks the browser what lies under each text, which takes minutes in a large page. So it is asked where its
    answer can differ: about two of all texts that share colour, size, weight and every background behind them.
    """
    return _axe(
        page,
        """() => {
          const names = ["backgroundColor", "backgroundImage", "opacity"];
          const back = (each) => names.map((name) => getComputedStyle(each)[name]).join();
          const backs = (each) => each ? backs(each.parentElement) + "<" + back(each) : "";
          const kinds = new Map();
          for (const each of document.body.querySelectorAll("*")) {
            const own = [...each.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
            if (!own || !each.checkVisibility()) continue;
            const style = getComputedStyle(each);
            const kind = [style.color, style.fill, style.fontSize, style.fontWeight, backs(each)].join();
            kinds.set(kind, [...(kinds.get(kind) || []), each].slice(0, 2));
          }
          const include = [...kinds.values()].flat();
          return axe.run({include}, {preload: false, resultTypes: ["violations"], runOnly: ["color-contrast"]});
        }""",
        IMPACTS,
    )


def _axe(page: Page, script: str, impacts: Sequence[str]) -> list[str]:
    if not page.evaluate("'axe' in globalThis"):
        page.evaluate(Axe().axe_script)  # through the debugger: the page's own policy lets no script in
    return [
        " ".join(f"{found['impact']} {found['id']}: {node['target']}: {node['failureSummary']}".split())
        for found in page.evaluate(script)["violations"]
        if found["impact"] in impacts
        for node in found["nodes"]
    ]


def unfold(page: Page) -> None:
    """Open the folds of the page; of a long list of them the first three, which are like the others."""
    page.evaluate("""() => {
      for (const each of document.querySelectorAll("details")) {
        const before = [...each.parentElement.children].slice(0, [...each.parentElement.children].indexOf(each));
        each.open ||= before.filter((other) => other.localName === "details").length < 3;
      }
    }""")


def too_wide(page: Page) -> list[str]:
    """Elements that make the page scroll sideways."""
    return list(
        page.evaluate("""() => {
          const root = document.scrollingElement, width = root.clientWidth;
          if (root.scrollWidth <= width) return [];
          const past = (each) => each.getBoundingClientRect().right > width + 1;
          const found = [...document.body.querySelectorAll("*")]
            .filter((each) => past(each) && ![...each.children].some(past)).slice(0, 5)
            .map((each) => `<${each.localName} class="${each.className}"> ${each.textContent.slice(0, 60)}`);
          return [`scrolls sideways, ${root.scrollWidth} px wide`, ...found];
        }""")
    )


def shown_controls(page: Page) -> list[str]:
    """Controls that stand on paper, where nobody can use them."""
    return list(
        page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, nav")]
          .filter((each) => each.checkVisibility())
          .map((each) => `${each.localName} is printed: ${each.textContent.slice(0, 60)}`)""")
    )


def dead_links(page: Page, path: Path) -> list[str]:
    """Links to places that are not there. Permalinks of pairs (#suite/task/item/repeat) are the script's to follow."""
    faults = []
    for link in page.evaluate("[...document.links].map((link) => link.getAttribute('href'))"):
        parts = urlsplit(link)
        target = (path.parent / unquote(parts.path)) if parts.path else path
        if parts.scheme or parts.netloc:
            faults.append(f"a link leads out of the report: {link}")
        elif not target.is_file():
            faults.append(f"a link leads nowhere: {link}")
        elif target == path and parts.fragment and "/" not in unquote(parts.fragment):
            place = unquote(parts.fragment).partition("?")[0]  # what follows sets the filters of the list there
            known = page.evaluate("(id) => document.getElementById(id) !== null", place)
            faults += [] if known else [f"a link leads nowhere: {link}"]
    return faults


def seen(page: Page) -> str:
    """Everything the page shows, blanks made one; line breaks allowed inside long names are gone."""
    return " ".join(page.locator("body").inner_text().replace("\u00a0", " ").split())


FOCUS = """async () => {
  const at = document.activeElement;
  if (at === document.body || at === document.documentElement) return null;
  const box = () => at.getBoundingClientRect(), frame = () => new Promise(requestAnimationFrame);
  const inSight = ({bottom, top, right, left}) => bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
  let now = box(), still = false;
  for (const start = performance.now(); !(still && inSight(now)) && performance.now() - start < 5000;) {
    await frame();
    const before = now;
    now = box();
    still = now.top === before.top && now.left === before.left;
  }
  const style = getComputedStyle(at), drawn = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  at.dataset.reached = "yes";
  return {
    name: `${at.localName} ${(at.getAttribute("aria-label") || at.textContent).trim().slice(0, 50)}`,
    drawn: drawn && at.matches(":focus-visible"),
    inside: inSight(now),
  };
}"""


def focus(page: Page) -> dict[str, Any] | None:
    """What has the focus, once the page stands still with it in sight or has had its time; None for the page itself."""
    found: dict[str, Any] | None = page.evaluate(FOCUS)
    return found


def tabbed(page: Page, most: int = 1000) -> Iterator[dict[str, Any]]:
    """What Tab reaches, one after the other, until it leaves the page."""
    for _ in range(most):
        page.keyboard.press("Tab")
        found = focus(page)
        if found is None:
            return
        yield found
    pytest.fail(f"Tab does not leave the page after {most} steps")
