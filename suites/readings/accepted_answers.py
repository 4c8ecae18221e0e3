"""Whether a text says an accepted answer: a number as a whole number, a word as whole words, in any usual spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex  # type: ignore[import-untyped]

from suites.readings.characters import normalised, one_spelling, plain_quotes
from suites.readings.number_words import ENGLISH_NUMBER, SCALES, TENS, english_value
from suites.readings.numerals import find_numbers, find_words, one_number, plain_form, plain_number

# Sorting a long row of combining marks takes the normalization of Python 3.11 quadratic time; no word has eight.
_MANY_MARKS = regex.compile(r"([\p{M}ﾞﾟ]{8})[\p{M}ﾞﾟ]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:[, '][0-9]{3})+(?![0-9])")
_ORDINAL = re.compile(r"[snrt][tdh]\b|分[之の]", re.IGNORECASE)
"""5th; 6万分の1."""
_HYPHENS = re.compile(r"(?<=\w)(?:-| - )(?=\w)")
_MARKUP = re.compile(r"[*`]+|[.,](?=\s|$)|(?<=\d) (?=[%°])")
"""What one writes and another does not: bold type, the point of Dr., the comma of July 4, 1776, the blank of 5 °C."""
_IN_QUOTES = re.compile(r"\"([^\"]+)\"")
_NUMBER_BEFORE = rf"(?<!\b(?:{'|'.join(TENS)}|(?:{'|'.join(SCALES)})(?: and)?) )"
_NUMBER_AFTER = rf"(?! (?:{'|'.join(SCALES)})\b)"
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|(?:is|was|are|were)n['’]t|rather than|instead of)(?: (?:the|an?|in|by|at))?"
    r"|不是|并非|並非|而非)[ \"'「『]{0,3}$",
    re.IGNORECASE,
)
_NOT_ENDS = re.compile(r"(\bnot|n't)[.,](?=\s)")
"""It is not. Paris is."""
_DENIED_AFTER = re.compile(r"[ \"'」』]{0,3}(?:では|じゃ)(?:な|あり)")
_BLANKS = re.compile(r"\s+")
_DECIMAL_COMMA = re.compile(r"[0-9]+,[0-9]{1,2}")
_WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{_WITHOUT_SPACES}]]"
_STARTS_WORD, _ENDS_WORD = (regex.compile(p, regex.VERSION1) for p in (rf"\A{_LETTER}", rf"{_LETTER}\Z"))


def folded(text: str) -> str:
    """The text in one spelling: small letters, no accents, full-width and half-width forms, quotes and dashes plain.

    5² is 5^2 and not 52.
    """
    text = unicodedata.normalize("NFC", _MANY_MARKS.sub(r"\1", text))
    text = plain_quotes(one_spelling(text)).replace("{,}", ",").replace("\\,", "")
    text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))  # the marks of kana are others
    return unicodedata.normalize("NFC", text).casefold()


def numbers(text: str) -> list[str]:
    """The numbers of a text in plain form: 1,016 and １０１６ and 1016.0 are "1016", so are 千十六 and "1 016".

    Nothing is worked out: 127 × 8 are two numbers. Of 3,5 both readings are there.
    """
    plain = normalised(text)
    found = [
        (n.start, n.value, plain[n.start : n.end])
        for n in find_numbers(plain, arithmetic=False)
        if not _ORDINAL.match(plain, n.end) and not _denied(plain, n.start, n.end)
    ]
    found += [(n.start, n.value, "") for n in find_words(plain) if n.end - n.start > 1]
    said: list[str] = []
    for _, value, written in sorted(found, key=lambda one: one[0]):
        if value is not None:
            said.append(plain_form(value))
        if _DECIMAL_COMMA.fullmatch(written):
            said += [plain_number(part) for part in written.split(",")]
    return said


def first_accepted(text: str, accepted: Sequence[str]) -> str | None:
    """The first of the accepted answers that the text says, None when it says none."""
    said, found = _comparable(text), set(numbers(text))
    return next((answer for answer in accepted if _says(said, found, answer)), None)


def share_said(text: str, references: Sequence[str]) -> float:
    """Share of the references that the text says."""
    said, found = _comparable(text), set(numbers(text))
    return sum(_says(said, found, reference) for reference in references) / len(references)


def _says(said: str, found: set[str], answer: str) -> bool:
    """Digits are compared as whole numbers (1016 is not in 21016), words as whole words; Han and kana, which are
    written without spaces, as a substring."""
    number = one_number(answer)
    if number and number.simple and number.value is not None:  # 1990-1995 is a text
        return plain_form(number.value) in found
    wanted = _comparable(answer)
    if quoted := _IN_QUOTES.fullmatch(wanted):
        wanted = quoted[1]
    before = rf"(?<!{_LETTER})" if _STARTS_WORD.search(wanted) else ""
    after = rf"(?!{_LETTER})" if _ENDS_WORD.search(wanted) else ""
    if ENGLISH_NUMBER.fullmatch(wanted) and (value := english_value(wanted)) is not None:
        if plain_form(value) in found:
            return True
        before, after = _NUMBER_BEFORE + before, after + _NUMBER_AFTER  # three is not in twenty-three
    places = regex.finditer(before + regex.escape(wanted) + after, said, regex.VERSION1) if wanted else ()
    return any(not _denied(said, place.start(), place.end()) for place in places)


def _denied(text: str, start: int, end: int) -> bool:
    """Whether what stands there is denied: it was not Paris, 北岳ではない."""
    return bool(_DENIED_BEFORE.search(text, max(0, start - 20), start) or _DENIED_AFTER.match(text, end))


def _comparable(text: str) -> str:
    """The folded text without separators of numbers and markup, hyphens and line ends as blanks, one blank at most."""
    text = _GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]), _NOT_ENDS.sub(r"\1;", folded(text)))
    return _BLANKS.sub(" ", _MARKUP.sub("", _HYPHENS.sub(" ", text))).strip()
