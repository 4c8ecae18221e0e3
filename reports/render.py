"""Render a run: the page and what machines read, all from the run folder's files and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput
from harness.policy import SealedPolicy
from harness.runfolder import RunFolder, write_whole
from harness.samples import Item, Sample, read_samples
from harness.verdict import Verdict
from reports.badge import render_badge
from reports.html import render_html
from reports.junit import render_junit
from reports.markdown import render_markdown
from reports.model_card import render_model_card
from reports.text import one_line
from reports.view import Report, build


def render(run: Path) -> Path:
    """Write every report of a run folder into its `report/`; returns the path of index.html.

    Whatever is missing or broken besides the manifest is named in the report instead of stopping it.

    Raises:
        BadInput: there is no readable manifest, so it is not known what ran.
        OSError: the report cannot be written.
    """
    folder = RunFolder(run)
    report = read_report(folder)
    page = folder.report_path / "index.html"
    write_whole(folder.report_path / "junit.xml", render_junit(report))
    write_whole(folder.report_path / "summary.md", render_markdown(report))
    write_whole(folder.report_path / "badge.svg", render_badge(report))
    write_whole(folder.report_path / "model_card.md", render_model_card(report))
    write_whole(page, render_html(report))
    return page


def read_report(folder: RunFolder) -> Report:
    """The view of a run folder. Raises BadInput when its manifest cannot be read."""
    stored = _Stored(folder)
    report = build(folder.manifest(), stored.policy(), stored.verdict(), stored, stored.items)
    return replace(report, notes=[*report.notes, *stored.notes])


class _Stored:
    """A run folder's files, read without ever giving up: what cannot be read becomes a note."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> list[str]:
        return list(self._notes)

    def policy(self) -> SealedPolicy | None:
        try:
            return self.folder.sealed_policy()
        except (BadInput, ValueError) as error:
            self._note(error)
            return None

    def verdict(self) -> Verdict | None:
        if not (self.folder.path / "verdict.json").exists():
            return None
        try:
            return self.folder.verdict()
        except BadInput as error:
            self._note(error)
            return None

    def items(self, suite: str) -> Sequence[Item]:
        try:
            return self.folder.items(suite)
        except (BadInput, ValueError) as error:
            self._note(error)
            return ()

    def __iter__(self) -> Iterator[Sample]:
        """All samples, suite by suite; a broken line ends its suite and no other."""
        for path in sorted((self.folder.path / "samples").glob("*.jsonl")):
            try:
                yield from read_samples(path)
            except (BadInput, OSError) as error:
                self._note(error, " Samples after it are not in this report.")

    def _note(self, error: Exception, more: str = "") -> None:
        said = str(error).replace(f"{self.folder.path}/", "")
        self._notes[f"{one_line(said, 400)}.{more}"] = None
