"""What a command that a test runs in its own process ended with, and a policy for it."""

from collections.abc import Callable
from typing import NamedTuple

POLICY = """\
name: test
suites: {cot: {tasks: {word_problems: {limit: 4}}}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Quantgate = Callable[..., Ended]


def last_line(ended: Ended) -> str:
    """The line that says what happened; nothing on stderr may be a traceback."""
    assert "Traceback" not in ended.err
    lines = ended.err.splitlines()
    assert lines and lines[-1].startswith("quantgate: ")
    return lines[-1]
