"""What a result says of itself: items needed, power, p value, names and units, and that it can be stored."""

import math

import pytest
from check_cases import ACCURACY, KL, RATIOS, TRUNCATED, truncated
from scipy import stats
from verdict_samples import counts, decided, documents, noise, pairs, policy, spread

from harness.judging.checks import undecided
from harness.judging.paired_rates import paired_interval, paired_p_value
from harness.judging.resampling import mean_p_value
from harness.judging.results import CheckResult, show
from harness.judging.statistics import items_to_decide, power_at_equality, standard_error


def test_without_a_flip_the_items_needed_are_those_of_an_exact_bound() -> None:
    for margin in (0.03, 0.01):
        result = decided(ACCURACY | {"max_loss": margin}, pairs(counts(both=20)))
        needed = result.items_needed
        assert needed == math.ceil(math.log(0.05) / math.log(1 - margin))
        assert decided(ACCURACY | {"max_loss": margin}, pairs(counts(both=needed + 1))).verdict == "PASS"
        fewer = decided(ACCURACY | {"max_loss": margin}, pairs(counts(both=needed - 2)))
        assert fewer.verdict == "INCONCLUSIVE" and f"about {needed:,} items would decide" in fewer.reason


def test_a_sequential_check_says_how_many_items_it_needs_itself() -> None:
    check = ACCURACY | {"max_loss": 0.03, "stop": "sequential"}
    result = decided(check, pairs(counts(both=20)))
    assert result.verdict == "INCONCLUSIVE" and result.items_needed is not None
    # 161 items without a flip are what the betting test takes, 99 an exact bound that is looked at once.
    assert decided(check, pairs(counts(both=math.ceil(1.1 * result.items_needed)))).verdict == "PASS"


def test_how_many_items_would_decide_is_about_right() -> None:
    few = decided(ACCURACY, pairs(counts(both=90, lost=4, won=4, neither=2)))
    assert few.verdict == "INCONCLUSIVE" and few.items_needed is not None and few.items_needed > 100
    interval = paired_interval(4, 4, 100)
    assert few.items_needed == items_to_decide(100, standard_error(interval, 0.95), 0.02)
    factor = math.ceil(few.items_needed / 100)
    enough = counts(both=90 * factor, lost=4 * factor, won=4 * factor, neither=2 * factor)
    assert decided(ACCURACY, pairs(enough)).verdict == "PASS"
    quarter = factor // 4
    fewer = counts(both=90 * quarter, lost=4 * quarter, won=4 * quarter, neither=2 * quarter)
    assert decided(ACCURACY, pairs(fewer)).verdict == "INCONCLUSIVE"


def test_an_estimate_on_the_margin_is_never_decided_by_more_items() -> None:
    result = decided(ACCURACY, pairs(counts(both=98, lost=2)))
    assert (result.verdict, result.items_needed) == ("INCONCLUSIVE", None)
    assert "more items may not decide it" in result.reason


@pytest.mark.parametrize("scores", [counts(both=90, lost=6, won=4), counts(lost=50), [(0.5, 0.25)] * 30])
def test_the_power_of_a_check_is_shown(scores: list[tuple[float, float]]) -> None:
    result = decided(ACCURACY, pairs(scores))
    assert result.power is not None and result.lower is not None and result.upper is not None
    half = max(result.upper - sum(r - c for r, c in scores) / len(scores), 0.0)
    half = max(half, sum(r - c for r, c in scores) / len(scores) - result.lower)
    assert result.power == pytest.approx(power_at_equality(half / 1.6448536, 0.02), abs=1e-3)


def test_the_p_value_of_a_failure_is_that_of_its_interval() -> None:
    result = decided(ACCURACY, pairs(counts(both=380, lost=18, won=2)))
    assert result.verdict == "FAIL"
    assert result.p_fail == paired_p_value(18, 2, 400, 0.02)
    assert result.p_fail is not None and 0 < result.p_fail < 0.05
    clear = decided(ACCURACY, pairs(counts(lost=200)))
    assert clear.p_fail is not None and clear.p_fail < 1e-3
    graded = decided(ACCURACY, pairs([(0.9, 0.8), (0.7, 0.5)] * 50))
    assert graded.p_fail == mean_p_value([0.9 - 0.8, 0.7 - 0.5] * 50, 0.02)
    slow = decided({"metric": "speed_ratio", "on": "x", "min": 0.8}, RATIOS["speed_ratio min"]["FAIL"])
    assert slow.p_fail is not None and slow.p_fail < 0.01
    cut = decided(TRUNCATED | {"ceiling": 0.02}, truncated(60, 1000))
    # A ceiling is a second way to fail: twice its p value is what stands for the check.
    assert cut.p_fail == pytest.approx(2 * stats.binom.sf(59, 1000, 0.02), abs=1e-12)
    for fine in (counts(both=400), counts(both=100, lost=1)):
        assert decided(ACCURACY, pairs(fine)).p_fail is None


def test_units_are_shown_as_people_write_them() -> None:
    assert show("points", 0.0123) == "1.2 points" and show("nats", 0.0123) == "0.0123 nats"
    assert show("share", 0.0123) == "1.2 %" and show("ratio", 0.3) == "0.300" and show("ratio", math.inf) == "unbounded"
    assert show("points", -1e-6) == "0.0 points" and show("points", -0.05) == "-5.0 points"


def test_names_say_what_must_hold() -> None:
    names = [
        decided(ACCURACY, []).name,
        decided(TRUNCATED, []).name,
        decided(KL, []).name,
        decided({"metric": "speed_ratio", "on": "speed", "min": 0.8}, []).name,
        decided({"metric": "flip_rate", "on": "divergence", "max_over_noise": 0.01}, []).name,
    ]
    assert names == [
        "loss of accuracy on cot/gsm8k at most 2.0 points",
        "increase of truncated_rate on cot/gsm8k at most 2.0 points",
        "kl_mean on divergence at most 0.0500 nats",
        "speed_ratio on speed at least 0.800",
        "flip_rate on divergence above the noise floor by at most 1.0 %",
    ]
    result = undecided(policy(ACCURACY).checks[0], 0.95, "nothing ran")
    assert (result.verdict, result.reason, result.n, result.planned) == ("INCONCLUSIVE", "nothing ran", 0, 0)


def test_a_result_survives_being_stored() -> None:
    for samples in (pairs(counts(both=50, lost=3)) + noise([1.0] * 9), documents(spread(0.1, 0.2, 9))):
        result = decided(KL if samples[0].suite == "divergence" else ACCURACY, samples)
        assert CheckResult.model_validate_json(result.model_dump_json()) == result
