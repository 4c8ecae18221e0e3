r"""The expression that an answer ends with, in LaTeX or as text; what it is worth, math_grader.py says."""

from __future__ import annotations

import re
from itertools import pairwise

from suites.readings.final_numbers import last_number
from suites.readings.statements import LONGEST, TAIL, last_boxes, own_answer, statements, taken_back

_MARKUP = " \t*_:：、,，\"'“”「」`"
_FORMULA = re.compile(
    rf"\$\$(.{{1,{LONGEST}}}?)\$\$|\\\[(.{{1,{LONGEST}}}?)\\\]|\\\((.{{1,{LONGEST}}}?)\\\)|"
    rf"(?<!\\)\$((?:\\.|[^$\n\\]){{1,{LONGEST}}})\$|(?<![\w.])(\d{{0,6}}√(?:\d{{1,6}}|\([^()\n]{{1,40}}\))(?:/\d{{1,6}})?)",
    re.DOTALL,
)
_ROWS = re.compile(
    r"(?:\$\$|\\\[)?\s*\\begin\{(aligned|align|gather|gathered|equation|split|eqnarray)\*?\}(.{1,4000}?)\\end\{\1\*?\}\s*(?:\$\$|\\\])?",
    re.DOTALL,
)
_EQUAL = re.compile(r"(?<![<>:\\])=(?!=)|\\(?:equiv|approx|Rightarrow|implies)(?![A-Za-z])")
_ROW_ENDS = re.compile(r"\\begin|\\end|\\\\")
_MODULUS = re.compile(r"\\pmod\s*(?:\{[^{}]{0,20}\}|\d+)")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?")
_STAND_IN = 770_000_000_000_000
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
    """What the last sentence comes to, a formula or a number: formulas stand in for numbers while it is read."""
    text = _ROWS.sub(lambda rows: f" $${_last_row(rows[2])}$$ ", text)
    formulas = {str(_STAND_IN + place): found for place, found in enumerate(_FORMULA.finditer(text))}
    pieces, end = [], 0
    for stand_in, found in formulas.items():
        displayed = found[0].startswith(("$$", "\\["))  # a line of its own
        pieces += [text[end : found.start()], f"\n{stand_in}\n" if displayed else f" {stand_in} "]
        end = found.end()
    number = last_number("".join(pieces) + text[end:])
    return _last_side(_inside(formulas[number])) if number in formulas else number


def _last_row(rows: str) -> str:
    """The last of the rows of a worked-out formula; those of a matrix within it are none."""
    depth = start = 0
    found = []
    for sign in _ROW_ENDS.finditer(rows):
        depth += {"b": 1, "e": -1}.get(sign[0][1], 0)
        if depth == 0 and sign[0] == "\\\\":
            found.append(rows[start : sign.start()])
            start = sign.end()
    found.append(rows[start:])
    last = next((row for row in reversed(found) if row.strip()), "")
    return last.strip() if "\\begin" in last else last.replace("&", " ").strip()


def _last_side(formula: str) -> str:
    """What a chain of equations ends with, 16 of 4 × 4 = 16 = x; an equation that ends with 0 stays one."""
    plain = _MODULUS.sub("", formula).strip().rstrip(".,;: ")
    sides = [side.strip(" &").rstrip(".,;: ") for side in _EQUAL.split(plain)]
    while len(sides) > 1 and (not sides[-1] or _VARIABLE.fullmatch(sides[-1])):
        sides.pop()
    return plain if sides[-1] == "0" and len(sides) == 2 and not _VARIABLE.fullmatch(sides[0]) else sides[-1]


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group).strip()
