r"""The one grammar of numbers: every number of an answer is read here, to its end.

`The answer is 18 × 10^3` says 18000 and `18/7` says 18/7: what stands behind a number and changes it belongs to it.
Read are signs (all dashes, "minus", マイナス, 负), thousands in every notation, decimals, exponents, fractions, LaTeX,
sums and products, percent, and words and letters that multiply (k, million, 万, 億, 亿, 千).

    number  = sum;  sum = product (("+" | "-") product)*;  product = power (("×" | "/") power)*
    power   = sign? ( "(" sum ")" | "\frac" arguments | digits multiplier? ) ("^" integer)?
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

from suites.readings.characters import normalised
from suites.readings.number_words import (
    BEGINS_UNIT,
    ENGLISH_NUMBER,
    HALF_MORE,
    HAN_NUMBER,
    LARGE,
    SMALL,
    english_value,
    han_value,
)

MOST_DIGITS = 300
"""Longer numbers, and powers of ten beyond, have no value: no answer is that large, and their arithmetic is slow."""
DEEPEST = 8
"""Brackets within brackets."""


class Found(NamedTuple):
    """A number in a text."""

    start: int
    end: int
    value: Fraction | None
    """None: what stands here is no one number (18x, 18π, 18_16)."""
    simple: bool
    """Whether it is written as one number, and not as a sum, product or quotient to be worked out."""
    percent: bool


_DIGITS = re.compile(
    r"(?:\d{1,3}(?:,\d{3})+(?!\d|,\d)(?:\.\d+)?"  # 1,234,567.5
    r"|\d{1,2}(?:,\d\d)+,\d{3}(?!\d|,\d)(?:\.\d+)?"  # 12,34,567
    r"|\d{1,3}(?:\.\d{3}){2,}(?!\d|\.\d)(?:,\d+)?"  # 1.234.567
    r"|\d{1,3}(?:\.\d{3})+,\d{1,2}(?![\d,])"  # 1.234,50
    r"|\d{1,3}(?: \d{3})+(?! ?\d)(?:\.\d+|,\d{1,2}(?![\d,]))?(?!\d)"  # 1 234 567
    r"|\d{1,3}(?:['’]\d{3})+(?!\d)(?:\.\d+)?"
    r"|\d{1,3}(?:_\d{3})+(?!\d)"
    r"|(?<!\d,)\d+,\d{1,2}(?![\d,]|\.\d)"  # 18,5
    r"|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?![\d.]))?"
)
_SEPARATED = re.compile(r"[ ,'’_]")
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}|\d{1,3}(?: \d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3})+,\d+")
_POINTS = re.compile(r"\d{1,3}(?:\.\d{3}){2,}")
_MIXED = re.compile(
    r" (?:and )?(\d{1,2})/(\d{1,3})(?![\d/.])| ?\\frac ?\{(\d{1,2})\} ?\{(\d{1,3})\}"
    rf"| ?\\frac ?(\d) ?(\d)(?!\d)| and a half\b|{HALF_MORE}"
)
_WORDS = {"hundred": 2, "thousand": 3, "million": 6, "mn": 6, "billion": 9, "bn": 9, "trillion": 12, "quadrillion": 15}
_WORDS |= {"lakh": 5, "crore": 7}
_WORDS |= {
    "millionen": 6,
    "millones": 6,
    "milhões": 6,
    "milioni": 6,
    "mio": 6,
    "tausend": 3,
    "milliarden": 9,
    "milliard": 9,
    "mil": 3,
    "тыс": 3,
    "миллион": 6,
    "млн": 6,
    "миллиард": 9,
    "млрд": 9,
    "หมื่น": 4,
    "แสน": 5,
    "ล้าน": 6,
    "হাজার": 3,
    "লাখ": 5,
    "কোটি": 7,
}
_SCALE = re.compile(
    rf"[ -]?({'|'.join(_WORDS)})s?(?![A-Za-z])|([kK])(?![A-Za-z0-9])| (k)(?![A-Za-z0-9])", re.IGNORECASE
)
_SMALLER = re.compile(r",? (?:and )?(\d{1,3}) (hundred|thousand|million)(?![A-Za-z])", re.IGNORECASE)
_MILLIONS = re.compile(r"([MBm])(?![A-Za-z0-9])(?=( (?:dollars|euros|pounds))?)")
_HAN_SCALES = {character: Fraction(value) for character, value in (SMALL | LARGE | {"京": 10**16}).items()}
_HAN_SCALE = re.compile(rf" ?([{''.join(_HAN_SCALES)}])(?!{BEGINS_UNIT}|(?<=京)[都城王阪])")
"""5千米 are five kilometres, not five thousand; 5万米 are fifty thousand metres."""
_MORE = re.compile(r" ?(\d{1,4})(?![\d,]|\.\d)")
_PERCENT = re.compile(r" ?(?:%|percent\b|per cent\b|パーセント|个百分点)", re.IGNORECASE)
_CURRENCY = r"(?:(?:US|A|C|HK|NT)?[$€£¥₩₹]|(?:USD|EUR|GBP|RMB|Rs\.?) )"
_SIGN = re.compile(
    rf"({_CURRENCY})?\s?(?:(-)(?=[\d.$€£¥(\\])"
    rf"|(minus |negative |マイナス|负|負|零下|氷点下)|\+(?=\d))?({_CURRENCY})?\s?"
)
_HALF_MORE = re.compile(HALF_MORE)
_AND_A_HALF = re.compile(r" and (?:a|one) half\b", re.IGNORECASE)
_SIGN_WORD = re.compile(r"(?:\b(?:minus|negative) |マイナス|负|負|零下|氷点下)$", re.IGNORECASE)
_POWER = re.compile(r"\^\(?([-+]?\d{1,4})\)?|()(?: squared| to the power of 2)\b|( cubed)\b")
_TIMES = re.compile(r" ?(?:[×·*]| x | times (?=[\d(])|(?<=\d)x(?=\d)|乘以?|かける) ?")
_OVER = re.compile(r" ?(?:/|÷|除以|割る| over | divided by ) ?")
_PLUS = re.compile(r" ?(?:(\+|加|足す)|(?:-(?= )|(?<! )-|减|減|引く)) ?")
_FRAC = re.compile(r"\\frac\s{0,3}(?:(\d)\s{0,3}(\d)(?!\d)|\{)")
_ROOT = re.compile(r"(?:√|\\sqrt) ?(?=[\d({])")
_NESTED = re.compile(r"\{((?:[^{}]|\{[^{}]{0,60}\}){1,60})\}")
_BRACED = re.compile(r"\{([^{}]{1,60})\}")
_SPOILT = re.compile(
    r"(?: : ?|:)\d+|‰| 0\d+|\s?±| ?[-+×/] ?[xyzn](?![A-Za-z0-9])"
    r"|_\{?(?!\{?10\}?\b)\d|\\(?:pi|sqrt|infty)(?![A-Za-z])|[πi√](?![A-Za-z])"
    r"|[abejqrwxyzn](?![A-Za-z0-9])"
)
_STARTS = re.compile(
    rf"(?<![A-Za-z0-9_^\\])(?<!(?<![A-Za-z])\.)(?:{_CURRENCY})?"
    rf"(?:-\s?|minus |negative |マイナス|负|負|零下|氷点下)?(?:{_CURRENCY})?"
    r"(?:[\d]|\.\d|\\frac(?![A-Za-z])|(?:√|\\sqrt) ?(?=[\d({])|\( ?(?=[-\d(\\]))"
)


def find_numbers(text: str, *, arithmetic: bool = True) -> Iterator[Found]:
    """The numbers of a `normalised` text, from left to right, each to its end; digits inside words (H2O) are none.

    Without `arithmetic` the numbers that are written there, and nothing is worked out but powers of ten: 127 × 8 are
    two numbers.
    """
    position, read = 0, _sum if arithmetic else _scientific
    while found := _STARTS.search(text, position):
        number = read(text, found.start(), 0)
        if number is None or number.end <= found.start():
            position = found.start() + 1
            continue
        spoilt = _SPOILT.match(text, number.end)
        either = text.startswith("±", max(0, found.start() - 1))
        if spoilt or either:
            number = number._replace(end=spoilt.end() if spoilt else number.end, value=None)
        yield number._replace(start=found.start() - either)
        position = max(number.end, found.start() + 1)


def find_words(text: str) -> Iterator[Found]:
    """Numbers of a `normalised` text that are written in words alone, English and Han."""
    for pattern, value in ((ENGLISH_NUMBER, english_value), (HAN_NUMBER, han_value)):
        end = 0
        for found in pattern.finditer(text):
            sign = _SIGN_WORD.search(text, max(0, found.start() - 10), found.start())
            if sign and sign.start() - end == 1 < end:  # ten minus five
                sign = None
            half = (_AND_A_HALF if value is english_value else _HALF_MORE).match(text, found.end())
            if (number := value(found[0])) is not None:
                number += Fraction(1, 2) if half else 0
                start = sign.start() if sign else found.start()
                yield Found(start, half.end() if half else found.end(), -number if sign else number, True, False)
            end = found.end()


def plain_form(value: Fraction) -> str:
    """A value as text: a decimal where there is an exact one ("-7", "0.5"), else a fraction ("18/7")."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def one_number(text: str) -> Found | None:
    """The number that a text is, with nothing beside it but blanks; None when it is none or more."""
    text = normalised(text).strip()
    found = next(find_numbers(text), None)
    return found if found and (found.start, found.end) == (0, len(text)) and found.value is not None else None


