"""Fixtures for the tests of `compare`."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from elsewhere import Both, Record, write


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Two lm-eval folders with these records, the reference's and the candidate's."""

    def make(reference: Iterable[Record], candidate: Iterable[Record]) -> tuple[Path, Path]:
        return write(tmp_path / "r", reference), write(tmp_path / "c", candidate)

    return make
