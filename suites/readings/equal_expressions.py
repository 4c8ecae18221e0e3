"""Whether two expressions are mathematically the same: our own reading of what math-verify does not tell, then it.

Runs in the worker process of math_grader.py, which bounds its time and memory.
"""

from __future__ import annotations

from typing import Any, Literal

from suites.readings.expressions import (
    exact_values,
    forms,
    in_base,
    interval,
    lone_letter,
    option_letter,
    shape,
    spelled,
)

Same = Literal["same", "other", "gold"]
"""gold: the gold answer cannot be read."""
CLOSE = 1e-6
"""Relative difference that a rounded decimal may have; math-verify's own is absolute, so that 10^-20 is 10^-21."""


def judge(gold: str, answer: str) -> Same:
    """Whether `answer` is `gold`; both in LaTeX or as text."""
    wanted, said = spelled(gold), spelled(answer)
    if not wanted or wanted == said:
        return "same" if wanted else "gold"
    readings, golds = forms(said), forms(wanted)
    for settled in (_letters(golds, readings), _bases(golds, readings), _values(golds, readings)):
        if settled is not None:
            return "same" if settled else "other"
    parsed = _parse(wanted) or _parse(gold)
    if not parsed:
        return "gold"
    if _same_interval(wanted, readings):
        return "same"
    same = not _shaped_otherwise(wanted, said) and any(_same(parsed, _parse(form)) for form in readings)
    return "same" if same else "other"


def _same_interval(wanted: str, readings: list[str]) -> bool:
    if all(interval(form) == form for form in (wanted, *readings)):
        return False
    as_interval = _parse(interval(wanted))
    return bool(as_interval) and any(_same(as_interval, _parse(interval(form))) for form in readings)


def _letters(golds: list[str], readings: list[str]) -> bool | None:
    wanted = next(filter(None, map(lone_letter, golds)), "")
    said = {lone_letter(form) or (option_letter(form) if wanted else "") for form in readings} - {""}
    return wanted in said if wanted and said else None


def _bases(golds: list[str], readings: list[str]) -> bool | None:
    """Equal digits in equal bases; where one has no base written, it is that of the question."""
    wanted, said = (next(filter(None, map(in_base, side)), None) for side in (golds, readings))
    if wanted is None or said is None or wanted[1] == said[1] is None:
        return None
    return wanted[0] == said[0] and (wanted[1] == said[1] or None in (wanted[1], said[1]))


def _values(golds: list[str], readings: list[str]) -> bool | None:
    wanted = next(filter(None, map(exact_values, golds)), [])
    said = next(filter(None, map(exact_values, readings)), [])
    if not wanted or not said:
        return None
    return any(value == other for value in wanted for other in said)


def _shaped_otherwise(wanted: str, said: str) -> bool:
    """Whether one is a tuple or interval, and the other a set, or a list without brackets, of as many parts."""
    one, other = shape(wanted), shape(said)
    ordered = [side.brackets[:1] in ("(", "[") and bool(side.brackets) for side in (one, other)]
    return one.parts == other.parts > 1 and ordered[0] != ordered[1]


def _same(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify  # type: ignore[import-untyped]

    return bool(answer) and bool(verify(gold, answer, timeout_seconds=None)) and _close(gold[0], answer[0])


def _close(gold: Any, answer: Any) -> bool:
    """False where both are numbers that differ by more than rounding."""
    try:
        a, b = complex(gold), complex(answer)
    except (TypeError, ValueError, AttributeError, OverflowError):
        return True
    if 0 < abs(a - 100 * b) <= CLOSE * abs(a) or 0 < abs(100 * a - b) <= CLOSE * abs(b):
        return True
    return abs(a - b) <= CLOSE * max(abs(a), abs(b)) or a == 100 * b or b == 100 * a


def _parse(expression: str) -> list[Any]:
    from math_verify import parse

    return list(parse(f"\\boxed{{{expression}}}", parsing_timeout=None))
