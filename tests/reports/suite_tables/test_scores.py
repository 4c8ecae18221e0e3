"""Tables of scores: of any suite, of RULER and of the needle, against figures worked out by hand."""

from __future__ import annotations

import random

import pytest
from suite_runs import needle, pair, ruler

from harness.contract.pairs import Pair
from reports.scores import task_scores
from reports.suite_tables import needle as needle_tables
from reports.suite_tables import ruler as ruler_tables
from reports.suite_tables import scores as score_tables
from reports.suite_tables.table import SuiteRun, Table


def row(table: Table, name: str) -> dict[str, str]:
    found = next(row for row in table.rows if row[0] == name)
    return dict(zip(table.columns, found, strict=True))


def test_scores_stand_beside_completed_scores_and_cap_hits() -> None:
    pairs = [
        pair("cot", "a", "0", scores=(1.0, 1.0)),
        pair("cot", "a", "1", scores=(1.0, 0.0), finish_reason="length", completion_tokens=256),
        pair("cot", "a", "2", scores=(0.0, 1.0)),
        pair("cot", "b", "0", scores=(1.0, 1.0), finish_reason=None, completion_tokens=None),
    ]
    (table,) = score_tables.tables(SuiteRun(pairs, ["b", "a", "never asked"]))
    assert [found[0] for found in table.rows] == ["b", "a", "all tasks"] and table.total
    cells = list(row(table, "a").values())
    assert cells[:8] == ["a", "3", "66.7 %", "66.7 %", "0.0", "1", "1", "2"]
    assert cells[8:] == ["50.0 % of 2", "100.0 % of 2", "33.3 %", "33.3 %", "165", "165"]
    assert table.columns[5:8] == ("Flips: worse", "Flips: better", "Flips: D")
    assert row(table, "b")["Flips: D"] == "0"
    assert row(table, "b")["Hit the token cap: candidate"] == "–"
    assert row(table, "all tasks")["n"] == "4"
    assert row(table, "all tasks")["Hit the token cap: candidate"] == "33.3 % of 3"
    assert "avg@k" not in table.note


