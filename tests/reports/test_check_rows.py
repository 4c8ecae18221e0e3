"""The rows of the table of checks: order, bars and words."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
from report_runs import result

from harness.contract.metrics import METRICS, Unit
from harness.judging.margins import more_items
from harness.judging.results import CheckResult, NoiseResult, TaskResult, show
from reports.check_rows import CheckRow, check_row, check_rows, telling, too_few
from reports.metric_words import WORDS
from reports.text import bare, quantity, unit_word
from reports.what_helps import NOT_ITEMS, items_there

SPEED = {"metric": "speed_ratio", "margin_kind": "min", "margin": 0.9, "unit": "ratio", "b": None, "c": None}


def row(**fields: object) -> CheckRow:
    return check_rows([result(**fields)])[0]


def between(name: str, verdict: str, lower: float | None, upper: float | None, margin: float = 0.01) -> CheckResult:
    estimate = None if lower is None or upper is None else (lower + upper) / 2
    return result(name=name, verdict=verdict, lower=lower, upper=upper, estimate=estimate, margin=margin)


def test_checks_are_sorted_by_how_close_they_are_to_failing() -> None:
    rows = check_rows(
        [
            between("roomy", "PASS", -0.02, 0.001),
            between("tight", "PASS", -0.02, 0.0099),
            between("tight in a wide margin", "PASS", -0.02, 0.05, margin=0.10),
            result(**SPEED, name="fast enough", lower=0.98, upper=1.2, estimate=1.0),
            result(**SPEED, name="hardly fast enough", lower=0.9001, upper=1.2, estimate=1.0),
            between("open", "INCONCLUSIVE", -0.01, 0.02),
            between("no numbers", "INCONCLUSIVE", None, None),
            between("failed", "FAIL", 0.02, 0.05),
        ]
    )
    assert [row.result.name for row in rows] == [
        "failed",
        "no numbers",
        "open",
        "hardly fast enough",
        "tight",
        "tight in a wide margin",
        "fast enough",
        "roomy",
    ]


def test_a_bar_puts_no_loss_and_the_margin_at_the_same_place_in_every_row() -> None:
    for margin in (0.01, 0.1):
        bar = row(lower=0.0, upper=margin, margin=margin).bar
        assert bar is not None and bar.start == pytest.approx(100 / 3) == bar.equal
        assert bar.end == pytest.approx(200 / 3)
        assert not bar.open_left and not bar.open_right
    longer = row(
        metric="length_ratio", margin_kind="max", unit="ratio", margin=1.2, lower=1.0, upper=1.2, estimate=1.1
    ).bar
    assert longer is not None and longer.start == pytest.approx(100 / 3) == longer.equal
    assert longer.end == pytest.approx(200 / 3)


def test_a_bar_holds_all_of_its_interval_and_says_where_a_bound_is_absent() -> None:
    far = row(verdict="FAIL", lower=0.05, upper=0.09, estimate=0.07).bar
    unbounded = row(lower=None, upper=None)
    zero = row(lower=-0.03, upper=0.0, margin=0.0).bar
    assert far is not None and not far.open_right and (far.estimate, far.end) == pytest.approx((200 / 3 + 25, 100))
    assert far.equal is not None and 0 < far.equal < 200 / 3 < far.start  # its own scale, around the same margin
    low = row(lower=-0.9, upper=0.02, estimate=-0.4).bar
    assert low is not None and low.start == pytest.approx(0) and 0 < low.estimate < low.end < 100
    assert unbounded.bar is not None and unbounded.bar.open_left and unbounded.bar.open_right
    assert unbounded.interval == "unbounded to unbounded"
    assert zero is not None and zero.end == pytest.approx(200 / 3) and zero.equal is None


@pytest.mark.parametrize(
    ("lower", "upper", "side"), [(0.92, 1.02, "right"), (0.6, 0.85, "left"), (0.85, 1.0, "across")]
)
def test_at_least_is_good_right_of_the_margin(lower: float, upper: float, side: str) -> None:
    bar = row(**SPEED, lower=lower, upper=upper, estimate=(lower + upper) / 2).bar
    assert bar is not None and bar.estimate is not None and bar.equal is not None
    margin = 200 / 3
    assert (bar.start > margin, bar.end < margin) == (side == "right", side == "left")
    assert bar.equal > margin  # as fast as the reference is good


@pytest.mark.parametrize("metric", ["accepted_length", "of another version"])
def test_a_value_of_the_candidate_alone_has_no_mark_of_no_loss(metric: str) -> None:
    length = {"metric": metric, "margin_kind": "min", "margin": 2.0, "unit": "ratio", "estimate": 2.4}
    bar = row(**length, lower=2.2, upper=2.6).bar  # accepted length 1: a draft head that never helps
    assert bar is not None and bar.equal is None and bar.start > 200 / 3
    rows = check_rows([result(**length, name=name, lower=lower) for name, lower in (("far", 2.3), ("near", 2.1))])
    assert [row.result.name for row in rows] == ["near", "far"]


def test_every_unit_is_worded_as_in_the_reasons() -> None:
    cases: list[tuple[Unit, float, str]] = [
        ("points", -0.012, "−1.2 points"),
        ("points", -0.0001, "0.0 points"),
        ("nats", 0.05, "0.0500 nats"),
        ("share", 0.1, "10.0 %"),
        ("ratio", 0.9, "0.900"),
    ]
    for unit, value, said in cases:
        assert quantity(unit, value) == said
        assert f"{bare(unit, value)} {unit_word(unit)}".strip() == said
        assert said.replace("−", "-") in (show(unit, value), show(unit, abs(value)))
    assert quantity("nats", None) == show("nats", math.inf) == "unbounded"


def test_a_row_is_worded_by_its_unit_and_not_by_its_metric() -> None:
    points = row(lower=-0.012, upper=0.004, estimate=-0.004)
    assert (points.estimate, points.interval, points.margin, points.unit) == ("−0.4", "−1.2 to 0.4", "≤ 1.0", "points")
    speed = row(**SPEED, lower=0.95, upper=1.05, estimate=1.0)
    assert (speed.estimate, speed.interval, speed.margin, speed.unit) == ("1.000", "0.950 to 1.050", "≥ 0.900", "")
    acceptance = row(metric="kl_mean", unit="points", estimate=0.1)  # the unit decides, whatever the name
    assert acceptance.estimate == "10.0"
    assert (points.counts, speed.counts) == ("2 / 2 / 4", "–")


def test_power_is_a_share_or_nothing() -> None:
    assert (row(power=0.314).power, row(power=None).power) == ("31 %", "–")


def test_both_values_and_recovery_stand_before_the_loss() -> None:
    values = {"reference_value": 0.208, "candidate_value": 0.042}
    lost = row(**values)
    assert (lost.title, lost.both, lost.recovery) == ("Accuracy", "20.8 → 4.2 %", "20.2 %")
    longer = row(**values, metric="truncated_rate")  # of what should be rare nothing is recovered
    assert (longer.title, longer.both, longer.recovery) == ("Answers cut by the budget", "20.8 → 4.2 %", "")
    assert (row(metric="kl_mean").both, row(metric="kl_mean").recovery) == ("", "")
    assert row(reference_value=0.0, candidate_value=0.1).recovery == ""
    assert row(metric="of another version", **values).title == "of another version"


def test_of_a_ratio_both_counts_are_shown() -> None:
    def shown(metric: str, reference: float, candidate: float) -> str:
        values = {"reference_value": reference, "candidate_value": candidate}
        return row(metric=metric, unit="ratio", **values).both

    assert shown("length_ratio", 150.4, 240.0) == "150 → 240 tokens"
    assert shown("bytes_ratio", 15.2e9, 5.6e9) == "15.2 GB → 5.6 GB"
    assert shown("speed_ratio", 1411.0, math.inf) == ""
    assert row(metric="length_ratio", unit="ratio", reference_value=1.0, candidate_value=2.0).recovery == ""


def test_every_metric_has_words() -> None:
    assert WORDS.keys() == METRICS.keys()
    assert len({*WORDS.values()}) == len(WORDS)


def test_no_more_items_are_named_than_there_are() -> None:
    said = "-1.0 points to 3.0 points straddles the margin of 1.0 points; "
    open_ = result(on="cot/math500", verdict="INCONCLUSIVE", items_needed=41_112, reason=said + more_items(41_112))
    planned, settings = {"cot/math500": 48, "cot/gsm8k": 48, "ruler/vt@4096": 20}, {"swebench": {"dataset": "my/own"}}
    there = partial(items_there, planned=planned, settings=settings)
    assert [there(on) for on in ("cot/math500", "cot", "ruler", "cot/math")] == [500, 1819, None, None]
    assert items_there("swebench", {"swebench/instances": 9}, {"swebench": {}}) == 500
    assert items_there("swebench", {"swebench/instances": 9}, settings) is None
    (capped,) = check_rows([open_], there)
    assert "all 500 items there are would not decide it" in capped.reason and "repeats" in capped.reason
    assert check_rows([open_])[0].reason.endswith("; about 41,112 items would decide")
    assert check_row(open_, 1, 41_112).reason.endswith("; about 41,112 items would decide")
    far = check_row(result(verdict="INCONCLUSIVE", reason=said + more_items(10**6)), 1).reason
    assert far.endswith(f"too near to the margin; {NOT_ITEMS}")


def test_a_task_that_was_asked_whole_has_no_more_items() -> None:
    """One that no hub's data set is known of: all that it has are those that a policy without a limit asked."""
    planned = {"cot/my_task": 240, "cot/my_other": 50}

    def there(**settings: Any) -> list[int | None]:
        return [items_there(on, planned, {"cot": settings}) for on in ("cot/my_task", "cot")]

    whole: dict[str, Any] = {"my_task": {}, "my_other": None}
    assert there(tasks=whole) == [240, 290]
    assert there(tasks=whole, repeats=2) == [120, 145]
    assert there(tasks=whole | {"my_task": {"repeats": 8}}) == [30, 80]
    assert there(tasks=whole | {"my_other": {"limit": 50}}) == [240, None]
    assert there(tasks=whole, limit=240) == [None, None]
    assert items_there("cot", planned, {}) is None
    assert there(tasks=["my_task"], repeats=[2]) == [None, None]  # a policy that nobody checked


