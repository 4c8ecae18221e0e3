"""Fixtures: two scripted vLLM servers, and two lm-eval folders for the tests of `compare`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from elsewhere import Both, Record, write
from fake_server import FakeServer
from jobs import Model

from harness.contract.samples import Role
from harness.parity import steadiness as steady


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Role, FakeServer]]:
    """Both roles' servers, which count a request as they answer it."""
    monkeypatch.setattr(steady, "SETTLE_SECONDS", 0.0)
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, candidate.handler = Model(), Model()
        yield {"reference": reference, "candidate": candidate}


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Two lm-eval folders with these records, the reference's and the candidate's."""

    def make(reference: Iterable[Record], candidate: Iterable[Record]) -> tuple[Path, Path]:
        return write(tmp_path / "r", reference), write(tmp_path / "c", candidate)

    return make
