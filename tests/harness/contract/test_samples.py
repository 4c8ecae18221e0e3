"""Samples survive a killed run and are never written twice."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.contract.errors import BadInput
from harness.contract.samples import Sample, SampleLog, read_samples, sha256_of

UNICODE = [
    "",
    "72",
    "日本の山",
    "e\u0301 \u200d👩‍👩‍👧",
    "a\u2028b\u2029c\x85d",
    "\x00\x1b[31m\r\n\t",
    '"}\n{"',
    "\ufeff\uffff\U0010ffff",
]


def make(item: str = "0001", role: str = "candidate", **fields: Any) -> Sample:
    given_fields = {"suite": "cot", "task": "gsm8k", "item": item, "role": role, "prompt_sha256": "aa"} | fields
    return Sample(**given_fields)


def write(path: Path, *samples: Sample) -> None:
    log = SampleLog(path)
    for sample in samples:
        log.append(sample)
    log.close()


SAMPLES = st.builds(
    Sample,
    suite=st.sampled_from(["cot", "ruler"]),
    task=st.text(max_size=8),
    item=st.text(max_size=8),
    repeat=st.integers(0, 3),
    role=st.sampled_from(["reference", "candidate", "noise"]),
    prompt_sha256=st.just("aa"),
    score=st.none() | st.floats(0, 1),
    answer=st.none() | st.text(),
    seconds=st.floats(0, 1e6),
    text=st.text() | st.sampled_from(UNICODE),
    reasoning=st.text() | st.sampled_from(UNICODE),
    metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    error=st.none() | st.text(min_size=1),
)


@given(st.lists(SAMPLES, unique_by=lambda sample: sample.key, max_size=6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_appended_is_read_back(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    path = tmp_path_factory.mktemp("log") / "samples" / "cot.jsonl"
    write(path, *samples)
    assert list(read_samples(path)) == samples
    again = SampleLog(path)
    assert list(again.samples()) == samples and len(again) == len(samples)
    assert all(sample.key in again and again.answered(sample.key) == (sample.error is None) for sample in samples)
    again.close()


@pytest.mark.parametrize("text", UNICODE)
def test_a_sample_is_one_line_whatever_its_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cot.jsonl"
    write(path, make(text=text), make("0002", reasoning=text))
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 3 and lines[2] == b""
    assert json.loads(lines[0])["text"] == text and json.loads(lines[1])["reasoning"] == text


def test_each_sample_is_in_the_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "cot.jsonl")
    for count in range(1, 4):
        log.append(make(f"{count:04d}"))
        assert len(list(read_samples(log.path))) == count  # not closed: a killed process loses nothing
    log.close()


def test_a_later_log_appends_and_keeps_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "cot.jsonl"
    write(path, make("0001"), make("0002"))
    before = path.read_bytes()
    write(path, make("0003"))
    assert path.read_bytes().startswith(before)
    assert [sample.item for sample in read_samples(path)] == ["0001", "0002", "0003"]


def test_a_key_is_never_written_twice(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "cot.jsonl")
    log.append(make(score=1.0))
    for twice in (make(score=1.0), make(score=0.0), make(error="timeout: no answer")):
        with pytest.raises(ValueError, match="written twice"):
            log.append(twice)
    for other in (make(role="reference"), make(repeat=1), make("0002"), make(task="aime"), make(suite="ruler")):
        log.append(other)
    log.close()
    assert len(list(read_samples(log.path))) == 6


def test_a_file_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cot.jsonl"
    write(path, make())
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BadInput, match="cot/gsm8k/0001/0/candidate is there twice"):
        SampleLog(path)


def test_a_file_cut_anywhere_loses_its_last_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "cot.jsonl"
    samples = [make("0001", text="日本"), make("0002", text="👩‍👧 a\nb"), make("0003", role="reference")]
    write(path, *samples)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):  # every byte that a SIGKILL may have left last
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert list(read_samples(path)) == samples[:complete]  # a reader leaves the file as it is
        assert path.read_bytes() == whole[:cut]
        log = SampleLog(path)
        assert list(log.samples()) == samples[:complete]
        for sample in samples[complete:]:
            log.append(sample)
        log.close()
        assert path.read_bytes() == whole


def test_a_half_line_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "cot.jsonl"
    write(path, make("0001"), make("0002", text="x" * 200_000))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    SampleLog(path).close()
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d | {"score": 1.01},
        lambda d: d | {"score": -0.1},
        lambda d: d | {"score": math.nan},
        lambda d: d | {"score": math.inf},
        lambda d: d | {"metrics": {"kl_lower_sum": math.nan}},
        lambda d: d | {"scores": 1.0},
        lambda d: d | {"role": "judge"},
        lambda d: {k: v for k, v in d.items() if k != "prompt_sha256"},
        lambda d: [d],
        lambda d: None,
    ],
)
def test_a_line_that_is_no_sample_is_refused_with_its_number(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    path = tmp_path / "cot.jsonl"
    write(path, make("0001"))
    path.write_bytes(path.read_bytes() + json.dumps(damage(make("0002").model_dump())).encode() + b"\n")
    with pytest.raises(BadInput, match=r"cot\.jsonl:2: not a sample"):
        SampleLog(path)


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe\n", b"", b'{"suite": "cot"'])
def test_a_broken_line_in_the_middle_is_not_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "cot.jsonl"
    write(path, make("0001"))
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(BadInput, match=r"cot\.jsonl:1: not a sample"):
        list(read_samples(path))


@pytest.mark.parametrize("fields", [{"score": 1.5}, {"score": math.nan}, {"metrics": {"x": math.inf}}, {"colour": 1}])
def test_a_wrong_sample_cannot_even_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**fields)


def test_the_hash_of_a_prompt_is_that_of_canonical_json() -> None:
    assert sha256_of([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"  # sha256sum of "[]"
    assert sha256_of({"a": 1, "b": "é"}) == sha256_of({"b": "é", "a": 1}) != sha256_of({"a": 1, "b": "e"})
    assert sha256_of("\ud800") != sha256_of("?")  # a lone surrogate does not crash it
