"""Fixtures: two scripted vLLM servers, two lm-eval folders for the tests of `compare`, and the command."""

import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from command_line import Ended, Quantgate
from fake_server import FakeServer
from foreign_results import Both, Record, write
from jobs import Model

from harness import cli
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


@pytest.fixture
def quantgate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Quantgate]:
    """Run a command in this process, in an empty folder and with an empty cache."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QUANTGATE_DEBUG", "")  # so that --debug of one test is not that of the next

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["quantgate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, captured.out, captured.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