def test_tasks_of_few_items_are_folded_and_one_that_breaks_the_margin_is_not() -> None:
    def task(name: str, n: int, broken: bool = False) -> TaskResult:
        return TaskResult(
            task=name, verdict="PASS", estimate=0.0, lower=-0.1, upper=0.1, n=n, p_fail=1.0, after_holm=broken
        )

    found = result(tasks=[task("a", 1), task("b", 2), task("c", 20), task("d", 2, True)])
    assert [each.task for each in telling(found)] == ["c", "d"]
    assert too_few(found) == "2 tasks of 1 to 2 items each"
    assert too_few(result(tasks=[task("a", 1)])) == "1 task of 1 item each"
    assert too_few(result(tasks=[task("a", 400)])) == ""


def test_the_noise_floor_stands_beside_the_estimate() -> None:
    paired = NoiseResult(estimate=0.0074, lower=-0.01, upper=0.02, n=400, b=7, c=5, discordant=12)
    assert row(noise=paired).noise == "noise floor 0.7 points"
    assert row(noise=paired).noise_counts == "D 12 of 400, −1.0 to 2.0"
    ratio = NoiseResult(estimate=0.003, n=20)
    kl = {"metric": "kl_mean", "unit": "nats", "noise": ratio}
    assert row(**kl, margin_kind="max").noise == "noise floor 0.0030 nats"
    assert row(**kl, margin_kind="max").noise_counts == "n 20, unbounded to unbounded"
    assert row(**kl, margin_kind="max_over_noise").noise == "above noise of 0.0030 nats"
    assert row().noise == row().noise_counts == ""
    few = NoiseResult(estimate=0.0, lower=-0.5, upper=0.5, n=4, b=0, c=0, discordant=0)
    assert row(noise=few).noise == row(noise=few).noise_counts == ""  # four items say nothing
    assert row(**kl | {"noise": few}, margin_kind="max_over_noise").noise  # here it is a part of the check


