"""Heat maps of RULER and needle: their numbers, worked out by hand, and equal to those of the tables."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from report_page import printed
from suite_runs import pair, ruler

from reports.drawing import heatmap
from reports.drawing.heatmap import Grid, change_tone, worth_drawing
from reports.known_suites import known_suite
from reports.scores import all_scores, by_task
from reports.suite_figures import (
    needle,
)
from reports.suite_figures.ruler import finding, short
from reports.suite_tables.table import SuiteRun


def of_ruler(scores: dict[str, Sequence[tuple[float, float]]]) -> SuiteRun:
    pairs = [
        pair("ruler", task, str(number), scores=both)
        for task, found in scores.items()
        for number, both in enumerate(found)
    ]
    return SuiteRun(pairs, list(scores))


def test_the_ruler_map_prints_both_scores_of_every_cell_once() -> None:
    run = of_ruler(
        {
            "vt@4096": [(1, 1), (1, 0), (0, 0), (1, 1)],
            "vt@8192": [(1, 0), (1, 0)],
            "cwe@4096": [(0.5, 0.75)],
        }
    )
    (figure,) = known_suite("ruler").figures(run)
    assert figure.finding == "The largest drop is vt at 8k tokens: 100.0 % to 0.0 %."
    words = printed(figure.draw("x"))
    assert "reference → candidate, %" in words
    cells = [word for word in words if (" → " in word and "reference" not in word) or word == "–"]
    # rows: vt, cwe, all tasks; columns: 4k, 8k
    assert cells == ["75 → 50", "100 → 0", "50 → 75", "–", "70 → 55", "100 → 0"]
    assert words.count("4k") == words.count("8k") == 1
    assert "vt" in words and "cwe" in words and "all tasks" in words


def test_the_ruler_map_has_the_numbers_of_its_table() -> None:
    run = SuiteRun(list(ruler(random.Random(3))))
    (figure,) = known_suite("ruler").figures(run)
    words = printed(figure.draw("x"))
    for task in all_scores(by_task(run.pairs)):
        both = [f"{100 * (role.score or 0):.1f}".removesuffix(".0") for role in (task.reference, task.candidate)]
        assert " → ".join(both) in words


def test_one_length_or_one_task_is_no_map_but_rows() -> None:
    (rows,) = known_suite("ruler").figures(of_ruler({"vt@4096": [(1, 0)], "cwe@4096": [(1, 1)]}))
    assert rows.title == "Score by task"
    assert rows.finding == "The candidate is lower on 1 of 2 tasks, most on vt@4096: 100.0 % to 0.0 % (−100.0 points)."
    (rows,) = known_suite("ruler").figures(of_ruler({"vt@4096": [(1, 1)], "vt@8192": [(1, 1)]}))
    assert (rows.title, rows.finding) == ("Score by task", "The candidate is lower on no task.")
    assert known_suite("needle").figures(SuiteRun([pair("needle", "4096", "d0000-00", scores=(1.0, 1.0))])) == []


def test_more_lengths_than_fit_are_said_and_the_longest_stay() -> None:
    lengths = [1024 * 2**n for n in range(12)]
    run = of_ruler({f"{task}@{length}": [(1, 1)] for task in ("vt", "cwe") for length in lengths})
    (figure,) = known_suite("ruler").figures(run)
    assert figure.finding == "The 10 longest of 12 lengths. The candidate is lower in none of 24 cells."
    words = printed(figure.draw("x"))
    assert "2M" in words and "4k" in words and "2k" not in words


def test_the_needle_map_is_depth_by_length() -> None:
    pairs = [
        pair("needle", str(length), f"d{depth:04d}-{number:02d}", scores=(1.0, float(lost > number)))
        for length, depth, lost in ((4096, 0, 2), (4096, 500, 2), (32256, 0, 2), (32256, 500, 1))
        for number in range(2)
    ]
    (figure,) = needle.figures(SuiteRun(pairs))
    assert figure.finding == "The largest drop is depth 50 % at 31.5k tokens: 100.0 % to 50.0 %."
    words = printed(figure.draw("x"))
    assert [w for w in words if w.startswith("100 → ")] == ["100 → 100", "100 → 100", "100 → 100", "100 → 50"]
    assert words.count("31.5k") == 1 and "0 %" in words and "50 %" in words


@pytest.mark.parametrize(
    ("length", "said"), [(512, "512"), (4096, "4k"), (32256, "31.5k"), (131072, "128k"), (2**20, "1M")]
)
def test_lengths_are_short(length: int, said: str) -> None:
    assert short(length) == said


def test_two_lengths_that_would_be_called_the_same_keep_their_own_columns() -> None:
    (figure,) = known_suite("ruler").figures(
        of_ruler({f"{t}@{n}": [(1, n % 2)] for t in ("vt", "cwe") for n in (4096, 4097)})
    )
    assert figure.finding == "The largest drop is cwe at 4,096 tokens: 100.0 % to 0.0 %."
    assert {"4,096", "4,097"} < {*printed(figure.draw("x"))}


def test_tones_grow_with_what_they_show_and_no_change_has_none() -> None:
    changes = (0.0, 0.0004, -0.0006, -0.1, -0.4, -1.0, 0.1, 1.0)
    said = ["heat-0", "heat-0", "drop-1", "drop-2", "drop-6", "drop-6", "gain-2", "gain-6"]
    assert [change_tone(change) for change in changes] == said


def test_the_largest_drop_is_of_a_single_row_and_ties_are_steady() -> None:
    cells = {("a", "x"): (1.0, 0.5), ("a", "y"): (1.0, None), ("all", "x"): (1.0, 0.0)}
    grid = Grid(["a", "all"], ["x", "y"], cells, "", total=True)
    assert grid.largest_drop == ("a", "x", 1.0, 0.5)
    assert worth_drawing(grid)
    assert not worth_drawing(Grid(["a", "b"], ["x", "y"], {("a", "x"): (None, None)}, ""))
    even = Grid(["a", "b"], ["x", "y"], {("a", "x"): (1.0, 1.0)}, "")
    assert finding(even) == "The candidate is lower in none of 1 cell."
    assert heatmap.MAX_COLUMNS == 10
