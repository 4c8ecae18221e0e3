"""What a task of RULER is: a function from a place in the suite to a prompt of any length with its references."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from suites.materials.fitting import Builder


@dataclass(frozen=True)
class Place:
    """Which item is to be made: the same place gives the same item, whatever else is asked for."""

    seed: int
    task: str
    length: int
    """Tokens of the prompt."""
    index: int

    def rng(self) -> random.Random:
        """A text as seed: the same on every machine and Python, unlike hash()."""
        return random.Random(f"{self.seed}/{self.task}/{self.length}/{self.index}")


class Made(NamedTuple):
    """An item whose filling is not measured yet."""

    build: Builder
    references: Sequence[str]
    data: dict[str, Any]
    """Facts that go into the item: where its text is from."""


Task = Callable[[Place], Made]
"""Raises BadInput: its data is missing, or the length cannot hold it."""
