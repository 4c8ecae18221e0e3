"""Other people's text (model output, cards, servers' words) made safe to print."""

from __future__ import annotations


def quoted(text: str, limit: int = 80) -> str:
    """Other people's text on one line: no control, direction or surrogate characters, at most `limit` long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"
