"""Ratios over documents: each metric of them passes, fails and stays undecided where its figures say so."""

import pytest
from check_cases import KL, RATIOS, WORSE, accepted, drafts, ratios
from verdict_samples import decided, documents

from harness.contract.metrics import METRICS, Difference, Ratio
from harness.judging.resampling import ratio_interval

MARGINS = {
    "kl_mean max": 0.05,
    "tv_mean max": 0.2,
    "js_mean max": 0.2,
    "kl_capped_mean max": 0.2,
    "flip_rate max": 0.1,
    "parting_rate max": 0.11,
    "length_ratio max": 1.1,
    "length_ratio min": 0.8,
    "steps_ratio max": 1.1,
    "steps_ratio min": 0.8,
    "speed_ratio min": 0.8,
    "acceptance max_loss": 0.1,
    "accepted_length min": 2.0,
    "bytes_ratio max": 1.1,
}


@pytest.mark.parametrize("name", sorted(RATIOS))
@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_a_ratio_is_judged_by_its_bounds(name: str, verdict: str) -> None:
    metric, kind = name.split()
    samples, margin = RATIOS[name][verdict], MARGINS[name]
    result = decided({"metric": metric, "on": "x", kind: margin}, samples)
    assert (result.verdict, result.margin_kind, result.unit) == (verdict, kind, METRICS[metric].unit)
    assert (result.b, result.c, result.discordant) == (None, None, None)
    if metric == "bytes_ratio":
        assert result.power is None
        return
    assert (result.power is None) == (metric == "accepted_length")  # of the candidate alone: equal to what?
    found = METRICS[metric]
    assert isinstance(found, Ratio) and result.n == len(samples) // 2 and result.estimate is not None
    methods = {True: "betting bound over documents", False: "Bayesian bootstrap by document"}
    assert (result.method, result.approximate) == (methods[found.bounded], not found.bounded)
    assert result.lower is not None and result.upper is not None
    keeps, breaks = result.upper <= margin, result.lower > margin
    if kind == "min":
        keeps, breaks = result.lower >= margin, result.upper < margin
    assert (keeps, breaks) == (verdict == "PASS", verdict == "FAIL")
    assert result.lower <= result.estimate <= result.upper


