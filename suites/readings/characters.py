r"""One spelling for characters that mean the same: digits of all scripts, dashes, spaces, quotes, full-width forms.

Unlike NFKC, which makes 52 of 5² and 181⁄2 of 18½, nothing here changes the value of a number.
"""

from __future__ import annotations

import re
import unicodedata

_DASHES = "‐‑‒–−﹣－⁻"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_NOTHING = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_SINGLE, _DOUBLE = "‘’‚‛′`´ʻʼ＇", "“”„‟″＂«»"
_KEPT = "，！？；：（）"
"""Full-width punctuation that ends or divides sentences of Japanese and Chinese."""

_TABLE: dict[int, str] = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code) not in _KEPT}
_TABLE |= {ord(dash): "-" for dash in _DASHES} | {ord(space): " " for space in _SPACES}
_TABLE |= {ord(nothing): "" for nothing in _NOTHING}
_TABLE |= {0x066A: "%", 0x066B: ".", 0x066C: ",", 0xFF5E: "〜"}  # of Arabic numbers; a range
_TABLE |= {0xFFE5: "¥", 0xFF04: "$", 0x2044: "/", 0x2215: "/", 0x22C5: "·", 0x2217: "*", 0x2715: "×", 0x2716: "×"}
_QUOTES = {ord(quote): "'" for quote in _SINGLE} | {ord(quote): '"' for quote in _DOUBLE}
_OTHER_DIGITS = re.compile(r"[^\x00-\x7f\W]")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)，(?=\d{3}(?!\d))")
_LONG_DASH = re.compile(r"(?<![^\s(（\[{:：=])[—―ー](?=[\d$€£¥.])")
_MINUS = re.compile(r"(?<![\w)\]}%])(?<![\w)\]}%]\s)−\s(?=[\d$€£¥.])")
"""− 18 is minus 18; - 18 may begin an item of a list."""
_RAISED = re.compile(r"(?<=[\d)\]}A-Za-z])[⁻⁺]?[⁰¹²³⁴-⁹]+")
_RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_VULGAR = re.compile(r"(\d?)([¼½¾⅐-⅞])")
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr?)(?![A-Za-z])|\\!"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;: ]|(?<=\d)~(?=\d{3}(?!\d))"), " "),
    (re.compile(r"\\([$%#&])"), r"\1"),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), "×"),
    (re.compile(r"\\(?:rm|bf|it|sf)\s"), ""),
    (re.compile(r"\\div(?![A-Za-z])"), "÷"),
    (re.compile(r"\\pm(?![A-Za-z])\s?"), "±"),
    (re.compile(r"\{\s?([^{}\\]{1,30})\\over(?![A-Za-z])([^{}\\]{1,30})\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it|sf|tt)|mbox|textnormal)\s{0,3}\{([^{}]{0,200})\}"), r"\1"),
    (re.compile(r"\^\{\s{0,3}([-+]?\d{1,9})\s{0,3}\}"), r"^\1"),
    (re.compile(r"(?<![\w*.])(\d{1,6})\*\*(?=[-+]?\d)"), r"\1^"),  # 10**3
    (re.compile(r"\*\*|__"), ""),
)


def one_spelling(text: str) -> str:
    """The text with ASCII digits, one minus, one space; 10³ is 10^3, 2½ is 2 1/2. Lengths may change."""
    if text.isascii():
        return text
    text = _VULGAR.sub(
        _fraction, _RAISED.sub(lambda found: "^" + found[0].translate(_RAISED_DIGITS), _MINUS.sub("-", text))
    )
    text = _OTHER_DIGITS.sub(_ascii_digit, text.translate(_TABLE))
    return _LONG_DASH.sub("-", _BETWEEN_DIGITS.sub(",", text))


def normalised(text: str) -> str:
    r"""The text in one spelling, LaTeX of numbers in plain form; what numerals.py reads."""
    text = one_spelling(text)
    if any(mark in text for mark in "\\{*_~^"):
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text


def plain_quotes(text: str) -> str:
    """The text with straight quotes in the place of typographic ones."""
    return text.translate(_QUOTES)


def _ascii_digit(found: re.Match[str]) -> str:
    value = unicodedata.decimal(found[0], None)
    return found[0] if value is None else str(value)


def _fraction(found: re.Match[str]) -> str:
    value = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    return f"{found[1]} {value}" if found[1] else value
