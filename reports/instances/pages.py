"""A page for each instance of SWE-bench: both roles' patches, test results and trajectories beside each other.

Pages are made from `RUN/swebench/<role>/<instance>/` alone, one instance in memory at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from harness.contract.samples import ROLES, Role
from harness.contract.whole_files import write_whole
from harness.runs.folder import RunFolder
from harness.runs.instances import SUITE
from reports.html import environment, source_hash, style_sheet
from reports.instances.sides import NOTHING, Side, facts, failed_tests, read_side, sentence
from reports.text import one_line, plural

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
"""Instances of other names have no page: names come from a data set, and here they become paths."""

MADE_BY = ("mini-swe-agent", "swebench")
"""Agent and grader."""


@dataclass
class Pages:
    """What was written, and what the results say of how they were made."""

    links: dict[str, str] = field(default_factory=dict)
    """Instance -> path of its page, relative to index.html."""
    unlike: list[str] = field(default_factory=list)
    """Instances whose image differs between the roles."""
    versions: Counter[tuple[str, Role, str]] = field(default_factory=Counter)
    """How many results there are of each (program, role, version)."""

    @property
    def remark(self) -> str:
        """What ran the instances, on one line; empty where no result is there."""
        said = [
            one_line(f"{what} {' and '.join(self._versions(what))}", 120) for what in MADE_BY if self._versions(what)
        ]
        return " ".join([*([f"Made by {', '.join(said)}."] if said else []), *self.notes])

    @property
    def notes(self) -> list[str]:
        """What keeps results from being compared: other images, versions that are mixed."""
        found = []
        if self.unlike:
            names = ", ".join(self.unlike[:3]) + (", …" if len(self.unlike) > 3 else "")
            found.append(f"{SUITE}: the roles' images differ in {plural(len(self.unlike), 'instance')} ({names}).")
        for what in MADE_BY:
            if len(self._versions(what)) > 1:
                counts = sorted(
                    (role, version, n) for (kind, role, version), n in self.versions.items() if kind == what
                )
                said = ", ".join(f"{role} {version} ×{n:,}" for role, version, n in counts)
                found.append(f"{SUITE}: results of different versions of {what}: {one_line(said, 300)}.")
        return found

    def _versions(self, what: str) -> list[str]:
        return sorted({version for kind, _, version in self.versions if kind == what})

    def add(self, name: str, sides: Sequence[Side]) -> None:
        """Take in an instance whose page was written."""
        self.links[name] = f"{SUITE}/{name}.html"
        results = [side.result for side in sides if side.result]
        for result in results:
            for what, version in zip(MADE_BY, (result.agent_version, result.grader_version), strict=True):
                if version:
                    self.versions[what, result.role, version] += 1
        if len({result.image_digest for result in results if result.image_digest}) > 1:
            self.unlike.append(name)


def write_pages(folder: RunFolder, names: Iterable[str]) -> Pages:
    """Write the page of every instance of which the run folder holds anything; other instances' pages are removed.

    Raises:
        OSError: a page cannot be written.
    """
    target, render, pages = folder.report_path / SUITE, _renderer(), Pages()
    for name in names:
        if not NAME.fullmatch(name):
            continue
        sides = [read_side(folder.path, role, name) for role in ROLES]
        if any(side.missing != [NOTHING] for side in sides):
            write_whole(target / f"{name}.html", render(name, sides))
            pages.add(name, sides)
    for page in target.glob("*.html"):
        if page.stem not in pages.links:
            page.unlink()
    return pages


def _renderer() -> Callable[[str, Sequence[Side]], str]:
    """Makes a page: (instance, its sides) -> HTML without any script, which its content policy would stop as well."""
    style = style_sheet()
    policy = f"default-src 'none'; style-src '{source_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    template = environment().get_template("trajectory.html.j2")

    def render(name: str, sides: Sequence[Side]) -> str:
        said, tone = sentence(sides)
        failed = [failed_tests(side.result, other.result) for side, other in zip(sides, sides[::-1], strict=True)]
        return template.render(
            name=name,
            sides=sides,
            failed=failed,
            facts=facts(sides),
            sentence=said,
            tone=tone,
            task=next((side.trajectory.task for side in sides if side.trajectory), ""),
            content_policy=policy,
            style=Markup(style),
        )

    return render