def test_a_sequential_check_says_after_how_many_items() -> None:
    assert row(stop="sequential", n=112, planned=400).remarks == ["decided after 112 of 400 items"]
    undecided = row(stop="sequential", n=400, planned=400, verdict="INCONCLUSIVE")
    assert undecided.remarks == ["not decided after 400 of 400 items"]
    assert row(n=400, planned=400).remarks == []


def test_a_fail_that_does_not_stand_after_holm_is_marked() -> None:
    fails = {"verdict": "FAIL", "p_fail": 0.031}
    rows = check_rows([result(**fails, after_holm=False), result(**fails, after_holm=True), result()])
    said = "fails by itself, which may be chance among 3 checks (p 0.031; Holm's correction): INCONCLUSIVE"
    assert [row.remarks for row in rows] == [[said], [], []]
    (remark,) = row(verdict="FAIL", after_holm=False).remarks
    assert remark == "fails by itself, which may be chance among 1 check (no p value; Holm's correction): INCONCLUSIVE"
    rows = check_rows([result(**fails, after_holm=False), result(advisory=True)])  # what has no say is not counted
    assert "among 1 check " in rows[0].remarks[0] and rows[1].remarks == ["advisory: no say in the run's verdict"]


def test_gaps_are_shown_with_both_bounds() -> None:
    gaps = {"missing": 2, "errored": 1, "lower_with_gaps": -0.012, "upper_with_gaps": 0.021}
    assert row(**gaps).remarks == ["with 3 gaps filled for and against it: −1.2 to 2.1"]
    unbounded = row(missing=1, lower_with_gaps=-0.01).remarks
    assert unbounded == ["with 1 gap filled for and against it: −1.0 to unbounded"]
    assert row(approximate=True).remarks == ["approximate bounds: outside of the run's error rates"]


def test_tasks_of_a_pooled_check_stand_under_it() -> None:
    tasks = [
        TaskResult(
            task=name, verdict="PASS", estimate=0.0, lower=-0.01, upper=0.02, n=1000, p_fail=p, after_holm=stands
        )
        for name, p, stands in (("fine", 1.0, False), ("bad", 0.001, True))
    ]
    found = row(tasks=tasks)
    assert found.tasks[1] == "fine: 0.0 (−1.0 to 2.0), n 1,000, PASS alone" and found.tasks[0].startswith("bad: ")
    assert found.remarks == ["by more than chance among 2 tasks breaks the margin (Holm's correction): bad"]


def test_foreign_samples_are_among_those_left_out() -> None:
    assert row(missing=1200, errored=0, unequal=1, foreign=3).unusable == ["1,200 missing", "1 unequal", "3 foreign"]
