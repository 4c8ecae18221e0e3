"""How an answer ended: did its thinking close, does it repeat itself?"""

from __future__ import annotations

import zlib

import numpy as np

from harness.endpoint.answers import Completion

TAIL = 4000
"""Characters at the end of an answer that are looked at: a loop does not stop by itself."""
LEAST_LOOP = 400
"""Characters that repeat before it is called a loop; a table or a list of numbers stays below."""
RATIO = 12.0
"""Compression of the tail from which on it says nothing new; prose has 2 to 3, code and JSON up to 10. A long run of
records that differ by a number alone is a loop too: it is one when a model counts, and the table that it may be is
there for both roles."""

LONGEST_UNIT = 200
TIMES = 5


def endings(completion: Completion) -> dict[str, float]:
    """How an answer ended, 0 or 1 each, as metrics of its sample; `null` and `tool_calls` only where they are so."""
    whole = completion.reasoning + completion.text
    found = {
        "unterminated": float(unterminated(completion)),
        "looped": float(completion.finish_reason == "repetition" or looped(whole)),
    }
    if completion.null:
        found["null"] = 1.0
    if completion.tool_calls:
        found["tool_calls"] = float(len(completion.tool_calls))
    return found


def unterminated(completion: Completion) -> bool:
    """Whether thinking was opened and never closed: by the server's parser (reasoning, no answer) or by its tags."""
    text = completion.text
    if completion.reasoning:
        return not text.strip() and not completion.tool_calls and completion.finish_reason != "tool_calls"
    return text.rfind("<think>") > text.rfind("</think>")


def looped(text: str) -> bool:
    """Whether a text ends in a loop: one unit of up to 200 characters again and again, or a tail without news."""
    tail = text.rstrip()[-TAIL:]
    if len(text) - len(text.rstrip()) >= LEAST_LOOP:  # nothing but blanks
        return True
    codes = np.frombuffer(tail.encode("utf-32-le", "replace"), dtype=np.uint32)
    for unit in range(1, min(LONGEST_UNIT, codes.size - 1) + 1):
        differs = np.flatnonzero(codes[unit:] != codes[:-unit])
        repeated = codes.size - (int(differs[-1]) + 1 if differs.size else 0)
        if repeated >= max(LEAST_LOOP, TIMES * unit):
            return True
    data = tail.encode("utf-8", "replace")
    return len(tail) >= TAIL and len(data) / len(zlib.compress(data, 6)) > RATIO
