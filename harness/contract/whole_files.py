"""Files that are there whole or not at all, and JSON that is read at the door. Quick to load: the guard does too."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.contract.errors import BadInput


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to: a reader, or a crash, sees what was there before or all of the new one, nothing between.

    What was there stays when the block raises. Folders are made as needed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text as `whole_file` does, its ends of lines as they are. Raises OSError."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises BadInput when it is absent, broken or not an object."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: expected an object, found {type(data).__name__}")
    return data