def test_repeats_are_said_as_items_times_k() -> None:
    even = [pair("cot", "a", str(n % 5), scores=(1.0, n % 2), repeat=n // 5) for n in range(20)]
    uneven = [pair("cot", "b", str(n % 5), scores=(1.0, 1.0), repeat=n // 5) for n in range(7)]
    (table,) = score_tables.tables(SuiteRun(even + uneven))
    assert [found[1] for found in table.rows] == ["5 × 4", "7 of 5 items", "27 of 10 items"]
    assert row(table, "a")["Score: candidate"] == "50.0 %" and "avg@k" in table.note


def test_all_tasks_together_are_a_mean_over_items_as_estimates_are() -> None:
    often = [
        pair("cot", "often", str(n % 2), scores=(1.0, n % 2), repeat=n // 2, finish_reason="length") for n in range(16)
    ]
    once = [pair("cot", "once", str(n), scores=(0.0, 1.0)) for n in range(6)]
    (table,) = score_tables.tables(SuiteRun(often + once))
    found = row(table, "all tasks")
    assert (found["Score: reference"], found["Score: candidate"]) == ("25.0 %", "87.5 %")
    assert found["Difference, points"] == "+62.5" and found["Hit the token cap: candidate"] == "25.0 %"


def test_how_answers_ended_is_counted_when_one_ended_badly() -> None:
    looped = {"looped": 1.0, "unterminated": 0.0}
    pairs = [pair("cot", "a", "0", scores=(1.0, 1.0), metrics=({}, looped)), pair("cot", "b", "0", scores=(1.0, 1.0))]
    pairs.append(pair("cot", "a", "1", scores=(1.0, None), metrics=({"tool_calls": 3.0}, looped)))
    table = score_tables.tables(SuiteRun(pairs))[1]
    assert table.columns == (
        "Task",
        "n",
        "Looped: reference",
        "Looped: candidate",
        "Tool call: reference",
        "Tool call: candidate",
    )
    assert table.rows == [
        ("a", "2", "0", "2", "1", "0"),
        ("b", "1", "0", "0", "0", "0"),
        ("all tasks", "3", "0", "2", "1", "0"),
    ]


def test_ruler_is_pooled_by_length_and_large_drops_are_marked() -> None:
    pairs = [pair("ruler", "vt@4096", str(n), scores=(1.0, 1.0)) for n in range(20)]
    pairs += [
        pair("ruler", "vt@8192", str(n), scores=(1.0, float(n > 1)), text="" if n < 3 else "x") for n in range(20)
    ]
    pairs += [pair("ruler", "cwe@8192", str(n), scores=(0.8, 0.71)) for n in range(20)]
    pooled, grid, whole, *rest = ruler_tables.tables(SuiteRun(pairs))
    assert [found[:5] for found in pooled.rows] == [
        ("4,096", "20", "100.0 %", "100.0 %", "0.0"),
        ("8,192", "40", "90.0 %", "80.5 %", "−9.5"),
        ("all lengths", "60", "93.3 %", "87.0 %", "−6.3"),
    ]
    assert pooled.note.startswith(
        "Effective length, the largest whose score is above 85.6 %: reference 8,192, candidate 4,096. Flips: "
    )
    assert [found[5:8] for found in pooled.rows] == [("0", "0", "0"), ("22", "0", "22"), ("22", "0", "22")]
    assert grid.rows == [
        ("vt", "100.0 %", "100.0 %", "0.0", "100.0 %", "90.0 %", "▼ −10.0", "3", "3"),
        ("cwe", "–", "–", "–", "80.0 %", "71.0 %", "−9.0", "0", "0"),
        ("all tasks", "100.0 %", "100.0 %", "0.0", "90.0 %", "80.5 %", "−9.5", "3", "3"),
    ]
    assert [found[0] for found in whole.rows] == ["vt@4096", "vt@8192", "cwe@8192", "all tasks"] and not rest


def test_no_length_is_long_enough() -> None:
    table = ruler_tables.tables(SuiteRun([pair("ruler", "vt@4096", scores=(0.9, 0.5))]))[0]
    assert "reference 4,096, candidate none of these." in table.note


@pytest.mark.parametrize("name", ["vt", "vt@", "@5", "vt@4k", "vt@²", "a@b@7x"])
def test_a_ruler_task_without_a_length_still_has_its_scores(name: str) -> None:
    assert ruler_tables.split(name) is None
    (table,) = ruler_tables.tables(SuiteRun([pair("ruler", name, scores=(1.0, 0.0))]))
    assert table.rows[0][0] == name


def test_the_grid_of_ruler_is_the_brute_force_mean() -> None:
    pairs = list(ruler(random.Random(3)))
    grid = ruler_tables.tables(SuiteRun(pairs))[1]
    for task in ("vt", "niah_multikey_3"):
        for length in (4096, 32768):
            of_cell = [p.candidate.score or 0.0 for p in pairs if p.reference.task == f"{task}@{length}"]
            assert row(grid, task)[f"{length:,} tokens: candidate"] == f"{100 * sum(of_cell) / len(of_cell):.1f} %"


def test_needle_is_shown_by_depth_and_length() -> None:
    pairs: list[Pair] = list(needle(random.Random(0)))
    by_length, grid = needle_tables.tables(SuiteRun(pairs, ["4096", "32768", "131072"]))
    assert [found[0] for found in by_length.rows] == ["4,096", "32,768", "131,072", "all lengths"]
    assert [found[0] for found in grid.rows] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    cells = needle_tables.grid(pairs)
    assert len(cells) == 15
    of_cell = [p for p in pairs if p.reference.task == "131072" and p.reference.item.startswith("d0500")]
    assert cells[0.5, 131072] == task_scores("", of_cell)
    assert row(grid, "50 %")["131,072 tokens: candidate"] == f"{100 * (cells[0.5, 131072].candidate.score or 0):.1f} %"
    assert "of 3 answers a cell" in grid.note


def test_needles_of_unknown_depth_and_cells_without_items_are_no_cells() -> None:
    pairs = [
        pair("needle", "4096", "d0000-00", scores=(1.0, 1.0)),
        pair("needle", "8192", "d1000-00", scores=(1.0, 0.0)),
    ]
    pairs += [pair("needle", "long", "d0000-00", scores=(1.0, 1.0)), pair("needle", "4096", "deep", scores=(1.0, 1.0))]
    table = needle_tables.tables(SuiteRun(pairs))[1]
    assert table.rows == [("0 %", "100.0 %", "100.0 %", "–", "–"), ("100 %", "–", "–", "100.0 %", "0.0 %")]


def test_answers_that_the_published_score_sees_otherwise_are_named() -> None:
    same, doubled, grouped = {"substring": 1.0}, {"substring": 1.0}, {"substring": 0.0}
    pairs = [
        pair("ruler", "niah_single_1@4096", "0", scores=(1.0, 1.0), metrics=(same, same)),
        pair("ruler", "niah_single_1@4096", "1", scores=(1.0, 0.0), metrics=(same, doubled)),
        pair("ruler", "vt@4096", "0", scores=(1.0, 1.0), metrics=(grouped, same)),
    ]
    found = {table.title: table for table in ruler_tables.tables(SuiteRun(pairs))}
    table = found["Where RULER's substring score differs"]
    assert list(row(table, "niah_single_1@4096").values())[2:] == ["100.0 %", "100.0 %", "0", "1", "0", "0"]
    assert list(row(table, "vt@4096").values())[2:] == ["0.0 %", "100.0 %", "0", "0", "1", "0"]
    agreeing = ruler_tables.tables(SuiteRun(pairs[:1]))
    assert not any("substring" in table.title for table in agreeing)


def test_what_answers_nothing_is_counted_beside_wrong_answers() -> None:
    pairs = [pair("cot", "a", scores=(1.0, 0.0), metrics=({}, {"no_answer": 1.0}))]
    table = score_tables.tables(SuiteRun(pairs))[1]
    assert list(row(table, "a").values()) == ["a", "1", "0", "1"] and "Nothing answered" in table.columns[2]