def plain_number(text: str) -> str:
    """`text` in plain form when it is one number and nothing else, otherwise ""."""
    found = one_number(text)
    return plain_form(found.value) if found and found.value is not None else ""


# -- the grammar: each returns the number that begins at `at`, or None -----------------------------------------------


def _scientific(text: str, at: int, _: int) -> Found | None:
    number = _power(text, at, DEEPEST)
    times = _TIMES.match(text, number.end) if number else None
    if number and times and re.compile(r"10\^").match(text, times.end()):
        power = _power(text, times.end(), DEEPEST)
        return _joined(number, power, "×") if power else number
    return number


def _sum(text: str, at: int, depth: int) -> Found | None:
    number = _product(text, at, depth)
    while number and (sign := _PLUS.match(text, number.end)):
        following = _product(text, sign.end(), depth)
        if following is None or text[sign.end() : sign.end() + 1] in "-+":
            break
        number = _joined(number, following, "+" if sign[1] else "-")
    return number


def _product(text: str, at: int, depth: int) -> Found | None:
    number = _power(text, at, depth)
    while number:
        times = _TIMES.match(text, number.end)
        sign = times or _OVER.match(text, number.end)
        following = _power(text, sign.end(), depth) if sign else None
        if following is None:
            break
        number = _joined(number, following, "×" if times else "/")
    return number


