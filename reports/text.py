"""How numbers and other people's text are written: one place, so that every report says the same."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from harness.contract.metrics import Unit
from harness.judging.results import show

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)

ABSENT = "–"
"""Stands where there is no number."""


def visible(text: str) -> str:
    """Text in which nothing hides: control, direction and lone surrogate characters become signs one can see.

    The result can be written as UTF-8 and as XML 1.0, and cannot turn the text around it from right to left.
    """
    if text.replace("\n", " ").replace("\t", " ").isprintable():  # nothing of _HIDDEN is: most texts need no search
        return text
    return _HIDDEN.sub(_sign, text.replace("\r\n", "\n"))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def shorten(text: str, limit: int) -> str:
    """At most about `limit` characters: beginning and end, and between them how much is left out."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    head = limit - tail
    return f"{text[:head]}\n[… {len(text) - limit:,} characters left out …]\n{text[-tail:]}"


def one_line(text: str, limit: int = 300) -> str:
    """Visible text on one line, cut at `limit` characters."""
    line = " ".join(visible(text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def short_hash(sha256: str) -> str:
    """The first twelve digits of a hash."""
    return sha256[:12]


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # + 0.0: there is no -0.0


def percent(value: float | None, digits: int = 1) -> str:
    """0.123 -> 12.3 %."""
    return ABSENT if value is None or not math.isfinite(value) else f"{number(100 * value, digits)} %"


def points(value: float | None) -> str:
    """A difference of shares in points, with its sign: -0.012 -> −1.2."""
    return ABSENT if value is None or not math.isfinite(value) else signed(100 * value, 1)


def signed(value: float, digits: int) -> str:
    """A number with a real minus or a plus; zero has neither."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"−{text}" if value < 0 else f"+{text}"


_MINUS = re.compile(r"(?<![\w.\-])-(?=[\d.])")


def worded(text: str) -> str:
    """A sentence of the verdict with real minus signs, as all numbers of a report have: "-5.7 points" -> "−5.7"."""
    return _MINUS.sub("−", text)


def quantity(unit: Unit, value: float | None) -> str:
    """A value of a check with its unit, worded as the verdict's reasons are; None is a bound that does not exist."""
    if value is None:
        return "unbounded"
    said = show(unit, value)
    return said.replace("-", "−", 1) if any(digit in said for digit in "123456789") else said.removeprefix("-")


def bare(unit: Unit, value: float | None) -> str:
    """The same without its unit."""
    return quantity(unit, value).partition(" ")[0]


def unit_word(unit: Unit) -> str:
    """The unit by itself; empty for ratios."""
    return quantity(unit, 0.0).partition(" ")[2]


def size(count: int) -> str:
    """Bytes as a person says them: 1.2 GB."""
    amount = float(count)
    for suffix in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {suffix}" if suffix == "B" else f"{amount:.3g} {suffix}"
        amount /= 1000
    return f"{amount:.3g} TB"


def parameters(count: int) -> str:
    """Parameters as a person says them: 494 M, 7.6 B."""
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count:,}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 3.2 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, word: str) -> str:
    """1 check, 2 checks."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def date(moment: str) -> str:
    """An ISO date as a person reads it, in UTC; anything else as it is."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    if found.tzinfo is not None:
        found = found.astimezone(UTC)
    return f"{found.day} {found:%B %Y, %H:%M}{' UTC' if found.tzinfo else ''}"
