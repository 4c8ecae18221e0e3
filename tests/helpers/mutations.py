"""Inputs that are almost right, which go further into a reader than noise does: values and bytes with a few edits.

hypothesis draws a number, and the edits follow from it: drawn one by one they would cost more than what is tested.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
DEEP = 100_000
"""Brackets within brackets: more than any parser's recursion takes."""
ODD_TEXTS = (
    *("", " ", "\x00", "..", "../../x", "/etc/passwd", "a" * 3000, "NaN", "-1", "1e999", "\ud800", "\u202e"),
    *("[x]*?", "__proto__", "\n", "é", "٣", "１", "true", "null", "x.0.y", "0" * 30, "%s{0}$x"),
)
ODD_NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, -(2**63), 2**64, 10**40, 10**4000, True, False),
    *(0.5, -0.5, 1e308, -0.0, 1e-320, 1e22, 0.1 + 0.2, float("inf"), float("-inf"), float("nan")),
)
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(ODD_TEXTS))


def seeded(make: Callable[[Random], T]) -> st.SearchStrategy[T]:
    """What `make` does with a generator of its own; a failure is repeated by its number."""
    return st.integers(0, 2**64 - 1).map(lambda seed: make(Random(seed)))


def edited(values: Sequence[Any], most: int = 3) -> st.SearchStrategy[Any]:
    """One of these JSON values with one to `most` edits anywhere in it."""

    def make(rng: Random) -> Any:
        value = copy.deepcopy(rng.choice(values))
        for _ in range(rng.randint(1, most)):
            value = _edit(rng, value)
        return value

    return seeded(make)


def damaged(samples: Sequence[bytes], most: int = 4) -> st.SearchStrategy[bytes]:
    """One of these byte strings with a few places cut, changed, doubled or filled with noise."""

    def make(rng: Random) -> bytes:
        data = rng.choice(samples)
        for _ in range(rng.randint(1, most)):
            at, length = rng.randint(0, len(data)), rng.choice((0, 1, 1, 2, 8, 40))
            data = data[:at] + _noise(rng, data[at : at + length]) + data[at + length :]
        return data

    return seeded(make)


def as_json(value: Any) -> str:
    """JSON of a value; lone surrogates are escaped, and what is no number of JSON stands there as Python writes it."""
    return json.dumps(value, ensure_ascii=True)


def text(rng: Random) -> str:
    """A short text: odd, or of any characters."""
    if rng.random() < 0.5:
        return rng.choice(ODD_TEXTS)
    return "".join(chr(rng.choice((rng.randint(0, 127), rng.randint(0, 0xFFFF)))) for _ in range(rng.randint(0, 12)))


def _value(rng: Random, depth: int = 0) -> Any:
    """Any JSON value: of the wrong kind where one of them stands for another."""
    kind = rng.randint(0, 5 if depth < 3 else 3)
    if kind == 0:
        return None
    if kind == 1:
        return rng.choice(ODD_NUMBERS)
    if kind in (2, 3):
        return text(rng)
    inner = [_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return inner if kind == 4 else {text(rng): value for value in inner}


def _edit(rng: Random, value: Any) -> Any:
    """One edit: on the way down a container is entered, or the value that is there is changed."""
    places = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not places or rng.random() < 0.1:
        return _instead(rng, value)
    place, what = rng.choice(places), rng.randint(0, 11)
    if what == 0:
        del value[place]
    elif what == 1 and isinstance(value, dict):
        value[text(rng)] = value.pop(place)
    elif what == 2 and isinstance(value, list):
        value.append(copy.deepcopy(value[place]))
    elif what == 3:
        value[place] = _value(rng)
    elif what == 4 and isinstance(value, dict):
        value[place] = copy.deepcopy(value[rng.choice(places)])
    else:
        value[place] = _edit(rng, value[place])
    return value


def _instead(rng: Random, value: Any) -> Any:
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randint(0, len(value))
        return value[:at] + text(rng) + value[at + rng.randint(0, 3) :]
    if isinstance(value, int | float) and rng.random() < 0.5:
        return rng.choice((-value, value + 1, value * 2, rng.choice(ODD_NUMBERS)))
    return _value(rng)


def _noise(rng: Random, there: bytes) -> bytes:
    kind = rng.randint(0, 4)
    if kind == 0:
        return b""
    if kind == 1:
        return rng.randbytes(rng.randint(0, 24))
    if kind == 2:
        return there * 2
    if kind == 3:
        return bytes(byte ^ (1 << rng.randint(0, 7)) for byte in there)
    odd = (b"\x00", b"\n", b"\xff\xfe", b'"', b"{", b"}", b",", b"9" * 5000, b"NaN", b"-", b"[" * 60, b'{"a":' * 40)
    return rng.choice((*odd * 8, b"[" * DEEP, b'{"a":' * 5000))
