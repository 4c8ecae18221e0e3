"""`quantgate serve`: however it ends, the server it has started is ended too."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import cli
from harness.checkpoint import models
from harness.contract.errors import RunFailed
from harness.runs.progress import Meter, Reporter
from harness.serving import hardware, servers

PLANS = [SimpleNamespace(role=role, url=f"http://127.0.0.1/{role}") for role in ("reference", "candidate")]


class Server:
    """Alive for so many looks; `looked` is called at each."""

    log = Path("server.log")

    def __init__(self, looks: int, looked: Callable[[], None] = lambda: None) -> None:
        self.looks, self.looked = looks, looked

    def alive(self) -> bool:
        self.looked()
        self.looks -= 1
        return self.looks > 0

    def failure(self, what: str) -> RunFailed:
        return RunFailed(f"reference server {what}", details="the log's end")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the server, in order. Nothing real is resolved, detected or planned."""
    monkeypatch.setattr(models, "resolve_model", lambda *_: Path("model"))
    monkeypatch.setattr(hardware, "detect", lambda: None)
    monkeypatch.setattr(servers, "plan_servers", lambda *_: PLANS)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return []


@pytest.fixture
def run(
    events: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[Any, str, str]]]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def serve(*started: Server, role: str = "reference") -> tuple[Any, str, str]:
        @contextmanager
        def start(plans: list[Any], logs: Path, timeout: float, meter: Meter) -> Iterator[list[Server]]:
            events.append(f"started {plans[0].role}")
            try:
                yield list(started)
            finally:
                events.append("ended")

        monkeypatch.setattr(servers, "serve", start)
        monkeypatch.setattr(sys, "argv", ["quantgate", "serve", "demo", "--role", role])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    yield serve
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_server_that_ends_is_a_failure(run: Callable[..., Any], events: list[str]) -> None:
    status, out, err = run(Server(3), role="candidate")
    assert (status, events) == (4, ["started candidate", "ended"])
    assert out == "candidate: http://127.0.0.1/candidate/v1 (log: server.log); Ctrl-C ends it\n"
    assert err.endswith("the log's end\nquantgate: reference server ended\n")


def test_ctrl_c_ends_it(run: Callable[..., Any], events: list[str]) -> None:
    status, _, err = run(Server(9, lambda: signal.raise_signal(signal.SIGINT)))
    assert (status, events) == (4, ["started reference", "ended"])
    assert "quantgate: interrupted" in err and "Traceback" not in err


def test_ctrl_c_just_after_it_was_ready_ends_it(
    run: Callable[..., Any], events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Reporter.stage

    @contextmanager
    def stage(reporter: Reporter, *arguments: Any) -> Iterator[Meter]:
        with real(reporter, *arguments) as meter:
            yield meter
        events.append("ready")
        raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "stage", stage)
    status, out, _ = run(Server(9))
    assert (status, out, events) == (4, "", ["started reference", "ready", "ended"])


def test_what_was_opened_is_closed_when_it_is_no_server(run: Callable[..., Any], events: list[str]) -> None:
    status, _, err = run()
    assert (status, events) == (4, ["started reference", "ended"]) and "internal error: ValueError" in err
