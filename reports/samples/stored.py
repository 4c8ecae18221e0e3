"""Samples as a report reads them: a line that is none is counted and passed over, and those after it are shown.

What decides reads with harness.contract.samples.read_samples, which stops there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from harness.contract.errors import first_error
from harness.contract.samples import Sample
from reports.text import one_line, plural


class Line(NamedTuple):
    """One whole line of samples/<suite>.jsonl."""

    number: int
    offset: int
    """Bytes before it."""
    sample: Sample | None
    fault: str
    """Why it is no sample; empty where it is one."""


@dataclass
class LeftOut:
    """The lines of a file that are no samples."""

    count: int = 0
    first: str = ""
    """LINE (why)."""

    def add(self, line: Line) -> None:
        self.count += 1
        self.first = self.first or f"{line.number} ({line.fault})"

    def said(self, file: str) -> str:
        """What a reader is told; empty where nothing was left out."""
        if not self.count:
            return ""
        verb = "is not a sample and is" if self.count == 1 else "are not samples and are"
        where = "" if self.count == 1 else "the first "
        return f"{plural(self.count, 'line')} of {file} {verb} left out: {where}{file}:{self.first}."


def sample_lines(file: Iterable[bytes]) -> Iterator[Line]:
    """Every line but a last one without its newline, which is what a killed run leaves behind."""
    offset = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return
        try:
            yield Line(number, offset, Sample.model_validate_json(line), "")
        except ValidationError as error:
            yield Line(number, offset, None, one_line(first_error(error, "line"), 200))
        offset += len(line)
