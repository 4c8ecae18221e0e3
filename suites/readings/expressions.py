r"""Mathematical expressions in one spelling, before math-verify reads them, and what it does not tell apart.

math-verify takes ５, √2, 90° and `5個` for unreadable, 2 \le x < 5 for no interval, 3,4 for (3,4), 10^{-21} for
10^{-20} and any base for any other; each is settled here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from suites.readings.characters import one_spelling
from suites.readings.number_words import ENGLISH_NUMBER, HAN_NUMBER, english_value, han_value
from suites.readings.numerals import one_number

_SIGNS = {
    "（": "(",
    "）": ")",
    "，": ",",
    "、": ",",
    "。": "",
    "：": ":",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "˚": r"^\circ ",
}
_COMMANDS = "π pi ∞ infty ≤ le ≦ le ⩽ le ≥ ge ≧ ge ⩾ ge ≠ ne × times · cdot ÷ div ∪ cup ∩ cap ∈ in ± pm θ theta α alpha"
_COMMANDS += " β beta ∅ emptyset"
_SIGNS |= {sign: f"\\{name} " for sign, name in zip(_COMMANDS.split()[::2], _COMMANDS.split()[1::2], strict=True)}
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_LOWERED = re.compile("[₀-₉]+")
_ROOT = re.compile(r"([√∛])\s?(?:\(([^()]{1,100})\)|\{([^{}]{1,100})\}|(\d+(?:\.\d+)?|[A-Za-z]))")
_PERIODIC = re.compile(r"(?<![\d.])(\d{0,12})\.(\d{0,12})\\(?:overline|bar)\s?\{(\d{1,12})\}")
_RAISED = re.compile(r"\^([-+]\d+|\d{2,})")
_BEFORE_PERCENT = re.compile(r"(?:\\[,;: ]|(?<!\s)\s{1,9}){1,6}(?=\\?%)")
_HALF_POWER = re.compile(r"\^\{(-?)0?\.5\}")
_WHOLE = re.compile(r"(?<![\d.,])(\d{1,30})\.0{1,30}(?![\d.])")
_MIXED = re.compile(r"(?<![\d/.])(\d{1,6}) (\d{1,3})/(\d{1,3})(?![\d/])")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\\[,;:! ]|~|\s|\{,\}){1,2}\d{3})+(?!\d)")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf|tt)|mbox)\s{0,3}\{((?:[^{}]|\{[^{}]{0,60}\}){0,200})\}"
)
_SPACE = re.compile(r"\\(?:thin|med|thick)space(?![A-Za-z])|(?:\\text)?\{(?:\\,| )\}|~")
_DEGREES = re.compile(r"(?:\^\s?\{?\s?(?:\\circ|o)\s?\}?|\\degree|\s?\\?degrees?\b)\s*[CF]?$")
_NUMBER = (
    r"-?(?:\\\$|[$€£¥])?\s?(?:\d[\d,.]*(?:/\d+)?|\\d?frac\{[^{}]{1,20}\}\{[^{}]{1,20}\}"
    r"|\d*\\sqrt\{[^{}]{1,20}\}|\d*\\pi)"
)
_ENDS_REVERSED = re.compile(r"(?:[,;:! ]\\|[~.,;\s])+")
"""Thin spaces and points at the end, read from there: a search would try every place before."""
_UNIT = re.compile(
    rf"(?P<number>{_NUMBER})(?:\\[,;! ]|~|\s)*(?:\\?(?:text|mathrm)\s?\{{)?\s*"
    r"(?P<unit>[A-Za-z]{2,20}(?:[ .A-Za-z]{0,40})(?:/[A-Za-z]{1,10})?"
    r"|[mgLlskhJNWVA](?:/[A-Za-z]{1,4})?|[^\W\dA-Za-z_]{1,8}|/[a-z]{1,10})"
    r"\s*\}?(?:\s?\^\s?\{?-?\d\}?)?\s*\}?"
)
_UNIT_QUOTIENT = re.compile(r"(?:\\[,;! ]|\s)*\\frac(?:\{\\(?:text|mathrm)\s?\{[^{}]{1,20}\}\}){2}$")
_MONEY = re.compile(r"^(-?)\s?(?:\\\$|[$€£¥])\s?(?=\d)")
_ASSIGNED = re.compile(
    r"^\s*(?:[A-Za-z](?:_\{?\w\}?)?|\\(?:theta|alpha|beta|lambda)|[a-z]\([a-z]\))\s*(?:=|\\in(?![A-Za-z]))\s*(?![=])"
)
_ASSIGNED_BACK = re.compile(r"([^=<>]{1,100}?)\s*=\s*[A-Za-z](?:_\{?\w\}?)?")
_BASE = re.compile(
    r"\(?([0-9A-Za-z]+)\)?\s?_\s?\{?\s?(?:\\text\{)?([0-9]{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\}?\s?\}?"
)
_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
_LESS = r"(?P<{}><|\\leq?q?(?:slant)?(?![A-Za-z])|\\lt(?![A-Za-z]))"
_BETWEEN = re.compile(
    rf"(?P<low>[^<>=]{{1,60}}?)\s*{_LESS.format('first')}\s*[A-Za-z]\s*{_LESS.format('second')}\s*(?P<high>[^<>=]{{1,60}})"
)
_MORE = r"(?P<{}>>|\\geq?q?(?:slant)?(?![A-Za-z])|\\gt(?![A-Za-z]))"
_BETWEEN_DOWN = re.compile(
    rf"(?P<high>[^<>=]{{1,60}}?)\s*{_MORE.format('second')}\s*[A-Za-z]\s*{_MORE.format('first')}\s*(?P<low>[^<>=]{{1,60}})"
)
_ABOVE = re.compile(
    rf"[A-Za-z]\s*{_MORE.format('sign')}\s*(?P<bound>[^<>=]{{1,60}})|(?P<bound2>[^<>=A-Za-z]{{1,60}}?)\s*{_LESS.format('sign2')}\s*[A-Za-z]"
)
_BELOW = re.compile(
    rf"[A-Za-z]\s*{_LESS.format('sign')}\s*(?P<bound>[^<>=]{{1,60}})|(?P<bound2>[^<>=A-Za-z]{{1,60}}?)\s*{_MORE.format('sign2')}\s*[A-Za-z]"
)
_SHORT_GROUP = re.compile(r"\d\s*,\s*\d{1,2}(?!\d)")
"""3,4 is a list, though some write decimals so."""
_SETS = re.compile(r"^\s*\\?\{?\s*[a-z]\s*(?:\\mid|\||:)\s*(.+?)\\?\}?\s*$")
_OR = re.compile(r"\s*(?:\\text\{\s*or\s*\}|\bor\b|または|或)\s*")
_AND = re.compile(r"\s*(?:\\text\{\s*and\s*\}|\\land(?![A-Za-z])|\band\b|,)\s*")
_LIST_WORDS = re.compile(r",?\s*(?:\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b|和|と|または|或)\s*")
_OPTION = re.compile(r"\s*\(([A-Z])\)\s*\S")
_LETTER = re.compile(r"\(?([A-Z])\)?[.]?")


class Shape(NamedTuple):
    """How an expression is bracketed at its ends ("(]"), "" where it is not, and how many parts commas make of it."""

    brackets: str
    parts: int


def spelled(expression: str) -> str:
    r"""The expression in one spelling of LaTeX: ASCII digits and signs, commands for roots, no thin spaces."""
    expression = _PERIODIC.sub(_periodic, _ROOT.sub(_root, expression))
    expression = _LOWERED.sub(lambda found: "_{" + "".join(str(ord(c) - 0x2080) for c in found[0]) + "}", expression)
    expression = one_spelling(expression)
    expression = _SIGN.sub(lambda found: _SIGNS[found[0]], expression)
    expression = _RAISED.sub(r"^{\1}", _MIXED.sub(r"\1\\frac{\2}{\3}", expression))
    expression = re.sub(
        r"\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![A-Za-z])\s?|\\!|^\\\(|\\\)$|^\$(?!\d[^$]*$)|(?<!\\)\$$",
        "",
        expression,
    )
    expression = re.sub(r"\\[dtc]frac", r"\\frac", expression).replace("\\text{,}", ",").replace("{,}", ",")
    expression = _SPACE.sub(r"\\,", expression).replace("{^\\circ}", "^\\circ").replace("^^", "^")
    expression = _BEFORE_PERCENT.sub("", expression.replace("{\\%}", "\\%"))
    expression = _WHOLE.sub(r"\1", _HALF_POWER.sub(r"^{\1\\frac{1}{2}}", expression))
    expression = _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), expression)
    expression = re.sub(r"(?<=\d)(?:\\[,;:!]\s?(?=[A-Za-z\\])|\s(?=i(?![A-Za-z])))", "", expression)  # 9\,i
    expression = expression.strip()
    ends = _ENDS_REVERSED.match(expression[::-1])
    return expression[: len(expression) - ends.end()] if ends else expression


def forms(expression: str) -> list[str]:
    """The readings of a spelled expression: as it stands, then without text, unit and currency."""
    found = [expression]
    bare = expression
    if "\\text" in bare or "\\math" in bare or "\\mbox" in bare:
        inner = _TEXT.sub(r" \1 ", bare).strip()
        found.append(re.sub(r"\s+", " ", inner))
        bare = found[-1]
    without_degrees = _DEGREES.sub("", bare).strip()
    if without_degrees and without_degrees != bare:
        found.append(without_degrees)
        bare = without_degrees
    if without_quotient := _UNIT_QUOTIENT.sub("", expression):
        found += [without_quotient] if without_quotient != expression else []
    if without_money := _MONEY.sub(r"\1", bare):
        if without_money != bare:
            found.append(without_money)
        bare = without_money
    if assigned := _ASSIGNED_BACK.fullmatch(bare):  # 5 = x
        found.append(assigned[1])
    for candidate in (bare, expression):
        if counted := _UNIT.fullmatch(candidate):
            found.append(counted["number"].strip())
            break
    return list(dict.fromkeys(found))


def exact_values(form: str) -> list[object]:
    """The exact values that a form may have: 50 % is 50 (of a hundred) and 1/2; empty where it is no lone number."""
    form = _ASSIGNED.sub("", form)
    number = None if _SHORT_GROUP.search(form) else one_number(form)
    if ENGLISH_NUMBER.fullmatch(form.strip()) and (value := english_value(form)) is not None:
        return [value]
    if HAN_NUMBER.fullmatch(form.strip()) and (value := han_value(form.strip())) is not None:
        return [value]
    if number is None or number.value is None:
        return []
    return [number.value, number.value / 100] if number.percent else [number.value]


def in_base(form: str) -> tuple[str, int | None] | None:
    """(digits, base) of a number with a base below it (2516_8); the base is None where none is written."""
    form = re.sub(r"\\text\{\s*(\w+)\s*\}", r"\1", _ASSIGNED.sub("", form))
    if found := _BASE.fullmatch(form.strip()):
        if not found[1][0].isdigit():
            return None
        base = _BASES.get(found[2]) or int(found[2])
        return found[1].upper().lstrip("0") or "0", base
    plain = form.strip()
    return (plain.upper().lstrip("0") or "0", None) if re.fullmatch(r"\d[0-9A-F]*", plain) else None


def interval(form: str) -> str:
    r"""An inequality of one variable as an interval: 2 \le x < 5 is [2,5); another form is left as it is."""
    form = _ASSIGNED.sub("", form)
    if found := _SETS.match(form):
        form = found[1]
    either = _OR.split(form)
    if len(either) > 1 and all(interval(part) != part for part in either):
        return "\\cup".join(map(interval, either))
    both = _AND.split(form)
    if len(both) == 2 and _ABOVE.fullmatch(both[0]) and _BELOW.fullmatch(both[1]):
        return interval(both[0]).removesuffix(",\\infty)") + interval(both[1]).removeprefix("(-\\infty")
    for pattern in (_BETWEEN, _BETWEEN_DOWN):
        if found := pattern.fullmatch(form):
            return f"{_left(found['first'])}{found['low'].strip()},{found['high'].strip()}{_right(found['second'])}"
    if found := _ABOVE.fullmatch(form):
        return f"{_left(found['sign'] or found['sign2'])}{(found['bound'] or found['bound2']).strip()},\\infty)"
    if found := _BELOW.fullmatch(form):
        return f"(-\\infty,{(found['bound'] or found['bound2']).strip()}{_right(found['sign'] or found['sign2'])}"
    return form


def shape(form: str) -> Shape:
    """Brackets around all of a form, and the number of its parts at the top."""
    form = _LIST_WORDS.sub(", ", _ASSIGNED.sub("", form)).replace("\\{", "{").replace("\\}", "}").strip()
    form = re.sub(r"(?<=\d),(?=\d{3}(?!\d))(?![^(\[]*,\s)", "", form)
    depth, parts, whole = 0, 1, form[:1] in ("(", "[", "{")
    for index, character in enumerate(form):
        depth += (character in "([{") - (character in ")]}")
        whole = whole and (depth > 0 or index == len(form) - 1)
        parts += character in ",;" and depth == 0
    if whole and form[-1:] in (")", "]", "}"):
        return Shape(form[0] + form[-1], 1 + sum(_top_commas(form[1:-1])))
    return Shape("", parts)


def lone_letter(form: str) -> str:
    r"""The letter that a form is: C, (C), \text{(C)}; else ""."""
    found = _LETTER.fullmatch(form.strip())
    return found[1] if found else ""


def option_letter(form: str) -> str:
    """The letter in brackets that an option begins with, "(B) 25 m"; else ""."""
    found = _OPTION.match(form)
    return found[1] if found else ""


def _top_commas(inside: str) -> Iterator[bool]:
    depth = 0
    for character in inside:
        depth += (character in "([{") - (character in ")]}")
        yield character in ",;" and depth == 0


def _left(sign: str) -> str:
    return "(" if sign in ("<", ">", "\\lt", "\\gt") else "["


def _right(sign: str) -> str:
    return ")" if sign in ("<", ">", "\\lt", "\\gt") else "]"


def _root(found: re.Match[str]) -> str:
    inside = found[2] or found[3] or found[4]
    return f"\\sqrt{'[3]' if found[1] == '∛' else ''}{{{inside}}}"


def _periodic(found: re.Match[str]) -> str:
    r"""0.1\overline{6} is 15/90."""
    whole, once, again = found.groups()
    above = int(f"{whole}{once}{again}") - int(f"{whole}{once}" or 0)
    return f"\\frac{{{above}}}{{{(10 ** len(again) - 1) * 10 ** len(once)}}}"
