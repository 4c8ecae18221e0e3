"""Render a run: the page and what machines read, all from the run folder's files and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.items import read_items
from harness.contract.policy import SealedPolicy, parse_policy
from harness.contract.samples import Item, Role, Sample
from harness.contract.whole_files import read_json, write_whole
from harness.judging.verdict import SCHEMA_VERSION, Verdict
from harness.runs.folder import RunFolder
from harness.runs.instances import SUITE as INSTANCES
from harness.runs.positions import PositionSummary, position_summary
from reports.cards.model_card import render_model_card
from reports.formats.badge import render_badge
from reports.formats.junit import render_junit
from reports.formats.markdown import render_markdown
from reports.formats.report_json import render_json
from reports.html import render_html
from reports.instances.outcomes import instances, with_instances
from reports.instances.pages import write_pages
from reports.remarks import NOT_THERE
from reports.samples.side_files import Offsets, inline_texts, write_texts
from reports.samples.stored import LeftOut, Line, sample_lines
from reports.text import one_line, plural
from reports.view import Report, build

JUDGE = "quantgate judge RUN"
COMPARED: tuple[Role, Role] = ("candidate", "noise")
"""Roles that the divergence suite compares with the reference."""


def render(run: Path, single_file: bool = False) -> Path:
    """Write every report of a run folder into its `report/`; returns the path of index.html.

    Texts of samples go into files beside the page, which it loads when they are asked for. With `single_file` the page
    holds those of some hundred pairs itself; instances of swebench still have pages of their own in the run folder,
    which it does not link to, since it may be moved away from them.

    Whatever is missing or broken besides the manifest is named in the report instead of stopping it.

    Raises:
        BadInput: there is no readable manifest, so it is not known what ran.
        OSError: the report cannot be written.
    """
    folder = RunFolder(run)
    report, offsets = located_report(folder)
    report = _with_instance_pages(folder, report, linked=not single_file)
    page = folder.report_path / "index.html"
    write_whole(folder.report_path / "report.json", render_json(report, folder.manifest()))
    write_whole(folder.report_path / "junit.xml", render_junit(report))
    write_whole(folder.report_path / "summary.md", render_markdown(report))
    write_whole(folder.report_path / "badge.svg", render_badge(report))
    write_whole(folder.report_path / "model_card.md", render_model_card(report))
    texts = (inline_texts if single_file else write_texts)(folder, report.pairs, offsets)
    write_whole(page, render_html(report, texts))
    return page


def _with_instance_pages(folder: RunFolder, report: Report, linked: bool) -> Report:
    """Write a page for each instance of swebench, and list all of them in the report of a run that has any."""
    if not any(suite.name == INSTANCES and suite.tables for suite in report.suites):
        return report
    stored = _Stored(folder)
    found = instances(stored.of_suite(INSTANCES), (item.item for item in stored.items(INSTANCES)))
    pages = write_pages(folder, (instance.name for instance in found))
    listed = with_instances(report, found, pages.links, pages.remark, linked)
    return replace(listed, notes=[*report.notes, *pages.notes])


def read_report(folder: RunFolder) -> Report:
    """The view of a run folder. Raises BadInput when its manifest cannot be read."""
    return located_report(folder)[0]


def located_report(folder: RunFolder) -> tuple[Report, Offsets]:
    """The same, and where its samples are in their files."""
    stored = _Stored(folder)
    verdict = stored.verdict()
    judged_by = stored.judged_by(verdict) if verdict and verdict.after_the_fact else None
    edited = stored.edited()
    manifest, policy, positions = folder.manifest(), stored.policy(), stored.positions()
    report = build(manifest, policy, verdict, stored, stored.items, stored.not_judged, judged_by, positions, edited)
    return replace(report, notes=[*report.notes, *stored.notes]), stored.offsets


class _Stored:
    """A run folder's files, read without ever giving up: what cannot be read becomes a note."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.not_judged = NOT_THERE
        """Why there is no verdict, where there is none."""
        self._notes: dict[str, None] = {}
        self.offsets: Offsets = {}
        """Where the first of each sample begins, once all have been read."""

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
        path = self.folder.path / "verdict.json"
        if not path.exists():
            return None
        try:
            version = read_json(path).get("schema_version")
            if version == SCHEMA_VERSION:
                return self.folder.verdict()
            old = isinstance(version, int) and version < SCHEMA_VERSION
            self.not_judged = f"Judged by {'an older' if old else 'another'} version of quantgate: run {JUDGE}."
        except BadInput as error:
            self.not_judged = f"verdict.json cannot be read: run {JUDGE}."
            self._note(error)
        return None

    def judged_by(self, verdict: Verdict) -> SealedPolicy | None:
        """The policy of a verdict after the fact, when it is stored as it was."""
        try:
            found = parse_policy((self.folder.path / "judged_by.yaml").read_bytes().decode("utf-8"), "judged_by.yaml")
        except (BadInput, OSError, ValueError):
            return None
        return found if found.sha256 == verdict.policy_sha256 else None

    def positions(self) -> dict[Role, PositionSummary]:
        """Statistics over the divergence suite's stored positions, of each role that was compared."""
        found: dict[Role, PositionSummary] = {}
        for role in COMPARED:
            try:
                summary = position_summary(self.folder.path / "divergence", role)
            except (BadInput, OSError) as error:
                self._note(error)
                continue
            if summary:
                found[role] = summary
        return found

    def edited(self) -> list[str]:
        """The files of samples that are not what the finished run wrote, in words; the same test as before judging."""
        try:
            found = self.folder.edited_samples()
        except (BadInput, OSError) as error:
            self._note(error)
            return []
        what = "is not what the run wrote"
        return [
            f"samples/{one_line(suite, 120)}.jsonl {what}: {plural(then, 'line')} then, {now:,} now."
            for suite, then, now in found
        ]

    def items(self, suite: str) -> Iterator[Item]:
        """A suite's items, one in memory at a time; none where the file is not the one that the manifest names."""
        try:
            yield from read_items(self.folder.sealed_items(suite))
        except (BadInput, ValueError) as error:
            self._note(error)

    def __iter__(self) -> Iterator[Sample]:
        """All samples, suite by suite; what is no sample is passed over and told."""
        for path in sorted((self.folder.path / "samples").glob("*.jsonl")):
            for line, sample in self._lines(path.stem):
                self.offsets.setdefault(sample.key, line.offset)
                yield sample

    def of_suite(self, suite: str) -> Iterator[Sample]:
        """Those of one suite."""
        yield from (sample for _, sample in self._lines(suite))

    def _lines(self, suite: str) -> Iterator[tuple[Line, Sample]]:
        left_out = LeftOut()
        try:
            with self.folder.samples_path(suite).open("rb") as file:
                for line in sample_lines(file):
                    if line.sample:
                        yield line, line.sample
                    else:
                        left_out.add(line)
        except (BadInput, OSError) as error:
            self._note(error)
        if left_out.count:
            self._notes[one_line(left_out.said(f"samples/{suite}.jsonl"), 400)] = None

    def _note(self, error: Exception) -> None:
        said = str(error).replace(f"{self.folder.path}/", "")
        self._notes[f"{one_line(said, 400)}."] = None
