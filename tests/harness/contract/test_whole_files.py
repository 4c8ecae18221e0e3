"""A file is there whole or not at all, and JSON is refused with one clear line."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.contract.errors import BadInput
from harness.contract.whole_files import read_json, sha256_of_file, whole_file, write_whole


def test_a_file_is_replaced_once_all_of_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept, sync = tmp_path / "deep" / "f.json", [], os.fsync

    def noted(file: int) -> None:
        sync(file)
        kept.append((os.fstat(file).st_size, path.exists() and path.read_text("utf-8")))

    monkeypatch.setattr(os, "fsync", noted)
    write_whole(path, "old")
    write_whole(path, "newer\r\nü")
    assert kept == [(3, False), (9, "old")]
    assert path.read_bytes() == "newer\r\nü".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_when_writing_fails(tmp_path: Path, fault: BaseException) -> None:
    path = tmp_path / "f.json"
    write_whole(path, "old")
    with pytest.raises(type(fault)), whole_file(path) as file:
        file.write(b"new" * 100_000)
        raise fault
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new" * 100_000)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_guard_writes_its_state_without_loading_what_takes_a_second() -> None:
    code = "import sys, harness.serving.guard; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [(None, "No such file"), (b"{", "not JSON"), (b"\xff", "not JSON"), (b"[1]", "expected an object, found list")],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, data: bytes | None, says: str) -> None:
    path = tmp_path / "config.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadInput, match=rf"config\.json: {says}"):
        read_json(path)
    path.write_text('{"a": 1}', "utf-8")
    assert read_json(path) == {"a": 1}


def test_json_that_is_longer_than_allowed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path, 8) == {"a": 1}
    with pytest.raises(BadInput, match="longer than"):
        read_json(path, 7)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(BadInput, match="No such file"):
        sha256_of_file(tmp_path / "b")
