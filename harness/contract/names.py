"""Names out of data (suites, items, instances) where they become file names: none leads out of its folder."""

from __future__ import annotations

from pathlib import Path

from harness.contract.errors import BadInput
from harness.contract.text import quoted

LONGEST = 255
"""Bytes of a file's name that every file system takes."""


def file_in(folder: Path, name: str, ending: str = "") -> Path:
    """The file or folder `name` + `ending` in `folder`, for a name that was read and not chosen.

    Raises:
        BadInput: it is no name of a file: empty, `.` or `..`, with a slash or a control character, or too long.
    """
    whole = name + ending
    plain = name.strip() not in ("", ".", "..") and not set(name) & set("/\\") and all(c >= " " for c in name)
    try:
        fits = len(whole.encode("utf-8")) <= LONGEST
    except UnicodeEncodeError:  # a lone surrogate
        fits = False
    if not (plain and fits):
        raise BadInput(f"{quoted(repr(name))} is no name of a file: it would lead out of {folder}")
    return folder / whole
