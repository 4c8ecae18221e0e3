"""What a policy can decide: its chances against simulated runs of the code that judges."""

from dataclasses import replace

import numpy as np
import pytest

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


def simulated(planned: Planned, items: int, loss: float, level: float, verdict: str, trials: int = 150) -> float:
    assert planned.variance is not None
    d, margin = max(planned.variance, loss), planned.distance
    shares = [(d + loss) / 2, (d - loss) / 2, 1 - d]
    rows = np.random.default_rng(3).multinomial(items, shares, trials)
    if verdict == "PASS":
        return float(np.mean([paired_p_value(int(c), int(b), items, -margin) <= level for b, c, _ in rows]))
    return float(np.mean([paired_p_value(int(b), int(c), items, margin) <= level for b, c, _ in rows]))


@pytest.mark.parametrize(("items", "d"), [(300, 0.2), (600, 0.2)])
def test_chances_are_those_of_simulated_checks(items: int, d: float) -> None:
    planned = replace(ONE, variance=d)
    assert chance_of_pass(planned, items) == pytest.approx(simulated(planned, items, 0.0, 0.05, "PASS"), abs=0.2)
    for checks in (1, 13):
        said = chance_of_fail(planned, items, 0.05 / checks)
        assert said == pytest.approx(simulated(planned, items, 0.1, 0.05 / checks, "FAIL"), abs=0.2)


def test_the_run_needs_all_for_a_pass_and_one_for_a_fail() -> None:
    found = chances([ONE] * 26)
    # 80 % for each of 26 checks would be 0.3 % for the run.
    assert run_chances([replace(c, passes=0.8, fails=0.5) for c in found]) == pytest.approx((0.8**26, 1 - 0.5**26))
    assert found[0].needed is not None
    enough = chances([replace(ONE, items=found[0].needed)] * 26)
    assert run_chances(enough)[0] == pytest.approx(GOAL, abs=0.01)
    fewer = chances([replace(ONE, items=found[0].needed - 10)] * 26)
    assert run_chances(fewer)[0] < GOAL


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
    assert scaled([ONE, replace(ONE, items=None)], 2)[0].items == 600


@pytest.mark.slow
@pytest.mark.parametrize("d", [0.1, 0.2])
def test_a_sequential_check_costs_about_twice_the_items(d: float) -> None:
    planned = replace(ONE, variance=d, sequential=True)
    needed = next(n for n in range(50, 5000, 10) if chance_of_pass(planned, n) >= 0.8)
    half = int(500 * d)
    losses = [1.0] * half + [-1.0] * half + [0.0] * (1000 - 2 * half)
    assert sequential_power(losses, planned.distance, needed) == pytest.approx(0.8, abs=0.12)
