"""How scores are shown: hostile names are harmless, long lists cut, and rates stand beside what they are rates of."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from offline_cases import items_of, right, score, write_lines

from harness.contract.samples import Item, sha256_of
from harness.offline.scoring import offline_score_table, score_notes, to_json
from suites.ruler.suite import Ruler


def printed(table: Any) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_hostile_names_and_texts_do_not_reach_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ruler, "tasks", ())  # as of a suite whose tasks are not known before its items
    evil = "[red]\x1b]0;owned\x07\u202etask\n"
    prompt = [{"role": "user", "content": "a"}]
    fields: dict[str, Any] = {"prompt": prompt, "prompt_sha256": sha256_of(prompt), "target": ["7"]}
    items = [Item(task=evil, item=name, **fields) for name in ("\x1b[2J1", "2", "3")]
    write_lines(tmp_path / "ruler.jsonl", [item.model_dump_json() for item in items])
    lines = [right(items[1], text="\x1b[2J 7"), right(items[2], finish_reason="length", completion_tokens=1)]
    scores, samples = score(tmp_path, "ruler", lines, tmp_path)
    assert samples[0].score == 1 and samples[0].task == evil
    rows, notes = printed(offline_score_table(scores)), score_notes(scores)
    assert all(line.isprintable() for line in (*rows.splitlines(), *notes)) and "[red]" in rows
    assert any(note.startswith("missing: [red]") for note in notes) and any("error: [red]" in note for note in notes)
    assert to_json(scores).isascii() and all(line.isprintable() for line in to_json(scores).splitlines())


def test_the_table_shows_score_completed_and_cap_hits_together(made: Path, tmp_path: Path) -> None:
    items = items_of(made, "ruler")
    lines = [right(items[0]), right(items[1], text="no"), right(items[2], finish_reason="length"), right(items[3])]
    scores, _ = score(made, "ruler", lines, tmp_path)
    header, first, second, every = printed(offline_score_table(scores)).splitlines()
    assert header.split()[:6] == ["task", "answers", "score", "completed", "cap", "hit"]
    assert first.split() == ["niah_single_1@2048", "3", "66.7%", "50.0%", "33.3%", "0.0%", "0.0%", *"00000"]
    assert second.split() == ["vt@2048", "1", "100.0%", "100.0%", "0.0%", "0.0%", "0.0%", *"00002"]
    assert every.split()[:5] == ["all", "4", "75.0%", "66.7%", "25.0%"]


def test_many_missing_answers_are_listed_in_part_and_counted_in_full(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "a"}]
    fields: dict[str, Any] = {"prompt": prompt, "prompt_sha256": sha256_of(prompt), "target": ["7"]}
    items = [Item(task="vt@2048", item=str(i), **fields) for i in range(50)]
    write_lines(tmp_path / "ruler.jsonl", [item.model_dump_json() for item in items])
    scores, _ = score(tmp_path, "ruler", [right(items[0])], tmp_path)
    notes = score_notes(scores)
    assert len(notes) == 21 and notes[-1] == "missing: 29 more; --json names them all"
    assert len(json.loads(to_json(scores))["missing"]) == 49
