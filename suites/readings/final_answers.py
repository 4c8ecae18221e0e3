r"""Which part of an answer is its final answer: a number, a letter, or an expression. Text alone, nothing is computed.

A final statement counts first: \boxed{}, "the answer is", "####", 答えは, 答案是. Without one, the last number (letter,
formula) of the text is the answer. What is looked at is bounded, since model output may be of any size and kind.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from decimal import Decimal

from suites.readings.plain_numbers import plain_digits

TAIL = 20_000
"""So many last characters are looked at: a final answer stands at the end."""
LONGEST = 500
"""No final answer is longer, in characters."""
STATEMENTS = 50
"""So many last "the answer is" are looked at."""

Spot = tuple[int, str]
"""(where in the text, what is said there)"""

_BRACES = re.compile(r"(?P<box>\\{1,4}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_SAID = re.compile(
    r"\#{4}"
    r"|\banswer\b(?:\s+to\s+(?:the|this)\s+\w+)?[\s*_]{0,4}(?:is\b|was\b|would\s+be\b|equals\b|=|:)"
    r"|\bfinal\s+answer\b[\s*_]{0,4}\n"
    r"|(?:答え|答案|解答|正解|答)[*_\s]{0,4}(?:は|為|为|是|:|=)",
    re.IGNORECASE,
)
_SENTENCE_ENDS = re.compile(r"[.;](?=\s|$)|[。！？；]")
_MARKUP = " \t*_:、,\"'“”「」"
_AMOUNT = re.compile(
    r"(?P<minus>(?<![A-Za-z0-9)\]}])-(?=[$€£¥\d.]))?(?:[$€£¥]\s?(?P<inner>-(?=[\d.]))?)?"
    r"(?<![A-Za-z\d_^])(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
)
_MAN = re.compile(r"(?<![\d.])(\d{1,12}(?:\.\d{1,12})?)\s?[万萬](?:\s?(\d{1,4})(?!\d))?")
_FORMULA = re.compile(
    rf"\$\$(.{{1,{LONGEST}}}?)\$\$|\\\[(.{{1,{LONGEST}}}?)\\\]|\\\((.{{1,{LONGEST}}}?)\\\)|"
    rf"(?<!\\)\$((?:\\.|[^$\n\\]){{1,{LONGEST}}})\$",
    re.DOTALL,
)
_CHOSEN = re.compile(
    r"(?:[\s*_$\"'“‘(\[{:]|\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{|(?i:option|choice)\s){0,8}"
    r"(?:([B-HJ])(?![A-Za-z0-9'’])|([AI])(?=[)\]}*_.,:;$\"'”’]|\s*$))"  # A and I are words too
)
_IN_PARENTHESES = re.compile(r"\(([A-J])\)")
_LETTER_ALONE = re.compile(r"[\W_]*(?:(?i:option|choice)\s)?([A-J])[\W_]*$")
_RESTATED = re.compile(r"[\s*_#>(]*([A-J])[*_]*[).:]")
_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code) not in "，！？；"}
_FULL_WIDTH |= {0x2212: "-", 0xFFE5: "¥"}


def final_number(text: str) -> str:
    """The number that an answer ends with, in plain form ("1234.5", "-7"); "" when there is none."""
    text = _ascii(text)
    for _, said in sorted([*_boxes(text), *_statements(text)], reverse=True):
        if number := _number_in(said):
            return number
    last = _last(_AMOUNT, text)
    return _signed(last) if last else ""


def plain_number(text: str) -> str:
    """`text` in plain form when it is one number and nothing else, otherwise ""."""
    found = _AMOUNT.fullmatch(_ascii(text.strip()))
    return _signed(found) if found else ""


def final_letter(text: str) -> str:
    """The letter A to J that is chosen: "the answer is (X)", then a box, then a line of its own; else ""."""
    text = text[-TAIL:].translate(_FULL_WIDTH)
    for _, said in sorted(_statements(text), reverse=True):
        if found := _CHOSEN.match(said) or _last(_IN_PARENTHESES, said):
            return found[found.lastindex or 1]
    for _, boxed in sorted(_boxes(text), reverse=True):
        if found := _CHOSEN.match(boxed):
            return found[found.lastindex or 1]
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and (found := _RESTATED.match(lines[-1])):
        return found[1]
    alone = (_LETTER_ALONE.match(line) for line in reversed(lines))
    return next((found[1] for found in alone if found), "")


def final_expression(text: str) -> str:
    r"""The expression that an answer ends with, in LaTeX or as text; "" when there is none.

    The last \boxed{} that holds something, then what the last final statement says, then the last formula or number.
    """
    text = text[-TAIL:]
    for _, boxed in sorted(_boxes(text), reverse=True):
        return boxed
    for _, said in sorted(_statements(text), reverse=True):
        formula = _FORMULA.search(said)
        if expression := _inside(formula) if formula else said.strip(_MARKUP):
            return expression
    formula, number = _last(_FORMULA, text), _last(_AMOUNT, text)
    if formula and (not number or number.end() <= formula.end()):
        return _inside(formula)
    return _signed(number) if number else ""


def _ascii(text: str) -> str:
    """The end of a text with ASCII digits, signs and separators; 3万5000 is 35000."""
    text = re.sub(r"(?<=[０-９])，(?=[０-９]{3})", ",", text[-TAIL:]).translate(_FULL_WIDTH)
    text = text.replace("{,}", ",").replace(r"\$", "$").replace(r"\,", "").replace(r"\!", "")
    return _MAN.sub(lambda found: f"{Decimal(found[1]) * 10_000 + int(found[2] or 0):f}", text)


def _boxes(text: str) -> Iterator[Spot]:
    r"""Every whole \boxed{} that holds something, in one pass: opened braces are kept on a stack."""
    opened: list[tuple[int, bool]] = []
    for found in _BRACES.finditer(text):
        if found["box"] or found[0] == "{":
            opened.append((found.end(), bool(found["box"])))
        elif found[0] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and found.start() - start <= LONGEST and (inside := text[start : found.start()].strip()):
                yield start, inside


def _statements(text: str) -> Iterator[Spot]:
    """What follows "the answer is" and the like: the rest of the sentence, or the next line that is not blank."""
    for found in deque(_SAID.finditer(text), maxlen=STATEMENTS):
        following = text[found.end() : found.end() + LONGEST]
        lines = (line.strip(_MARKUP) for line in following.splitlines())
        line = next(filter(None, lines), "")
        if line in ("$$", r"\["):  # a formula on lines of its own
            yield found.end(), following
        else:
            yield found.end(), _SENTENCE_ENDS.split(line, maxsplit=1)[0]


def _number_in(said: str) -> str:
    """The number of a final statement: the first one after its last equals sign."""
    for part in (re.split(r"[=≈]", said)[-1], said):
        if found := _AMOUNT.search(part):
            return _signed(found)
    return ""


def _signed(found: re.Match[str]) -> str:
    number = plain_digits(found["digits"])
    return f"-{number}" if (found["minus"] or found["inner"]) and number != "0" else number


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group).strip()


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for found in pattern.finditer(text):
        last = found
    return last
