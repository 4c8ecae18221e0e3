"""Speculative decoding: acceptance by position in the draft."""

from __future__ import annotations

import re

from reports.drawing.canvas import SuiteFigure
from reports.drawing.charts import Curve, curves
from reports.suite_tables.speculative import counts
from reports.suite_tables.table import SuiteRun, quotient
from reports.text import percent

_POSITION = re.compile(r"accepted_pos_([0-9]{1,3})")


def figures(run: SuiteRun) -> list[SuiteFigure]:
    """Share of drafts whose token at a position was accepted, of both roles."""
    found = acceptance(run)
    if len(found) < 2:
        return []
    curve = Curve([100 * reference for _, reference, _ in found], [100 * candidate for _, _, candidate in found])
    svg = curves([str(place + 1) for place, *_ in found], [curve], "position in the draft", "accepted, %", low=0.0)
    place, reference, candidate = max(found, key=lambda row: round(abs(row[2] - row[1]), 9))
    said = f"They differ most at position {place + 1}: {percent(reference)} with the reference, {percent(candidate)} "
    return [SuiteFigure("Acceptance by position in the draft", f"{said}with the candidate.", svg)]


def acceptance(run: SuiteRun) -> list[tuple[int, float, float]]:
    """(position from 0, share accepted of the reference's drafts, of the candidate's), where both are known."""
    roles = [counts([pair.reference for pair in run.pairs]), counts([pair.candidate for pair in run.pairs])]
    places = sorted({int(match[1]) for role in roles for name in role if (match := _POSITION.fullmatch(name))})
    found = []
    for place in places:
        reference, candidate = (quotient(role.get(f"accepted_pos_{place}"), role.get("drafts")) for role in roles)
        if reference is not None and candidate is not None:
            found.append((place, reference, candidate))
    return found
