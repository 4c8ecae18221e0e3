"""What an entry of the catalogue is: a candidate that is damaged, or is not, and what the gate must say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.runs.folder import RunFolder
from harness.serving.hardware import Hardware

Family = Literal["weights", "experts", "drafts", "configuration", "tokenizer", "serving", "results"]
Good = Literal["own", "mixture", "drafts"]
"""What candidates are made of: the model that was given, or, where that has no experts or no draft head, one made for
the purpose (`standins.py`)."""
Kind = Literal["refused", "fail", "inconclusive", "unserved", "harmless"]


class NotApplicable(Exception):
    """The model has nothing that this defect could damage; the message says what it lacks."""


@dataclass(frozen=True)
class Expected:
    """What the gate must say, stated before it is asked."""

    kind: Kind
    """refused: exit 3. fail: exit 1. inconclusive: exit 2. unserved: exit 4, as no server starts. harmless: PASS, and
    anything but FAIL, exit 3 and exit 4 is no false alarm."""
    names: str = ""
    """What must be named: of `fail` the metric of a check that fails, of `unserved` words of the server's log, else
    words of the reason."""

    def __str__(self) -> str:
        said = {
            "refused": "exit 3",
            "fail": "FAIL of",
            "inconclusive": "INCONCLUSIVE",
            "unserved": "exit 4, and the server's log says",
            "harmless": "PASS",
        }[self.kind]
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


def unserved(words: str) -> Expected:
    """Exit 4: the candidate's server does not start, and says why with these words."""
    return Expected("unserved", words)


HARMLESS = Expected("harmless")

Make = Callable[..., None]
"""Writes a candidate's checkpoint: (folder that it is made of, new folder). Raises NotApplicable."""


@dataclass(frozen=True)
class Doses:
    """A defect of which there is more or less."""

    make: Callable[..., None]
    """Writes a candidate with this much of it: (folder that it is made of, new folder, dose). Raises NotApplicable."""
    steps: Callable[[Path], Sequence[float]]
    """Of a good model, by its folder: doses from the weakest to the strongest. Raises NotApplicable."""
    stated: Callable[[Path], float]
    """The dose of the catalogue, one of the steps."""
    words: Callable[[float, float], str]
    """A dose for a reader, who may want to know the strongest one too."""


def fixed(*steps: float) -> Callable[[Path], Sequence[float]]:
    """The same steps for every model."""
    return lambda _: steps


def always(dose: float) -> Callable[[Path], float]:
    """The same dose for every model."""
    return lambda _: dose


@dataclass(frozen=True)
class Entry:
    """One candidate of the catalogue."""

    name: str
    family: Family
    damage: str
    """One clause for a reader: what was done to a good model, its server or its results."""
    expected: Expected
    make: Make | None = None
    """How the candidate's checkpoint is made; None, and no doses: it is that of the control."""
    doses: Doses | None = None
    """In the place of `make`, of a defect of which there is more or less."""
    seeded: bool = False
    """Where the damage lies is by chance: what makes it takes a `seed`."""
    good: Good = "own"
    control: bool = False
    """Harmless, and gated first: every other candidate of the same good model is compared in its run."""
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
    avx512: bool = False
    """Whether vLLM takes the flags with AVX-512 alone, where it runs on a CPU."""

    def lacks(self, hardware: Hardware) -> str:
        """What is missing for this entry on a machine; empty: nothing that is known before it is run."""
        if self.avx512 and not (hardware.gpus or hardware.avx512):
            return "a GPU, or a processor with AVX-512"
        return self.needs

    @property
    def attached(self) -> bool:
        """Whether the candidate's server is not the gate's own."""
        return bool(self.flags) or self.serves_reference

    def write(self, source: Path, out: Path, seed: int, dose: float | None = None) -> bool:
        """Write the candidate's checkpoint, with another dose than the stated one where `dose` says so. False: it has
        none of its own. Raises NotApplicable."""
        chance = {"seed": seed} if self.seeded else {}
        if self.doses:
            self.doses.make(source, out, self.doses.stated(source) if dose is None else dose, **chance)
        elif self.make:
            self.make(source, out, **chance)
        return bool(self.doses or self.make)