def _power(text: str, at: int, depth: int) -> Found | None:
    sign = _SIGN.match(text, at)
    assert sign is not None  # it matches the empty text too
    number = _atom(text, sign.end(), depth, currency=bool(sign[1] or sign[4]))
    if number is None:
        return None
    value, end = number.value, number.end
    if power := _POWER.match(text, end):
        value, end = _raised(value, int(power[1] or (3 if power[3] else 2))), power.end()
        number = number._replace(simple=False)
    if sign[2] or sign[3]:
        value = None if value is None else -value
    return number._replace(start=at, end=end, value=value)


def _atom(text: str, at: int, depth: int, *, currency: bool) -> Found | None:
    if depth < DEEPEST and text.startswith("(", at):
        inside = _sum(text, at + 1 + text.startswith(" ", at + 1), depth + 1)
        end = inside.end + text.startswith(" ", inside.end) if inside else 0
        if inside and text.startswith(")", end):
            return inside._replace(start=at, end=end + 1)
        return None
    if fraction := _FRAC.match(text, at):
        return _latex_fraction(text, at, fraction, depth)
    root = _ROOT.match(text, at)
    digits = _DIGITS.match(text, at)
    if root or digits is None:
        return _square_root(text, at, root.end(), depth) if root else None
    value, end = _value(digits[0]), digits.end()
    if value is None:
        return Found(at, end, None, True, False)
    if mixed := _MIXED.match(text, end):
        above_below = [int(group) for group in mixed.groups() if group]
        part = _part(*above_below) if above_below else Fraction(1, 2)
        if part is not None and value.denominator == 1:
            value, end = value + part, mixed.end()
    value, end = _scaled(text, value, end, currency)
    percent = _PERCENT.match(text, end)
    return Found(at, percent.end() if percent else end, value, True, bool(percent))


