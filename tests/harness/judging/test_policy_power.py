"""What a policy can decide: its chances against simulated runs of the code that judges."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from brute_force import chances as chances_of_tables
from brute_force import tables
from scipy import stats

from harness.judging.paired_power import paired_chance
from harness.judging.paired_rates import paired_p_value
from harness.judging.policy_power import (
    GOAL,
    Planned,
    chance_of_fail,
    chance_of_pass,
    chances,
    run_chances,
    scaled,
)
from harness.judging.power import sequential_power

ONE = Planned("accuracy on cot", "cot", distance=0.05, items=300, variance=0.1)


p_value = lru_cache(None)(paired_p_value)


def simulated(planned: Planned, items: int, loss: float, level: float, verdict: str, trials: int = 150) -> float:
    assert planned.variance is not None
    d, margin = max(planned.variance, loss), planned.distance
    shares = [(d + loss) / 2, (d - loss) / 2, 1 - d]
    rows = np.random.default_rng(3).multinomial(items, shares, trials)
    if verdict == "PASS":
        return float(np.mean([p_value(int(c), int(b), items, -margin) <= level for b, c, _ in rows]))
    return float(np.mean([p_value(int(b), int(c), items, margin) <= level for b, c, _ in rows]))


@pytest.mark.parametrize(("items", "d"), [(60, 0.1), (300, 0.2)])
def test_chances_are_those_of_simulated_checks(items: int, d: float) -> None:
    planned = replace(ONE, variance=d)
    assert chance_of_pass(planned, items) == pytest.approx(simulated(planned, items, 0.0, 0.05, "PASS"), abs=0.1)
    for checks in (1, 13):
        said = chance_of_fail(planned, items, 0.05 / checks)
        assert said == pytest.approx(simulated(planned, items, 0.1, 0.05 / checks, "FAIL"), abs=0.1)


@pytest.mark.parametrize(("n", "d", "loss"), [(12, 0.5, 0.2), (24, 0.3, 0.3)])
def test_the_chances_of_few_items_are_exact(n: int, d: float, loss: float) -> None:
    b, c = tables(n)
    weights = chances_of_tables(n, loss, np.array([(d - loss) / 2]))[0]
    counts = list(zip(b.astype(int).tolist(), c.astype(int).tolist(), strict=True))
    passing = [paired_p_value(y, x, n, -0.3) <= 0.05 for x, y in counts]
    failing = [paired_p_value(x, y, n, 0.1) <= 0.01 for x, y in counts]
    assert paired_chance("PASS", n, d, loss, 0.3) == pytest.approx(weights[passing].sum(), abs=2e-5)
    assert paired_chance("FAIL", n, d, loss, 0.1, level=0.01) == pytest.approx(weights[failing].sum(), abs=2e-5)
    with pytest.raises(ValueError, match="does not fit"):
        paired_chance("PASS", n, 0.1, 0.2, 0.3)


def test_a_ceiling_is_a_second_way_to_fail_and_a_second_thing_to_show() -> None:
    cut = replace(ONE, items=100, variance=0.02, ceiling=0.1)
    assert chance_of_pass(cut, 100) == chance_of_pass(replace(cut, ceiling=None), 100)  # no rate is known
    # 4 of 100 is the most that is shown to lie below 10 % (Clopper and Pearson).
    assert stats.binom.cdf(4, 100, 0.1) <= 0.05 < stats.binom.cdf(5, 100, 0.1)
    low, high = replace(cut, rate=0.01), replace(cut, rate=0.06)
    alone = chance_of_pass(replace(cut, ceiling=None), 100)
    for each in (low, high):
        assert chance_of_pass(each, 100) == pytest.approx(alone * stats.binom.cdf(4, 100, each.rate))
    # Twice the margin is 10 points more: 16 %, of which 17 or more of 100 lie above 10 % at half of 5 %.
    assert stats.binom.sf(16, 100, 0.1) <= 0.025 < stats.binom.sf(15, 100, 0.1)
    least = paired_chance("FAIL", 100, 0.1, 0.1, 0.05, level=0.025)
    assert chance_of_fail(high, 100, 0.05) == pytest.approx(max(least, stats.binom.sf(16, 100, 0.16)))


def test_the_run_needs_all_for_a_pass_and_one_for_a_fail() -> None:
    found = chances([ONE] * 26)
    # 80 % for each of 26 checks would be 0.3 % for the run.
    assert run_chances([replace(c, passes=0.8, fails=0.5) for c in found]) == pytest.approx((0.8**26, 1 - 0.5**26))
    assert found[0].needed is not None
    enough = chances([replace(ONE, items=found[0].needed)] * 26)
    assert run_chances(enough)[0] == pytest.approx(GOAL, abs=0.05)
    fewer = chances([replace(ONE, items=found[0].needed // 2)] * 26)
    assert run_chances(fewer)[0] < GOAL / 2


def test_without_a_discordant_item_the_exact_bound_decides() -> None:
    none = replace(ONE, variance=0.0)
    assert (chance_of_pass(none, 58), chance_of_pass(none, 59)) == (0.0, 1.0)  # 0.95^59 < 0.05
    assert chances([none])[0].needed == 59


def test_repeats_help_as_far_as_the_spread_is_noise() -> None:
    noisy = replace(ONE, variance=0.2, noise=0.18)
    (found,) = chances([noisy])
    assert found.needed is not None and found.needed > 300 and found.repeats is not None and found.repeats < 10
    (same,) = chances([replace(noisy, noise=0.0)])
    assert same.repeats is None  # greedy answers are the same again


def test_what_is_not_known_decides_nothing() -> None:
    for planned in (replace(ONE, variance=None), replace(ONE, items=None), replace(ONE, distance=0.0)):
        (found,) = chances([planned])
        assert (found.passes, found.fails) == (0.0, 0.0)
    made = scaled([ONE, replace(ONE, items=None), replace(ONE, most=400), replace(ONE, most=200)], 2)
    assert [s.items for s in made] == [600, None, 400, 300]  # no more than there are


@pytest.mark.long
@pytest.mark.parametrize("d", [0.1, 0.2])
def test_a_sequential_check_costs_about_twice_the_items(d: float) -> None:
    planned = replace(ONE, variance=d, sequential=True)
    needed = next(n for n in range(50, 5000, 10) if chance_of_pass(planned, n) >= 0.8)
    half = int(500 * d)
    losses = [1.0] * half + [-1.0] * half + [0.0] * (1000 - 2 * half)
    assert sequential_power(losses, planned.distance, needed) == pytest.approx(0.8, abs=0.12)
