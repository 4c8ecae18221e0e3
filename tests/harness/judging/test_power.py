"""The power of a sequential test, against the test itself."""

import numpy as np
import pytest

from harness.judging.power import sequential_power
from harness.judging.sequential import items_without_loss, run_test

pytestmark = pytest.mark.slow  # simulates


@pytest.mark.parametrize("discordance", [0.05, pytest.param(0.2, marks=pytest.mark.long)])
@pytest.mark.parametrize("margin", [0.05, 0.1])
def test_it_is_the_share_of_tests_that_pass(discordance: float, margin: float) -> None:
    rng, n = np.random.default_rng(7), 200
    losses = [1.0] * round(discordance * n) + [0.0] * round((1 - discordance) * n)
    streams = [rng.choice(losses, n) * rng.choice([-1, 1], n) for _ in range(60)]
    share = np.mean([run_test(stream, margin).outcome == "PASS" for stream in streams])
    assert sequential_power(losses, margin, n) == pytest.approx(share, abs=0.2)  # 3 standard errors of both


def test_without_spread_it_is_a_matter_of_the_number_of_items() -> None:
    enough = items_without_loss(0.03, 0.95)
    assert sequential_power([0.0] * 5, 0.03, enough) == 1.0
    assert sequential_power([0.0] * 5, 0.03, enough - 1) == 0.0


def test_it_is_the_same_every_time_and_needs_losses() -> None:
    assert sequential_power([0.5, -1.0, 0.0], 0.2, 100) == sequential_power([0.5, -1.0, 0.0], 0.2, 100)
    with pytest.raises(ValueError, match="no losses"):
        sequential_power([], 0.1, 10)
