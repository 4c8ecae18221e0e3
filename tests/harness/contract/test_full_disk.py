"""A write that the disk takes in part: here a limit on the size of files stands for it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.contract.samples import Sample, SampleLog, read_samples
from harness.contract.whole_files import write_whole


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Python ignores SIGXFSZ: a longer write is taken in part, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sample(item: str, text: str = "x") -> Sample:
    return Sample(suite="s", task="t", item=item, role="candidate", prompt_sha256="a", score=1.0, text=text)


@pytest.mark.parametrize("length", [10, 30_000])
def test_a_sample_that_was_taken_in_part_is_taken_back(tmp_path: Path, length: int) -> None:
    path = tmp_path / "s.jsonl"
    log = SampleLog(path)
    log.append(sample("1"))
    whole = path.read_bytes()
    with files_of_at_most(len(whole) + 100), pytest.raises(OSError, match=r"s\.jsonl"):
        log.append(sample("2", "y" * length))
    assert path.read_bytes() == whole and len(log) == 1
    log.append(sample("3"))  # another worker's, before the run has ended
    log.append(sample("2", "y" * length))
    log.close()
    assert [found.item for found in read_samples(path)] == ["1", "3", "2"]


def test_a_file_that_does_not_fit_leaves_the_old_one_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_whole(path, "old")
    with files_of_at_most(100), pytest.raises(OSError, match=r"verdict\.json"):
        write_whole(path, "new" * 1000)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
