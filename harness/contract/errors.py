"""Errors that end a command, each with the exit code that CI obeys.

Exit codes: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 not comparable or bad input, 4 the run itself failed.
Every message is one line that names the thing and the way out; `quantgate --debug` adds the traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pydantic takes a while to load, and the guard waits for this module
    from pydantic import ValidationError


class GateError(Exception):
    """A command cannot go on. `exit_code` is what the process ends with."""

    exit_code = 4

    def __init__(self, message: str, details: str = "") -> None:
        """`details` are further lines worth seeing (the end of a server's log)."""
        super().__init__(message)
        self.details = details


class BadInput(GateError):
    """Policy, command line, model folder or stored file that cannot be used (exit 3)."""

    exit_code = 3


class NotComparable(GateError):
    """Candidate and reference differ in something that the policy does not allow (exit 3)."""

    exit_code = 3


class RunFailed(GateError):
    """Server, disk or network failed; the run folder keeps what was there (exit 4)."""

    exit_code = 4


def first_error(error: ValidationError, whole: str) -> str:
    """The first thing that pydantic found wrong, as `place: what`; `whole` is the place of what has no smaller one."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
