"""The benchmark of prompt lengths counts what the suite makes, and its stored shares are those that docs state."""

import json
from pathlib import Path

import pytest

from benchmarks.prompt_lengths import DEMO, ITEMS, main
from suites.ruler.suite import TASKS

STORED = Path(__file__).parents[2] / "benchmarks" / "results" / "prompt_lengths.json"


def test_shares_are_counted_by_task_and_length(capsys: pytest.CaptureFixture[str]) -> None:
    if not (DEMO / "tokenizer.json").exists():
        pytest.skip("the demo model is not in the cache (`make gate` fetches it)")
    assert main(["--tasks", "fwe", "niah_multikey_3", "--longest", "8192"]) == 0
    found = json.loads(capsys.readouterr().out)
    shares = found["prompt_tokens_by_asked_tokens"]
    assert {task: list(of_task) for task, of_task in shares.items()} == {
        task: ["4096", "8192"] for task in ("fwe", "niah_multikey_3")
    }
    assert 0.99 <= found["least"] <= found["largest"] <= 1 and found["prompts"] == 8


def test_the_stored_shares_are_within_one_percent_of_every_task_and_length() -> None:
    found = json.loads(STORED.read_text("utf-8"))
    shares = found["prompt_tokens_by_asked_tokens"]
    assert list(shares) == list(TASKS)
    for of_task in shares.values():
        assert {int(length): len(of_length) for length, of_length in of_task.items()} == ITEMS
        assert all(0.99 <= share <= 1 for of_length in of_task.values() for share in of_length)
