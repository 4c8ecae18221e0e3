"""The evidence: its pieces do what they say, the stored results hold the claims, the page is what they render to."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verdict_samples
from scipy import stats

from benchmarks.validity import figure, outcomes, page, pairs, runs, scores, sequential, tables
from benchmarks.validity.__main__ import DIVERGENCES, DOCS, RESULTS, main
from benchmarks.validity.cells import Call, Cells, seeded
from harness.judging.paired_rates import paired_interval, tango_interval
from harness.judging.resampling import ratio_interval
from harness.judging.sequential import run_test

pytestmark = pytest.mark.long

DATA = Path(os.environ.get("QUANTGATE_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    """The results that are committed."""
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return found


def at_most(rate: float, trials: int) -> bool:
    """A simulated rate that a true one of 5 % can bring."""
    return rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


# -- the pieces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(("p_b", "p_c"), [(0.0, 0.0), (0.02, 0.0), (0.1, 0.04), (0.0, 0.2), (0.4, 0.1)])
def test_many_streams_stop_where_the_product_stops(margin: float, p_b: float, p_c: float) -> None:
    rng = np.random.default_rng(5)
    streams = rng.choice([1, -1, 0], size=(12, 700), p=[p_b, p_c, 1 - p_b - p_c]).astype(np.int8)
    used, outcome = sequential.stops(lambda running, start, n: streams[running, start : start + n], 12, 700, margin)
    for stream, items, decided in zip(streams, used, outcome, strict=True):
        test = run_test(stream.astype(float).tolist(), margin)
        assert (len(test.losses), test.outcome) == (items, {1: "PASS", -1: "FAIL", 0: None}[int(decided)])


def test_drawn_streams_have_the_shares_asked_for() -> None:
    losses = sequential.drawn(np.random.default_rng(0), 0.1, 0.04)(np.arange(400), 0, 1000)
    assert np.mean(losses == 1) == pytest.approx(0.07, abs=0.002)
    assert np.mean(losses == -1) == pytest.approx(0.03, abs=0.002)


def test_tables_say_what_the_interval_says() -> None:
    n = 30
    bounds = tables.grid(n)
    assert max(tables.inversion(n, bounds).values()) <= 1e-7
    for threshold in (0.0, 0.05, 0.2):
        for side in ("upper", "lower"):
            table = tables.staircase(n, threshold, side)
            assert table == tables.table_of_grid(bounds[side], threshold)
            for b, c in [(0, 0), (3, 1), (9, 2), (2, 9), (20, 10)]:
                assert (getattr(paired_interval(b, c, n), side) <= threshold) == (b <= table[c])


def test_simulated_rates_are_the_exact_ones() -> None:
    n, margin = 40, 0.05
    named = {f"{side} {t}": tables.staircase(n, t, side) for t in (0.05, 0.0) for side in ("upper", "lower")}
    exact = pairs.enumerate_cell(n, 0.1, margin, named, (margin,))
    found = pairs.simulate(n, 0.1, margin, named, 40_000, (margin,))
    assert found["passed"]["0.05"] == pytest.approx(exact["passed"]["0.05"], abs=0.005)
    assert found["lower_missed"] == pytest.approx(exact["lower_missed"], abs=0.005)


def test_other_methods_are_what_their_sources_say() -> None:
    # Bentur et al. 2009, (1, 1; 7, 12), in Fagerland, Lydersen and Laake (2014): -0.507 to -0.026 by Newcombe.
    low, high = pairs.newcombe_of_table(1, 1, 7, 12, z=float(stats.norm.ppf(0.975)))
    assert (float(low), float(high)) == pytest.approx((-0.507, -0.026), abs=5e-4)
    for b, c, n in [(0, 0, 135), (3, 1, 60), (5, 9, 200)]:
        upper = tango_interval(b, c, n).upper
        for margin in (upper - 1e-4, upper + 1e-4):
            assert bool(pairs.passes("tango", np.array(b), np.array(c), n, margin)) == (upper <= margin)
        equal = stats.binomtest(min(b, c), b + c, 0.5).pvalue > 0.05 if b + c else True
        assert bool(pairs.passes("mcnemar", np.array(b), np.array(c), n, 0.01)) == equal


def test_tango_passes_falsely_where_the_exact_interval_does_not() -> None:
    found = pairs.compare_methods(135, 0.02, tables.staircase(135, 0.02, "upper"), (0.02,), 5)["at"]["0.02"]
    assert found["exact"] <= 0.05 and found["tango"] > 0.06


def test_ratio_bounds_of_many_sets_are_the_products() -> None:
    rng = np.random.default_rng(2)
    weights = rng.uniform(50, 400, (4, 20))
    sums = weights * rng.lognormal(0, 1, (4, 20))
    lower, upper = scores.fast_ratio_bounds(sums, weights)
    for row in range(4):
        found = ratio_interval(sums[row], weights[row])
        assert (found.lower, found.upper) == pytest.approx((lower[row], upper[row]), rel=1e-9)


def test_bca_is_near_scipys() -> None:
    rng = np.random.default_rng(3)
    weights = np.full((1, 40), 100.0)
    sums = weights * rng.lognormal(0, 0.7, (1, 40))
    lower, upper = scores.bca_bounds(sums, weights, 20_000, rng)
    ours = stats.bootstrap((sums[0] / 100,), np.mean, confidence_level=0.9, n_resamples=20_000, rng=rng)
    assert (lower[0], upper[0]) == pytest.approx(tuple(ours.confidence_interval), rel=0.01)


def test_shapes_have_the_stated_mean() -> None:
    for shape in (*scores.SHAPES, "fractions"):
        assert scores.draw_losses(shape, 100, 4_000).mean() == pytest.approx(scores.MEAN, abs=0.003)


def test_no_case_that_another_gate_let_through_passes() -> None:
    assert {case["verdict"] for case in outcomes.cases()} == {"INCONCLUSIVE"}


def test_a_run_that_was_ended_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    calls = [Call(tables.staircase, (20, t, "upper")) for t in (0.1, 0.2)]
    first = Cells(path).run(calls[:1])
    path.write_text(path.read_text() + '{"key": "tables.sta')  # cut off
    again = Cells(path)
    before = dict(again.seconds)
    assert again.run(calls)[:1] == first and again.seconds[calls[0].key] == before[calls[0].key]


def test_seeds_are_those_of_the_cell() -> None:
    assert seeded("a", 1).random() == seeded("a", 1).random() != seeded("a", 2).random()


def test_the_whole_command_runs_small(tmp_path: Path) -> None:
    out, cells = tmp_path / "results.json", tmp_path / "cells.jsonl"
    assert main(["--quick", "--trials", "40", "--out", str(out), "--cells", str(cells)]) == 0
    results = json.loads(out.read_text("utf-8"))
    assert results["plan"]["trials"] == 40
    text = page.render(results, json.loads((tmp_path / DIVERGENCES.name).read_text("utf-8")))
    assert "Not measured: no folder of real outcomes was given" in text and "$" not in text
    figure.draw(results, tmp_path / "none.svg")  # no curve in so small a run
    assert not (tmp_path / "none.svg").exists()


@pytest.mark.skipif(not (DATA / outcomes.SWEBENCH).is_dir(), reason=f"no real outcomes in {DATA}")
def test_a_published_bootstrap_agrees() -> None:
    assert outcomes.published_pairs(str(DATA))["largest_difference"] <= 0.005


# -- what is stored ----------------------------------------------------------------------------------------------


def test_the_page_is_what_the_results_render_to(stored: dict[str, Any]) -> None:
    assert DOCS.read_text("utf-8") == page.render(stored, json.loads(DIVERGENCES.read_text("utf-8")))


def test_the_stored_results_are_those_of_a_full_run(stored: dict[str, Any]) -> None:
    plan = stored["plan"]
    assert plan["trials"] >= 20_000 and {10, 50, 100, 500, 1319} <= set(plan["items"])
    assert "skipped" not in stored["outcomes"]


def test_no_stored_cell_is_wrong_more_often_than_claimed(stored: dict[str, Any]) -> None:
    for row in stored["pairs"]:
        exact = row["exact"]
        assert exact["upper_missed"] <= 0.05 and exact["lower_missed"] <= 0.05
        assert at_most(row["simulated"]["upper_missed"], row["trials"])
        assert at_most(row["simulated"]["lower_missed"], row["trials"])
        for margin, passed in exact["passed"].items():
            assert passed <= 0.05 or row["loss"] < float(margin)
        for margin, failed in exact["failed"].items():
            assert failed <= 0.05 or row["loss"] > float(margin)
    for row in stored["methods"]:
        assert row["worst"]["exact"]["rate"] <= 0.05
    for row in stored["sequential"]["errors"]:
        wrong = [*row["passed"].values()] if row["loss"] >= row["margin"] else []
        wrong += [*row["failed"].values()] if row["loss"] <= row["margin"] else []
        assert all(at_most(rate, row["trials"]) for rate in wrong)


def test_stored_tables_stand_for_the_products_interval(stored: dict[str, Any]) -> None:
    found = stored["tables"]
    assert all(step <= 1e-7 for grid in found["grids"].values() for step in grid.values())
    assert [found["edges"][side]["wrong"] for side in ("upper", "lower")] == [0, 0]
    assert found["spots"]["wrong"] == {"upper": 0, "lower": 0}


def test_stored_graded_scores_miss_no_more_than_claimed(stored: dict[str, Any]) -> None:
    for row in stored["graded"]:
        assert at_most(row["ours"]["upper"], row["trials"]) and at_most(row["ours"]["lower"], row["trials"])


def test_stored_ratios_miss_less_than_others_and_hold_for_moderate_tails(stored: dict[str, Any]) -> None:
    for row in stored["ratios"]:
        assert row["ours"]["upper"] < min(row["bca"]["upper"], row["t"]["upper"])
        if row["sigma"] <= 0.75:
            assert at_most(row["ours"]["upper"], row["trials"])


def test_stored_real_outcomes_say_what_the_page_says(stored: dict[str, Any]) -> None:
    found = stored["outcomes"]
    assert {case["verdict"] for case in stored["cases"]} == {"INCONCLUSIVE"}
    assert found["published_pairs"]["largest_difference"] <= 0.005
    assert [check["verdict"] for check in found["quantized_llama"]["cot 0.01"]] == ["FAIL"]
    assert found["swebench"]["traps"]
    near = next(p for p in found["swebench"]["pairs"] if (p["reference_right"], p["candidate_right"]) == (372, 371))
    assert sorted([near["b"], near["c"]]) == [28, 29] and near["verdicts"]["0.01"] == "INCONCLUSIVE"


# -- whole runs and gaps -----------------------------------------------------------------------------------------


def test_whole_runs_gaps_and_lengths_keep_their_five_percent(stored: dict[str, Any]) -> None:
    found = stored["whole_runs"]
    assert {r["checks"] for r in found["runs"]} == {1, 13, 57} == {r["checks"] for r in found["broken"]}
    for row in found["runs"]:
        if row["loss"] <= runs.MARGIN:
            assert at_most(row["fail"], row["trials"])
        if row["loss"] >= runs.MARGIN:
            assert at_most(row["pass"], row["trials"])
    assert all(at_most(row["pass"], row["trials"]) for row in found["broken"])
    assert all(at_most(row[name], row["trials"]) for row in found["gaps"] for name in ("PASS", "FAIL"))
    assert all(at_most(row["betting"], row["trials"]) for row in found["lengths"])
    # What it would be otherwise: the tables can tell.
    assert max(row["uncorrected"] for row in found["runs"] if row["loss"] <= runs.MARGIN) > 0.5
    assert max(row["left out, PASS"] for row in found["gaps"]) > 0.1


@pytest.mark.parametrize(("b", "c"), [(0, 0), (3, 1), (12, 8), (30, 2), (21, 0), (5, 9)])
def test_simulated_checks_are_judged_as_the_product_judges_them(b: int, c: int) -> None:
    samples = verdict_samples.pairs(verdict_samples.counts(both=runs.ITEMS - b - c, lost=b, won=c))
    check = {"metric": "accuracy", "on": "cot/gsm8k", "max_loss": runs.MARGIN}
    whole, quick = verdict_samples.decided(check, samples), runs.judged(b, c, runs.ITEMS, runs.MARGIN)
    assert (quick.verdict, quick.p_fail) == (whole.verdict, whole.p_fail)
