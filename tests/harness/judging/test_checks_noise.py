"""The noise floor: the reference against itself, reported beside a check and as what a check is above."""

import pytest
from check_cases import ACCURACY, parted
from verdict_samples import changed, counts, decided, documents, noise, pairs, spread

from harness.judging.paired_rates import paired_interval
from harness.judging.resampling import ratio_interval


def test_the_reference_against_itself_is_reported_beside_the_check() -> None:
    samples = pairs(counts(both=450, lost=20, won=10, neither=20))
    again = noise([0.0] * 4 + [1.0] * 26)
    result = decided(ACCURACY, samples + again)
    assert result.noise is not None and result.n == 500
    found, interval = result.noise, paired_interval(4, 0, 30)
    assert (found.n, found.b, found.c, found.discordant) == (30, 4, 0, 4)
    assert (found.estimate, found.lower, found.upper) == interval
    without = decided(ACCURACY, samples)
    assert without.noise is None and without == result.model_copy(update={"noise": None})


def test_the_noise_floor_of_a_sequential_check_is_that_of_all_its_noise() -> None:
    samples = pairs(counts(both=500)) + noise([1.0] * 30 + [0.0] * 2)
    result = decided(ACCURACY | {"stop": "sequential"}, samples)
    assert result.noise is not None and result.n < 500
    assert (result.noise.n, result.noise.b) == (32, 2)
    assert (result.noise.estimate, result.noise.lower, result.noise.upper) == paired_interval(2, 0, 32)


OVER_NOISE = {"metric": "kl_mean", "on": "divergence", "max_over_noise": 0.01}


def test_without_a_noise_floor_nothing_is_known_to_lie_above_it() -> None:
    for rows in (spread(0.001, 0.001), spread(0.5, 0.5)):
        result = decided(OVER_NOISE, documents(rows))
        assert (result.verdict, result.noise) == ("INCONCLUSIVE", None)


@pytest.mark.parametrize(
    ("kl", "floor", "verdict"),
    [(0.025, 0.024, "PASS"), (0.025, 0.0, "FAIL"), (0.0247, 0.015, "INCONCLUSIVE"), (0.01, 0.03, "PASS")],
)
def test_divergence_is_judged_above_the_noise_floor(kl: float, floor: float, verdict: str) -> None:
    rows, again = spread(kl, kl), spread(floor, floor)
    result = decided(OVER_NOISE, documents(rows) + documents(again, role="noise"))
    assert result.verdict == verdict
    differences = [a[0] - b[0] for a, b in zip(rows, again, strict=True)]
    interval = ratio_interval(differences, [100.0] * 40, signed=True)
    assert (result.estimate, result.lower, result.upper) == pytest.approx(interval)
    assert result.noise is not None and result.noise.n == 40
    assert result.noise.estimate == pytest.approx(sum(b[1] for b in again) / 4000)


def test_flips_are_judged_above_the_noise_floor() -> None:
    check = {"metric": "flip_rate", "on": "divergence", "max_over_noise": 0.03}
    rows, verdicts = spread(0.01, 0.01, 200), []
    for extra in (0.0, 2.9, 9.0):
        again = documents(rows, [3.0 + i % 3 for i in range(200)], role="noise")
        verdicts.append(decided(check, documents(rows, [3.0 + extra + i % 3 for i in range(200)]) + again).verdict)
    assert verdicts == ["PASS", "INCONCLUSIVE", "FAIL"]


def test_partings_are_judged_above_the_noise_floor() -> None:
    # The reference leaves its own first answer once in 200 tokens: that often a candidate may leave it too.
    check = {"metric": "parting_rate", "on": "decoding", "max_over_noise": 0.03}
    again, verdicts = parted([198 + i % 3 for i in range(200)], "noise"), []
    for lengths in ([190, 192] * 100, [5, 50] * 100, [5, 7] * 100):
        verdicts.append(decided(check, parted(lengths) + again).verdict)
    assert verdicts == ["PASS", "INCONCLUSIVE", "FAIL"]


def test_what_is_uncertain_in_both_is_taken_from_either_side() -> None:
    # The candidate's KL is 0.02 to 0.03, the noise floor's 0.01 to 0.02: above it by 0 to 0.02, at other lengths too.
    rows = [(2.0, 3.0, 100.0)] * 20
    again = [(2.0, 4.0, 200.0)] * 20
    result = decided(OVER_NOISE, documents(rows) + documents(again, role="noise"))
    assert result.estimate == pytest.approx(0.02)
    assert result.lower == ratio_interval([0.0] * 20, [100.0] * 20, signed=True).lower
    assert result.upper == ratio_interval([2.0] * 20, [100.0] * 20, signed=True).upper


def test_only_documents_whose_noise_is_known_are_compared_with_it() -> None:
    rows, again = spread(0.025, 0.025), spread(0.024, 0.024)
    for sixteen in (documents(again[:16], role="noise"), documents(again, role="noise")[:16]):
        result = decided(OVER_NOISE, documents(rows) + sixteen)
        assert (result.n, result.verdict, result.planned) == (16, "PASS", 40)
    unknown = changed(documents(again, role="noise"), lambda s: int(s.item) >= 16, metrics={})
    result = decided(OVER_NOISE, documents(rows) + unknown)
    assert result.estimate is not None and result.estimate < 0.01  # what has no noise is not all "above the noise"
    assert result.verdict != "FAIL"


def test_unusable_pairs_are_a_share_of_all_that_were_planned_also_above_the_noise_floor() -> None:
    samples = documents(spread(0.025, 0.025, 500)) + documents(spread(0.024, 0.024, 32), role="noise")
    spoilt = changed(samples, lambda s: int(s.item) in (400, 401) and s.role == "candidate", error="server: 500")
    assert decided(OVER_NOISE, spoilt).verdict == "PASS"  # 2 of 500 are 0.4 %
