"""Inputs that are almost right, which go further into a reader than noise does: values and bytes with a few edits."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP = 100_000
"""Brackets within brackets: more than any parser's recursion takes."""

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "\x00",
            "..",
            "../../x",
            "/etc/passwd",
            "a" * 3000,
            "NaN",
            "-1",
            "1e999",
            "\ud800",
            "\u202e",
            "[x]*?",
            "__proto__",
        ]
    ),
)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, -(2**63), 2**64, 10**40, 10**4000]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.5, 1e308, -0.0, 1e-320]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
"""Any JSON value: of the wrong kind where one of them stands for another."""


@st.composite
def edited(draw: st.DrawFn, values: list[Any], most: int = 3) -> Any:
    """One of these JSON values with one to `most` edits anywhere in it."""
    value = copy.deepcopy(draw(st.sampled_from(values)))
    for _ in range(draw(st.integers(1, most))):
        value = _edit(draw, value)
    return value


def _edit(draw: st.DrawFn, value: Any) -> Any:
    """One edit: on the way down a container is entered, or the value that is there is changed."""
    places: list[Any] = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if not places or draw(st.integers(0, 4)) == 0:
        return _instead(draw, value)
    place = draw(st.sampled_from(places))
    what = draw(st.integers(0, 9))
    if what == 0:
        del value[place]
    elif what == 1 and isinstance(value, dict):
        value[draw(TEXTS)] = value.pop(place)
    elif what == 2 and isinstance(value, list):
        value.append(copy.deepcopy(value[place]))
    elif what == 3:
        value[place] = draw(VALUES)
    else:
        value[place] = _edit(draw, value[place])
    return value


def _instead(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, str) and draw(st.booleans()):
        at = draw(st.integers(0, len(value)))
        return value[:at] + draw(TEXTS) + value[at + draw(st.integers(0, 3)) :]
    if isinstance(value, int | float) and draw(st.booleans()):
        return -value if draw(st.booleans()) else draw(NUMBERS)
    return draw(VALUES)


def as_json(value: Any) -> str:
    """JSON of a value; lone surrogates are escaped."""
    return json.dumps(value, ensure_ascii=True)


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes], most: int = 4) -> bytes:
    """One of these byte strings with a few places cut, changed, doubled or filled with noise."""
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(1, most))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        what = draw(st.integers(0, 5))
        middle = {
            0: b"",
            1: draw(st.binary(max_size=24)),
            2: data[at : at + length] * 2,
            3: bytes(255 - byte for byte in data[at : at + length]),
            4: draw(
                st.sampled_from([b"\x00", b"\n", b"\xff\xfe", b'"', b"[" * DEEP, b'{"a":' * 5000, b"9" * 5000, b"NaN"])
            ),
            5: b"",
        }[what]
        data = data[:at] + middle + (b"" if what == 5 else data[at + length :])
    return data
