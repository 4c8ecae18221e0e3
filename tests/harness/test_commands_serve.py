"""`quantgate serve`: however it ends, the server it has started is ended too."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Ended, Quantgate, last_line

from harness.checkpoint import models
from harness.contract.errors import RunFailed
from harness.runs.progress import Meter, Reporter
from harness.serving import flags, hardware, servers

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
    monkeypatch.setattr(flags, "plan_servers", lambda *_: PLANS)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return []


@pytest.fixture
def run(quantgate: Quantgate, events: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """The command, whose servers are these."""

    def serve(*started: Server, role: str = "reference") -> Ended:
        @contextmanager
        def start(plans: list[Any], logs: Path, timeout: float, meter: Meter) -> Iterator[list[Server]]:
            events.append(f"started {plans[0].role}")
            try:
                yield list(started)
            finally:
                events.append("ended")

        monkeypatch.setattr(servers, "serve", start)
        return quantgate("serve", "demo", "--role", role)

    return serve


def test_a_server_that_ends_is_a_failure(run: Callable[..., Ended], events: list[str]) -> None:
    status, out, err = run(Server(3), role="candidate")
    assert (status, events) == (4, ["started candidate", "ended"])
    assert out == "candidate: http://127.0.0.1/candidate/v1 (log: server.log); Ctrl-C ends it\n"
    assert err.endswith("the log's end\nquantgate: reference server ended\n")


def test_ctrl_c_ends_it(run: Callable[..., Ended], events: list[str]) -> None:
    ended = run(Server(9, lambda: signal.raise_signal(signal.SIGINT)))
    assert (ended.status, events) == (4, ["started reference", "ended"])
    assert last_line(ended).startswith("quantgate: interrupted")


def test_ctrl_c_just_after_it_was_ready_ends_it(
    run: Callable[..., Ended], events: list[str], monkeypatch: pytest.MonkeyPatch
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


def test_what_was_opened_is_closed_when_it_is_no_server(run: Callable[..., Ended], events: list[str]) -> None:
    ended = run()
    assert (ended.status, events) == (4, ["started reference", "ended"])
    assert "internal error: ValueError" in last_line(ended)
