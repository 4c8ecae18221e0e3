"""Progress of long work: a live bar on a terminal; elsewhere lines, soon the first ones and then one a minute."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from harness.runs.manifest import Stage

LINE_SECONDS = 4.0
"""Until the first plain line; the next one takes twice as long, and so on up to MOST_SECONDS."""
MOST_SECONDS = 60.0
T = TypeVar("T")


class Meter:
    """What a stage tells: how far it is and what it does now."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.text = ""
        self.started = time.monotonic()

    def update(self, done: int | None = None, total: int | None = None, text: str | None = None) -> None:
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.text = self.text if text is None else text

    def advance(self, count: int = 1) -> None:
        self.done += count

    def each(self, things: Iterable[T]) -> Iterator[T]:
        """The same things, counted as they go by."""
        for thing in things:
            yield thing
            self.advance()

    def line(self) -> str:
        """One plain line: name, count, elapsed time, rate and remaining time."""
        elapsed = time.monotonic() - self.started
        parts = [f"{self.name}:"]
        if self.total or self.done:
            parts.append(f"{self.done}/{self.total}" if self.total else str(self.done))
        parts.append(clock(elapsed))
        parts.append(self.rate())
        if self.total and 0 < self.done < self.total:
            parts.append(f"({clock(elapsed / self.done * (self.total - self.done))} left)")
        return " ".join(filter(None, [*parts, self.text]))

    def rate(self) -> str:
        """Things a second, or a minute where that would be less than one; nothing before there is something to say."""
        elapsed = time.monotonic() - self.started
        if not self.done or elapsed < 1:
            return ""
        per_second = self.done / elapsed
        return f"{per_second:.3g}/s" if per_second >= 1 else f"{60 * per_second:.3g}/min"


class Reporter:
    """Shows stages on stderr, one after the other, and remembers how long each took."""

    def __init__(self) -> None:
        # This very stream, also while a library's own progress bars are kept off sys.stderr.
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.stages: list[Stage] = []

    def say(self, text: str) -> None:
        """One line of its own."""
        self.console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Meter]:
        """Show a meter while the body runs; a stage that fails is timed too."""
        meter = Meter(name, total)
        show = self._bar(meter) if self.console.is_terminal else self._lines(meter)
        try:
            with show:
                yield meter
        finally:
            seconds = time.monotonic() - meter.started
            self.stages.append(Stage(name=name, seconds=round(seconds, 2)))
            self.say(f"{meter.line()}" if sys.exc_info()[0] is None else f"{meter.line()} stopped")

    @contextmanager
    def _bar(self, meter: Meter) -> Iterator[None]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(meter.name, total=meter.total, rate="", note="")

            def show() -> None:
                bar.update(task, completed=meter.done, total=meter.total, rate=meter.rate(), note=meter.text)

            with _every(itertools.repeat(0.2), show):
                yield

    @contextmanager
    def _lines(self, meter: Meter) -> Iterator[None]:
        with _every(waits(), lambda: self.say(meter.line())):
            yield

    def print_times(self) -> None:
        """Where the time went, as a table."""
        table = Table("stage", "time", "share", title="Where the time went", title_justify="left")
        whole = sum(stage.seconds for stage in self.stages) or 1.0
        for stage in self.stages:
            table.add_row(stage.name, clock(stage.seconds), f"{stage.seconds / whole:.0%}")
        table.add_row("together", clock(whole), "")
        self.console.print(table)


def waits() -> Iterator[float]:
    """Seconds between the plain lines of a stage: what ends soon is seen to move, what takes hours fills no log."""
    seconds = LINE_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, MOST_SECONDS)


@contextmanager
def _every(pauses: Iterator[float], action: Callable[[], None]) -> Iterator[None]:
    """Call `action` from a thread after each of these pauses, in seconds, while the body runs."""

    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(next(pauses)):
            action()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
