r"""The expression that an answer ends with, in LaTeX or as text; what it is worth, math_grader.py says."""

from __future__ import annotations

import re
from itertools import pairwise

from suites.readings.characters import normalised
from suites.readings.numerals import Found, find_numbers, plain_form
from suites.readings.statements import LONGEST, TAIL, last_boxes, own_answer, statements, taken_back

_MARKUP = " \t*_:：、,，\"'“”「」`"
_FORMULA = re.compile(
    rf"\$\$(.{{1,{LONGEST}}}?)\$\$|\\\[(.{{1,{LONGEST}}}?)\\\]|\\\((.{{1,{LONGEST}}}?)\\\)|"
    rf"(?<!\\)\$((?:\\.|[^$\n\\]){{1,{LONGEST}}})\$",
    re.DOTALL,
)
_AND = re.compile(r"\s?(?:,|、)\s?(?:and|or)?\s?|\s(?:and|or)\s|\s?(?:和|と)\s?")
_REASON = re.compile(r",?\s+\b(?:since|because|as|where)\b|，?(?:因为|因為)|です(?:。|$)", re.IGNORECASE)


def final_expression(text: str) -> str:
    r"""The expression that an answer ends with; "" when there is none.

    The last \boxed{} that holds something (with those directly before it, where they are one list), then what the last
    final statement says, then the last formula or number.
    """
    text = own_answer(text, lambda before: bool(last_boxes(before)))[-TAIL:]
    if boxed := last_boxes(text):
        return ", ".join(boxed)
    for statement in reversed(statements(text)):
        if taken_back(text, statement):
            break
        formulas = list(_FORMULA.finditer(statement.said))
        if formulas:
            return ", ".join(_listed(statement.said, formulas))
        if expression := _REASON.split(statement.said, maxsplit=1)[0].strip(_MARKUP):
            return expression
    return _last_of(text)


def _listed(said: str, formulas: list[re.Match[str]]) -> list[str]:
    """The first formula, and those after it in one list ($3$, $5$ and $7$)."""
    found = [_inside(formulas[0])]
    for before, formula in pairwise(formulas):
        if not _AND.fullmatch(said[before.end() : formula.start()]):
            break
        found.append(_inside(formula))
    return found


def _last_of(text: str) -> str:
    formula = None
    for formula in _FORMULA.finditer(text):  # noqa: B007 - the last one
        pass
    rest = normalised(text[formula.end() :] if formula else text)
    number: Found | None = None
    for number in find_numbers(rest):  # noqa: B007
        pass
    if number and number.value is not None:
        return plain_form(number.value)
    return _inside(formula) if formula else ""


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group).strip()
