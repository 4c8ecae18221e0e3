"""Kinds of errors: the first word of a sample's `error`, before a colon; and what follows from each.

Of a request: unreachable (no connection), timeout (no answer in time), server (5xx, and what of 4xx says nothing of the
item: 401, 403, 404, 429 …), refused (any other 4xx), garbage (an answer that is not what the API promises, or that to
another request), budget (the server cut the answer before max_tokens was used). Beside it:
infrastructure (containers, images, the agent), grader (it raised, or gave nothing), reference (a sample that had no
answer of the reference to be compared with).
"""

from __future__ import annotations

from typing import Literal

RequestErrorKind = Literal["unreachable", "timeout", "server", "refused", "garbage", "budget"]
ErrorKind = Literal[RequestErrorKind, "infrastructure", "grader", "reference"]

OF_THE_ITEM: frozenset[str] = frozenset({"refused", "budget", "grader"})
"""What server or grader said of the item itself: such an error is no sign of a failing server."""
PASSING: tuple[str, ...] = ("unreachable", "timeout", "server", "infrastructure")
"""What another time may not have: a resumed run asks these items again. garbage stays, though a server sent it."""
INFRASTRUCTURE: ErrorKind = "infrastructure"
FOLLOWS: ErrorKind = "reference"
"""Asked again when the reference's own error is."""


def error_text(kind: ErrorKind, reason: str) -> str:
    """A sample's `error`."""
    return f"{kind}: {reason}"


def error_kind(error: str | None) -> str:
    """The kind that a sample's `error` begins with, an unknown one included; empty for none."""
    return (error or "").split(":")[0]
