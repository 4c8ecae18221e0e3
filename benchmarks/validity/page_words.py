"""Numbers and tables in the page's words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence


def percent(share: float, digits: int = 2) -> str:
    """A share in percent, without the sign."""
    shown = f"{100 * share:.{digits}f}"
    return f"{0:.{digits}f}" if float(shown) == 0 else shown


def points(share: float) -> str:
    """A share in points, as short as it can be: 0.025 is 2.5."""
    return f"{100 * share:g}"


def items(number: float) -> str:
    return f"{number:,.0f}"


def paragraph(*sentences: str) -> str:
    """Sentences set to the width of the page's source."""
    return textwrap.fill(" ".join(sentences), 120, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns of numbers are set to the right."""
    listed = [list(row) for row in rows]
    rule = ["---:" if all(_is_number(row[i]) for row in listed) else "---" for i in range(len(head))]
    lines = [" | ".join(cells) for cells in ([*head], rule, *listed)]
    return "\n".join(f"| {line} |" for line in lines)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").lstrip("-").isdigit()
