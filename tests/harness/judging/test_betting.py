"""The bound of a mean of values that need not be alike: its level, by simulation and by brute force."""

import math
from itertools import product

import numpy as np
import pytest

from harness.judging.betting import mean_at_the_end, p_value_at_the_end


def test_its_level_holds_over_all_outcomes_of_values_with_different_means() -> None:
    # Twelve values of -1 or 1, half of them often 1, half of them seldom: every outcome with its exact chance.
    chances = np.array([0.9] * 6 + [0.3] * 6)
    mean = float(np.mean(2 * chances - 1))
    wrong = 0.0
    for outcome in product((0, 1), repeat=12):
        x = 2.0 * np.array(outcome) - 1
        chance = float(np.prod(np.where(x > 0, chances, 1 - chances)))
        if p_value_at_the_end(x.tolist(), mean - 1e-9) <= 0.1:
            wrong += chance
    assert 0 < wrong <= 0.1


@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_bounds_enclose_the_mean_of_the_means(spread: float) -> None:
    rng, above, below, runs = np.random.default_rng(5), 0, 0, 400
    means = np.repeat([-0.2, 0.1, 0.4], 40)
    for _ in range(runs):
        x = np.clip(means + spread * rng.choice([-1, 1], means.size), -1, 1)
        estimate, lower, upper = mean_at_the_end(x.tolist())
        assert lower <= estimate <= upper and estimate == pytest.approx(x.mean())
        above += lower > 0.1
        below += upper < 0.1
    assert max(above, below) <= 0.05 * runs


def test_bound_and_p_value_are_the_same_test() -> None:
    x = np.random.default_rng(1).uniform(-1, 1, 50).tolist()
    for level in (0.9, 0.95, 0.999):
        assert p_value_at_the_end(x, mean_at_the_end(x, level).lower) == pytest.approx(1 - level, rel=1e-4)
    assert p_value_at_the_end(x, 1.0) == 1.0 and p_value_at_the_end(x, -1.0) == 0.0


def test_the_fortune_is_the_mean_over_bets() -> None:
    x, bets = [0.5, -0.25, 1.0], np.geomspace(0.015, 1.0, 8)
    fortune = np.mean([math.prod(1 + bet * (v - 0.1) / 1.1 for v in x) for bet in bets])
    assert p_value_at_the_end(x, 0.1) == pytest.approx(1 / fortune)


@pytest.mark.parametrize("values", [[], [1.5], [math.nan]])
def test_values_outside_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        mean_at_the_end(values)
