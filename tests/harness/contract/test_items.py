"""Items on disk: streamed both ways, whole or not at all, and never another item than the one that was planned."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.contract.errors import BadInput
from harness.contract.items import index_items, load_item, read_items, write_items
from harness.contract.samples import Item
from suites.base import make_item

MIB = 2**20


def made(count: int, words: int = 3) -> Iterator[Item]:
    for i in range(count):
        yield make_item("t", f"{i:03d}", [{"role": "user", "content": f"言 {i} " * words}], target=[str(i)])


def test_items_come_back_one_by_one_and_by_name(tmp_path: Path) -> None:
    path, items = tmp_path / "deep" / "items.jsonl", list(made(5))
    digest = write_items(path, items)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read_items(path)) == items
    refs = index_items(path)
    assert [load_item(path, ref) for ref in reversed(refs)] == items[::-1]
    assert [ref.pair("s") for ref in refs] == [("s", "t", f"{i:03d}", 0) for i in range(5)]


def test_large_prompts_are_never_in_memory_together(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    words = MIB // 8  # a prompt of more than one MiB
    tracemalloc.start()
    write_items(path, made(40, words))
    refs = index_items(path)
    item = load_item(path, refs[20])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 30 * MIB and item.item == "020"
    assert most < 15 * MIB


def test_a_suite_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[Item]:
        yield from made(2)
        raise BadInput("data is missing")

    with pytest.raises(BadInput, match="data is missing"):
        write_items(tmp_path / "items.jsonl", failing())
    assert not list(tmp_path.iterdir())


def test_two_items_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="t/000/0 is there twice"):
        write_items(tmp_path / "items.jsonl", [*made(1), *made(1)])


@pytest.mark.parametrize("line", ["{", "[]", '{"task": "t"}', '{"task": "t", "item": "1", "extra": 1}', ""])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "items.jsonl"
    write_items(path, made(1))
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    with pytest.raises(BadInput, match=r"items\.jsonl:2: not an item"):
        index_items(path)


def test_a_file_that_changes_under_the_reader_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_items(path, made(3))
    refs = index_items(path)
    write_items(path, made(3, words=4))
    for ref in refs:
        with pytest.raises(BadInput, match="was changed while it was read"):
            load_item(path, ref)
    with pytest.raises(BadInput, match="No such file"):
        index_items(tmp_path / "none.jsonl")
