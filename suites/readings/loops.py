"""Whether a text ends in a loop: one unit, of any length, again and again to its end."""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

from suites.readings.number_words import ENGLISH_NUMBER

LEAST_LOOP = 400
"""Characters that repeat before it is called a loop; a table or a list of numbers stays below."""
SHORT_UNIT = 200
TIMES, TIMES_OF_LONG = 5, 3
"""How often a unit has to stand at the end: one of up to SHORT_UNIT characters, and a longer one."""
BLANKS = 2
"""Characters between units (a blank line) that the last one does not have."""
TAIL = 4000
"""Characters at the end that are compressed."""
RATIO = 12.0
"""Compression of the tail from which on it says nothing new; prose has 2 to 3, code and JSON up to 10."""
MOST_NUMBERS = 4
"""Different numbers in such a tail: with more of them it counts (a song, a table) and ends by itself, or is cut."""
PROBE = 32
"""Last characters whose earlier places are the lengths that a unit may have."""
CANDIDATES = 4000

_NUMBER = re.compile(r"[0-9]+")
_DIGITS = re.compile(r"[\s.,]*[0-9][0-9\s.,]*")


def looped(text: str, *, cut: bool = False) -> bool:
    """Whether a text ends in a loop: one unit again and again, blanks, or a tail that says nothing new.

    `cut`: the budget ended it. A text that only counts (99 bottles), and digits (1/7 to 500 places), were asked for
    where they end by themselves; where they were cut they are loops.
    """
    stripped = text.rstrip()
    if len(text) - len(stripped) >= LEAST_LOOP:  # nothing but blanks
        return True
    unit = repeated_unit(stripped)
    if unit is not None:
        return cut or not _DIGITS.fullmatch(stripped[-unit:])
    tail = stripped[-TAIL:]
    data = tail.encode("utf-8", "replace")
    if len(tail) < TAIL or len(data) / len(zlib.compress(data, 6)) <= RATIO:
        return False
    return cut or not _counts(tail)


def repeated_unit(text: str) -> int | None:
    """Characters of the unit that a text repeats to its end, often enough to be a loop; None when it does not."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    for unit in _lengths(text):
        times = TIMES if unit <= SHORT_UNIT else TIMES_OF_LONG
        needed = max(LEAST_LOOP, times * unit - BLANKS)
        if needed > codes.size:
            return None  # longer units need more still
        if _repeats(codes, unit, needed):
            return unit
    return None


def _lengths(text: str) -> list[int]:
    """Lengths that the unit may have, the shortest first: how far before the last characters stood already."""
    probe = text[-PROBE:]
    found: list[int] = []
    place = len(text) - len(probe)
    earliest = max(0, len(text) - len(text) // TIMES_OF_LONG - PROBE - BLANKS)
    while len(found) < CANDIDATES:
        place = text.rfind(probe, earliest, place + len(probe) - 1)
        if place < 0:
            break
        found.append(len(text) - len(probe) - place)
    return found


def _repeats(codes: NDArray[np.uint32], unit: int, needed: int) -> bool:
    """Whether the last `needed` characters have the period `unit`."""
    tail = codes[-needed:]
    step = tail[-unit - 64 :]
    if not np.array_equal(step[unit:], step[: step.size - unit]):  # most fail here
        return False
    return bool(np.array_equal(tail[unit:], tail[:-unit]))


def _counts(tail: str) -> bool:
    """Whether a tail holds more than MOST_NUMBERS different numbers, in digits or words."""
    spoken = {found[0].lower() for found in ENGLISH_NUMBER.finditer(tail)}
    return len({*_NUMBER.findall(tail), *spoken}) > MOST_NUMBERS