def _scaled(text: str, value: Fraction, end: int, currency: bool) -> tuple[Fraction, int]:
    """The value with what multiplies it: 18k, 1.5 million, 3万5000, 1億2000万."""
    if found := _SCALE.match(text, end):
        power = _WORDS[found[1].lower()] if found[1] else 3
        value, end = value * 10**power, found.end()
        while (more := _SMALLER.match(text, end)) and _WORDS[more[2].lower()] < power:  # 1 million 200 thousand
            power, end = _WORDS[more[2].lower()], more.end()
            value += int(more[1]) * 10**power
        return value, end
    if (found := _MILLIONS.match(text, end)) and (currency or found[2] or found[1] == "M"):
        return value * (10**9 if found[1] == "B" else 10**6), found.end()
    if not _HAN_SCALE.match(text, end):
        return value, end
    total, section = Fraction(0), value
    last = Fraction(10**16)
    while found := _HAN_SCALE.match(text, end):
        scale = _HAN_SCALES[found[1]]
        end = found.end()
        if scale >= 10**4:
            total, section = (total + section) * scale if last < scale else total + section * scale, Fraction(0)
        else:
            total, section = total + section * scale, Fraction(0)
        last = scale
        more = _MORE.match(text, end)
        if more is None and _HAN_SCALE.match(text, end):  # 百万
            section = Fraction(0)
            continue
        if more is None or Fraction(more[1]) >= scale:
            break
        section, end = Fraction(more[1]), more.end()
    return total + section, end


def _latex_fraction(text: str, at: int, found: re.Match[str], depth: int) -> Found | None:
    if found[1]:
        part = _quotient(Fraction(found[1]), Fraction(found[2]))
        return Found(at, found.end(), part, False, False)
    above = _BRACED.match(text, found.end() - 1)
    below = _BRACED.match(text, above.end()) if above else None
    if above is None or below is None or depth >= DEEPEST:
        return None
    parts = [_sum(group[1].strip(), 0, depth + 1) for group in (above, below)]
    whole = all(p and p.end == len(group[1].strip()) for p, group in zip(parts, (above, below), strict=True))
    value = _quotient(*(p.value if p else None for p in parts)) if whole else None
    return Found(at, below.end(), value, False, False)


def _square_root(text: str, at: int, inside: int, depth: int) -> Found | None:
    """√324 is 18; a root that is no fraction (√18) is no plain number."""
    if braced := _NESTED.match(text, inside):
        number, end = _sum(braced[1].strip(), 0, depth + 1) if depth < DEEPEST else None, braced.end()
        whole = number is not None and number.end == len(braced[1].strip())
    else:
        number = _atom(text, inside, depth, currency=False)
        whole, end = number is not None, number.end if number else inside
    if number is None:
        return None
    value = number.value if whole else None
    if value is not None:
        above, below = isqrt(max(value.numerator, 0)), isqrt(value.denominator)
        value = Fraction(above, below) if Fraction(above, below) ** 2 == value else None
    return Found(at, end, value, False, False)


def _value(digits: str) -> Fraction | None:
    if len(digits) > MOST_DIGITS:
        return None
    if digits.isdigit():
        return Fraction(int(digits))
    mantissa, _, exponent = digits.lower().partition("e")
    if (_DECIMAL_COMMA.fullmatch(mantissa) and not re.fullmatch(r"\d{1,3}(?:,\d{3})+", mantissa)) or _POINTS.fullmatch(
        mantissa.split(",")[0]
    ):
        mantissa = mantissa.replace(".", "").replace(",", ".")
    mantissa = _SEPARATED.sub("", mantissa)
    power = int(exponent or 0)
    return Fraction(mantissa) * Fraction(10) ** power if abs(power) <= MOST_DIGITS else None


def _joined(left: Found, right: Found, sign: str) -> Found:
    a, b = left.value, right.value
    if a is None or b is None or max(_size(a), _size(b)) > 4 * MOST_DIGITS:
        value = None
    elif sign == "×":
        value = a * b
    elif sign == "/":
        value = _quotient(a, b)
    else:
        value = a + b if sign == "+" else a - b
    return Found(left.start, right.end, value, False, left.percent or right.percent)


def _raised(value: Fraction | None, power: int) -> Fraction | None:
    if value is None or abs(power) * max(_size(value), 1) > 4 * MOST_DIGITS or (value == 0 and power <= 0):
        return None
    return value**power


def _size(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _quotient(above: Fraction | None, below: Fraction | None) -> Fraction | None:
    return None if above is None or not below else above / below


def _part(above: int, below: int) -> Fraction | None:
    return Fraction(above, below) if 0 < above < below else None
