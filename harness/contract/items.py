"""Items on disk, one JSON line each: streamed out, read back one by one, since a prompt may have a million tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic import ValidationError

from harness.contract.errors import BadInput, first_error
from harness.contract.samples import Item, PairKey
from harness.contract.whole_files import whole_file


class ItemRef(NamedTuple):
    """An item by name; its prompt stays on disk."""

    task: str
    item: str
    repeat: int
    prompt_sha256: str
    offset: int
    """Byte at which its line begins."""

    def pair(self, suite: str) -> PairKey:
        return (suite, self.task, self.item, self.repeat)


def write_items(path: Path, items: Iterable[Item]) -> str:
    """Write the whole file or nothing; returns the sha256 of its bytes.

    Raises:
        BadInput: two items of one name, which would be one pair.
    """
    digest, names = hashlib.sha256(), set()
    with whole_file(path) as file:
        for item in items:
            name = item.task, item.item, item.repeat
            if name in names:
                raise BadInput(f"item {'/'.join(map(str, name))} is there twice; this is a fault of the suite")
            names.add(name)
            line = item.model_dump_json().encode() + b"\n"
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of a file.

    Raises:
        BadInput: the file is missing, or a line is not an item, with its number.
    """
    yield from (item for _, item in _lines(path))


def index_items(path: Path) -> list[ItemRef]:
    """The names of a file's items, in its order. Raises BadInput as `read_items` does."""
    return [ItemRef(i.task, i.item, i.repeat, i.prompt_sha256, offset) for offset, i in _lines(path)]


def load_item(path: Path, ref: ItemRef) -> Item:
    """Read one item. Raises BadInput: the file is not the one that was indexed."""
    with path.open("rb") as file:
        return item_at(file, path, ref)


def item_at(file: BinaryIO, path: Path, ref: ItemRef) -> Item:
    """Read one item out of an open file. Raises BadInput as `load_item` does."""
    file.seek(ref.offset)
    try:
        item = Item.model_validate_json(file.readline())
    except ValidationError:
        raise BadInput(f"{path} was changed while it was read") from None
    if (item.task, item.item, item.repeat, item.prompt_sha256) != ref[:4]:
        raise BadInput(f"{path} was changed while it was read")
    return item


def _lines(path: Path) -> Iterator[tuple[int, Item]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    with file:
        offset = 0
        for number, line in enumerate(file, start=1):
            try:
                yield offset, Item.model_validate_json(line)
            except ValidationError as error:
                raise BadInput(f"{path}:{number}: not an item ({first_error(error, 'line')})") from None
            offset += len(line)
