"""What an entry of the catalogue is: a candidate that is damaged, or is not, and what the gate must say of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.runs.folder import RunFolder

Family = Literal["weights", "configuration", "tokenizer", "serving", "results"]
Kind = Literal["refused", "fail", "inconclusive", "harmless"]


class NotApplicable(Exception):
    """The model has nothing that this defect could damage; the message says what it lacks."""


@dataclass(frozen=True)
class Expected:
    """What the gate must say, stated before it is asked."""

    kind: Kind
    """refused: exit 3. fail: exit 1. inconclusive: exit 2. harmless: anything but FAIL, exit 3 and exit 4."""
    names: str = ""
    """What must be named: of `fail` the metric of a check that fails, else words of the reason."""

    def __str__(self) -> str:
        said = {"refused": "exit 3", "fail": "FAIL of", "inconclusive": "INCONCLUSIVE", "harmless": "no FAIL"}[
            self.kind
        ]
        return f"{said} `{self.names}`" if self.names else said


def refused(words: str) -> Expected:
    """Exit 3, with these words."""
    return Expected("refused", words)


def fails(metric: str) -> Expected:
    """FAIL, by a check on this metric that stands after Holm's correction."""
    return Expected("fail", metric)


def doubted(words: str) -> Expected:
    """INCONCLUSIVE, with these words in its reason."""
    return Expected("inconclusive", words)


HARMLESS = Expected("harmless")

Make = Callable[[Path, Path], None]
"""Writes a candidate's checkpoint: (folder that it is made of, new folder). Raises NotApplicable."""


@dataclass(frozen=True)
class Entry:
    """One candidate of the catalogue."""

    name: str
    family: Family
    damage: str
    """One clause for a reader: what was done to a good model, its server or its results."""
    expected: Expected
    make: Make | None = None
    """How the candidate's checkpoint is made; None: it is that of the control."""
    of_control: bool = False
    """Made of the control's checkpoint: with the reference's own weights a gate would take it for the reference."""
    flags: tuple[str, ...] = ()
    """Flags that only the candidate's server gets, which the gate then attaches to."""
    serves_reference: bool = False
    """The candidate's server runs the reference's checkpoint, whatever the candidate is called."""
    during: Callable[[], AbstractContextManager[object]] | None = None
    """What is wrong in the gate's own process while it works."""
    after: Callable[[RunFolder], None] | None = None
    """What is done to the finished run of the control, which is then judged again."""
    needs: str = ""
    """What the model or the machine must have that no entry can make; such an entry is listed and not run."""

    @property
    def attached(self) -> bool:
        """Whether the candidate's server is not the gate's own."""
        return bool(self.flags) or self.serves_reference
