"""Progress: plain lines with a count, times that add up, and nothing on stdout."""

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runs import progress
from harness.runs.progress import Meter, Reporter, clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3661, "1:01:01"),
        (360000, "100:00:00"),
    ],
)
def test_a_clock_shows_minutes_and_hours(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@given(st.integers(0, 10**6))
def test_a_clock_can_be_read_back(seconds: int) -> None:
    parts = [int(part) for part in clock(seconds).split(":")]
    assert sum(part * 60**i for i, part in enumerate(reversed(parts))) == seconds
    assert all(part < 60 for part in parts[1:])


def test_a_line_tells_what_is_done_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter("cot", 10)
    assert meter.line() == "cot: 0/10 0:00"
    now[0] += 60
    meter.advance(4)
    meter.update(text="gsm8k")
    assert meter.line() == "cot: 4/10 1:00 4/min (1:30 left) gsm8k"
    meter.advance(6)
    assert meter.line() == "cot: 10/10 1:00 10/min gsm8k"


def test_things_that_go_by_are_counted_and_the_rate_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter("items", None)
    assert list(meter.each(range(5))) == [0, 1, 2, 3, 4]
    assert meter.line() == "items: 5 0:00"
    now[0] = 2.0
    assert meter.line() == "items: 5 0:02 2.5/s"


def test_a_meter_without_a_total_counts_nothing() -> None:
    meter = Meter("hashes", None)
    assert meter.line() == "hashes: 0:00"
    meter.update(done=2, total=8)
    assert meter.line().startswith("hashes: 2/8 ")


def test_stages_are_told_on_stderr_and_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    with reporter.stage("cot", 2) as meter:
        meter.advance(2)
    reporter.say("run folder [/tmp/x]")
    reporter.print_times()
    out, err = capsys.readouterr()
    assert out == ""
    assert "cot: 2/2 0:00\n" in err and "run folder [/tmp/x]" in err and "Where the time went" in err
    assert [stage.name for stage in reporter.stages] == ["cot"]


def test_a_stage_that_fails_is_timed_and_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    with pytest.raises(RuntimeError, match="no"), reporter.stage("servers", 2):
        raise RuntimeError("no")
    with reporter.stage("report"):
        pass
    assert [stage.name for stage in reporter.stages] == ["servers", "report"]
    err = capsys.readouterr().err
    assert "servers: 0/2 0:00 stopped" in err and "report: 0:00\n" in err


def test_the_first_lines_come_soon_and_then_one_a_minute() -> None:
    assert list(itertools.islice(progress.waits(), 7)) == [4, 8, 16, 32, 60, 60, 60]


def test_long_work_says_something_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    reporter, said = Reporter(), threading.Event()
    say = reporter.say

    def listen(text: str) -> None:
        say(text)
        said.set()

    monkeypatch.setattr(reporter, "say", listen)
    with reporter.stage("cot", 7) as meter:
        meter.update(done=3)
        assert said.wait(20)
        said.clear()
        assert said.wait(20)
    assert capsys.readouterr().err.count("cot: 3/7") >= 2
    said.clear()
    time.sleep(0.05)
    assert not said.is_set()  # and is silent when the stage is over


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    reporter = Reporter()
    assert reporter.console.is_terminal
    with reporter.stage("cot", 4) as meter:
        meter.update(done=1, text="[not markup]")
    assert "cot" in capsys.readouterr().err
