"""The plain form of a number, in which all numbers of answers are compared."""

from __future__ import annotations


def plain_digits(digits: str) -> str:
    """`digits` (ASCII, without a sign) in plain form: 1,016 and 01016 and 1016.0 are "1016", .50 is "0.5"."""
    whole, _, part = digits.replace(",", "").partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    return f"{whole}.{part}" if part else whole
