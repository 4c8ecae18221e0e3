"""Numbers that are written in words: sixty thousand, 六万, 一千零一十六, 十八."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
ENGLISH: dict[str, int] = {word: value for value, word in enumerate(f"{_UNITS} seventeen eighteen nineteen".split())}
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
ENGLISH |= {word: 10 * value for value, word in enumerate(TENS, start=2)}
SCALES: dict[str, int] = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_WORD = "|".join(sorted({*ENGLISH, *SCALES}, key=len, reverse=True))
ENGLISH_NUMBER = re.compile(rf"(?<![\w-])(?:{_WORD})(?:(?:[ -]|,? and )(?:{_WORD})){{0,30}}(?![\w-])", re.IGNORECASE)

DIGITS: dict[str, int] = {digit: value for value, digit in enumerate("〇一二三四五六七八九")}
DIGITS |= {"零": 0, "両": 2, "两": 2, "兩": 2, "壱": 1, "弐": 2, "参": 3, "壹": 1, "贰": 2, "叁": 3}
SMALL: dict[str, int] = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
LARGE: dict[str, int] = {"万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8, "兆": 10**12}
_HAN = "".join({*DIGITS, *SMALL, *LARGE})
BEGINS_UNIT = r"(?<=千)[米克瓦卡焦伏赫帕]|(?<=百)(?:帕|分[之比点點])"
"""Behind a character that multiplies: with it, it is a unit (kilometre) or per cent, and multiplies nothing."""
HAN_NUMBER = re.compile(
    rf"(?!(?<![{_HAN}])十分(?![钟鐘間间]))[{_HAN}]{{1,40}}(?:[点點][{''.join(DIGITS)}]{{1,20}}(?![{_HAN}分刻]))?(?!{BEGINS_UNIT})"
)
HALF_MORE = r"(?:[个個年天倍杯斤块箱]|小时|時間)半(?![径徑圆圓数數价價])"
"""四个半小时 are 4.5 hours; 两半 are two halves."""

_PARTS = {"half": 2, "halve": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_COUNTED = rf"(\d{{1,6}}|[{_HAN}]{{1,12}})"
_HAN_FRACTION = re.compile(rf"(?!百分)(?<![\d.{_HAN}]){_COUNTED}分[之の]{_COUNTED}(?!倍)")
_ENGLISH_FRACTION = re.compile(
    rf"\b(?:(one)[ -](half|third|fourth|fifth|sixth|eighth|tenth)(?=\W*$|\s+of\b|[.,;])"
    rf"|({'|'.join(_UNITS.split()[2:10])})[ -]({'|'.join(_PARTS)})s\b)",
    re.IGNORECASE,
)
"""Three quarters are coins as often as not."""
_HALF_A = re.compile(r"\bhalf\s+a(?=\s+(?:hundred|thousand|million|billion)\b)", re.IGNORECASE)


def english_value(words: str) -> Fraction | None:
    """The value of English number words; None where they are no one number ("one two")."""
    total = group = 0
    least = 10**6  # the last word below a hundred: twenty-one goes down, one two does not
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "and":
            continue
        if word in ENGLISH:
            value = ENGLISH[word]
            if value >= least or (least < 20) or (least < 100 and value > 9):
                return None
            group, least = group + value, value or 1
        elif word == "hundred":
            group, least = (group or 1) * 100, 10**6
        else:
            total, group, least = total + (group or 1) * SCALES[word], 0, 10**6
    return Fraction(total + group)


def han_value(text: str) -> Fraction | None:
    """The value of a number in Han characters (千六十, 一千零六十, 二〇二四, 四点五); None where it is none."""
    text, _, places = text.replace("點", "点").partition("点")
    if places:
        before, behind = han_value(text), han_value(places)
        return None if before is None or behind is None else before + behind / 10 ** len(places)
    if not any(character in SMALL or character in LARGE for character in text):
        return Fraction(int("".join(str(DIGITS[character]) for character in text)))
    total = section = 0
    digit: int | None = None
    for character in text:
        if character in DIGITS:
            if digit:
                return None
            digit = DIGITS[character]
        elif character in SMALL:
            section, digit = section + (1 if digit is None else digit) * SMALL[character], None
        else:
            whole = section + (digit or 0)
            if not whole:
                return None
            total, section, digit = total + whole * LARGE[character], 0, None
    return Fraction(total + section + (digit or 0))


def with_fractions(text: str) -> str:
    """The text with fractions in words as 1/2: one half, two thirds, 二分之一, 2分の1. 百分之十八 is a percentage."""
    text = _HALF_A.sub("0.5", text)
    return _ENGLISH_FRACTION.sub(_english_fraction, _HAN_FRACTION.sub(_han_fraction, text))


def _han_fraction(found: re.Match[str]) -> str:
    below, above = (Fraction(part) if part.isdigit() else han_value(part) for part in found.groups())
    return found[0] if not below or above is None else f"{above}/{below}"


def _english_fraction(found: re.Match[str]) -> str:
    above, below = found[1] or found[3], found[2] or found[4]
    return f"{ENGLISH[above.lower()]}/{_PARTS[below.lower()]}"
