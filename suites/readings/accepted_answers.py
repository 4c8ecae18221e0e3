"""Whether a text says an accepted answer: a number as a whole number, a word as whole words, in any usual spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex  # type: ignore[import-untyped]

from suites.readings.plain_numbers import plain_digits

# Sorting a long row of combining marks takes the normalization of Python 3.11 quadratic time; no word has eight.
_MANY_MARKS = regex.compile(r"([\p{M}ﾞﾟ]{8})[\p{M}ﾞﾟ]+")
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_COMMAS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_NUMBER = re.compile(r"(?:(?<![0-9a-z)])-)?(?<![a-z0-9.])[0-9]+(?:\.[0-9]+)?")
_LETTER = r"[a-z0-9]"


def folded(text: str) -> str:
    """The text in one spelling: NFKC (full-width digits, half-width kana), small letters, no accents, plain minus.

    Powers are taken out, so that 5² is not 52.
    """
    text = _SUPERSCRIPTS.sub(" ", _MANY_MARKS.sub(r"\1", text)).replace("{,}", ",").replace("\\,", "")
    text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))  # the marks of kana are others
    text = unicodedata.normalize("NFC", text).casefold()
    return text.replace("\u2212", "-").replace("\u2019", "'")


def numbers(text: str) -> list[str]:
    """The numbers of a text in plain form: 1,016 and １０１６ and 1016.0 are "1016"."""
    plain = _COMMAS.sub(lambda found: found[0].replace(",", ""), folded(text))
    return [_signed(found) for found in _NUMBER.findall(plain)]


def first_accepted(text: str, accepted: Sequence[str]) -> str | None:
    """The first of the accepted answers that the text says, None when it says none.

    Digits are compared as whole numbers (1016 is not in 21016), Latin words as whole words; Han and kana, which are
    written without spaces, as a substring.
    """
    said, found = folded(text), set(numbers(text))
    for answer in accepted:
        wanted = folded(answer)
        if _NUMBER.fullmatch(wanted):
            if _signed(wanted) in found:
                return answer
            continue
        before = rf"(?<!{_LETTER})" if re.match(_LETTER, wanted) else ""
        after = rf"(?!{_LETTER})" if re.match(_LETTER, wanted[-1:]) else ""
        if re.search(before + re.escape(wanted) + after, said):
            return answer
    return None


def _signed(number: str) -> str:
    return f"-{plain_digits(number[1:])}" if number.startswith("-") else plain_digits(number)
