"""Files that are there whole or not at all, JSON that is read at the door, hashes of files, the cache's folder.

Quick to load: the guard does too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.contract.errors import BadInput


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to: a reader, or a crash, sees what was there before or all of the new one, nothing between.

    What was there stays when the block raises. Folders are made as needed. Not `durable`: of files that can be made
    again, by the thousand; when the power fails they may be lost. Raises OSError, which
    names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not say of which file
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str, durable: bool = True) -> None:
    """Write a text as `whole_file` does, its ends of lines as they are. Raises OSError."""
    with whole_file(path, durable) as file:
        file.write(text.encode("utf-8"))


def read_json(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """Read a JSON object. Raises BadInput when it is absent, longer than `most_bytes`, broken or not an object."""
    try:
        with path.open("rb") as file:
            data = file.read() if most_bytes is None else file.read(most_bytes + 1)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    return parse_object(data, str(path), most_bytes)


def parse_object(data: bytes, where: str, most_bytes: int | None = None) -> dict[str, Any]:
    """A JSON object of these bytes. Raises BadInput as `read_json` does; `where` begins what it says."""
    if most_bytes is not None and len(data) > most_bytes:
        raise BadInput(f"{where}: longer than {most_bytes // 2**20} MiB")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{where}: expected an object, found {type(found).__name__}")
    return found


def sha256_of_file(path: Path) -> str:
    """Of its bytes. Raises BadInput: it is missing or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def cache_folder() -> Path:
    """Where checkpoints are kept between runs: $QUANTGATE_CACHE, else ~/.cache/quantgate."""
    return Path(os.environ.get("QUANTGATE_CACHE") or Path.home() / ".cache" / "quantgate")