def test_repeats_of_an_item_are_one_document() -> None:
    check = {"metric": "length_ratio", "on": "x", "max": 1.1}
    once = RATIOS["length_ratio max"]["INCONCLUSIVE"]
    often = [sample.model_copy(update={"repeat": repeat}) for sample in once for repeat in range(4)]
    one, four = decided(check, once), decided(check, often)
    assert (four.n, four.verdict) == (one.n, one.verdict) == (len(once) // 2, "INCONCLUSIVE")
    assert (four.estimate, four.lower, four.upper) == pytest.approx((one.estimate, one.lower, one.upper))


def test_every_metric_and_margin_is_tested_three_ways() -> None:
    pairs_of = {f"{name} {kind}" for name, m in METRICS.items() for kind in m.margins if not isinstance(m, Difference)}
    over = ("kl_mean", "flip_rate", "parting_rate", "tv_mean", "js_mean", "kl_capped_mean")
    noisy = {f"{name} max_over_noise" for name in over}  # test_checks_noise.py, test_checks_bounded.py
    assert set(RATIOS) | noisy == pairs_of
    assert set(WORSE) == {name for name, m in METRICS.items() if isinstance(m, Difference)}
    assert all(set(three) == {"PASS", "FAIL", "INCONCLUSIVE"} for three in RATIOS.values())


def test_kl_is_a_mean_over_positions_with_the_upper_sums_as_its_estimate() -> None:
    rows = [(1.0, 2.0, 10.0), (0.0, 0.0, 990.0), (1.0, 2.0, 1000.0)] * 10
    result = decided(KL, documents(rows))
    low, high, positions = zip(*rows, strict=True)
    assert result.estimate == pytest.approx(40 / 20_000)
    assert result.upper == ratio_interval(high, positions).upper
    assert result.lower == ratio_interval(low, positions).lower


def test_a_ratio_of_lengths_is_of_all_tokens_and_not_a_mean_of_ratios() -> None:
    result = decided(
        {"metric": "length_ratio", "on": "x", "max": 2.0}, ratios("tokens", [(1000, 1000), (10, 100)] * 10)
    )
    assert result.estimate == pytest.approx(1100 / 1010)


def test_acceptance_is_weighted_by_the_fewer_drafts() -> None:
    result = decided(
        {"metric": "acceptance", "on": "x", "max_loss": 0.1}, drafts([(80, 100, 45, 90), (50, 100, 50, 100)] * 10)
    )
    assert result.estimate == pytest.approx(27 / 190)
    better = decided({"metric": "acceptance", "on": "x", "max_loss": 0.1}, drafts([(40, 100, 80, 100)] * 20))
    assert better.verdict == "PASS" and better.estimate == pytest.approx(-0.4)
    assert better.lower is not None and better.lower < -0.4  # a gain has a lower bound, too


def test_a_draft_head_that_never_helps_fails_and_a_server_without_one_shows_nothing() -> None:
    check = {"metric": "accepted_length", "on": "x", "min": 1.1}
    broken = decided(check, accepted([(0.0, 100.0)] * 48))
    assert (broken.verdict, broken.estimate) == ("FAIL", 1.0)
    assert decided(check, accepted([(60.0, 100.0)] * 48)).verdict == "PASS"
    assert decided(check, accepted([(0.0, 0.0)] * 48)).verdict == "INCONCLUSIVE"


def test_what_both_models_have_stands_beside_their_ratio() -> None:
    found = decided({"metric": "length_ratio", "on": "x", "max": 2.0}, ratios("tokens", [(1000, 1100), (10, 100)] * 10))
    assert (found.reference_value, found.candidate_value) == (505.0, 600.0)
    alone = decided({"metric": "kl_mean", "on": "x", "max": 0.1}, RATIOS["kl_mean max"]["PASS"])
    assert alone.reference_value is alone.candidate_value is None


def test_the_size_of_a_file_is_known_exactly() -> None:
    check = {"metric": "bytes_ratio", "on": "footprint", "max": 0.3}
    result = decided(check, ratios("bytes", [(1000.0, 250.0), (3000.0, 950.0)]))
    assert (result.estimate, result.lower, result.upper) == (0.3, 0.3, 0.3)
    assert (result.verdict, result.method, result.n) == ("PASS", "exact", 2)
    assert decided(check, ratios("bytes", [(1000.0, 250.0), (3000.0, 951.0)])).verdict == "FAIL"


def test_a_smallest_value_is_missed_from_below() -> None:
    check = {"metric": "speed_ratio", "on": "x", "min": 0.8}
    slow = decided(check, RATIOS["speed_ratio min"]["FAIL"])
    assert "below the margin of 0.800" in slow.reason and slow.reason.startswith("upper bound")
    fast = decided(check, RATIOS["speed_ratio min"]["PASS"])
    assert fast.reason.startswith("lower bound") and "at least 0.800" in fast.name
    # The bound that decides is the lower one: 40 times faster on average says nothing of a slowest document.
    lower = decided(check | {"min": 0.5}, RATIOS["speed_ratio min"]["INCONCLUSIVE"]).lower
    assert lower is not None
    at = decided(check | {"min": lower}, RATIOS["speed_ratio min"]["INCONCLUSIVE"])
    above = decided(check | {"min": lower + 1e-6}, RATIOS["speed_ratio min"]["INCONCLUSIVE"])
    assert (at.verdict, above.verdict) == ("PASS", "INCONCLUSIVE")


@pytest.mark.parametrize("n", [1, 7])
def test_a_few_documents_decide_nothing_and_leave_no_infinity_behind(n: int) -> None:
    result = decided(KL, documents([(0.001, 0.001, 100.0)] * n))
    assert (result.verdict, result.n) == ("INCONCLUSIVE", n) and "too few" in result.reason
    assert (result.lower, result.upper, result.power, result.items_needed) == (None, None, None, 8)
    assert "Infinity" not in result.model_dump_json() and "NaN" not in result.model_dump_json()
