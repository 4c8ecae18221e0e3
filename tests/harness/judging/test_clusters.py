"""Bounds of ratios: against Gaffke's mean, Clopper and Pearson, and by simulation of clusters and relative losses."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.judging.clusters import (
    BEST_LOSS,
    BEST_RELATIVE,
    WORST_LOSS,
    WORST_RELATIVE,
    Unit,
    Units,
    clustered,
)
from harness.judging.resampling import mean_interval


def of_losses(losses: list[float]) -> Units:
    return Units([Unit(loss, 1.0) for loss in losses], WORST_LOSS, BEST_LOSS)


def relative(b: int, c: int, both: int, none: int) -> Units:
    """b: only the reference is right; c: only the candidate; both; none."""
    units = [Unit(1, 1)] * b + [Unit(-1, 0)] * c + [Unit(0, 1)] * both + [Unit(0, 0)] * none
    return Units(units, WORST_RELATIVE, BEST_RELATIVE)


def test_units_of_weight_1_have_gaffkes_bounds() -> None:
    losses = list(np.random.default_rng(1).uniform(-1, 1, 60))
    found, mean = of_losses(losses).interval(0.95), mean_interval(losses, 0.95)
    assert found.estimate == pytest.approx(mean.estimate)
    assert found.lower == pytest.approx(mean.lower, abs=0.005) and found.upper == pytest.approx(mean.upper, abs=0.005)


def test_without_gains_the_relative_loss_has_clopper_and_pearsons_bound() -> None:
    """Of 190 items that the reference gets right the candidate loses 12: a proportion, whatever else was asked."""
    found = relative(b=12, c=0, both=178, none=500).interval(0.95)
    exact = stats.binomtest(12, 190).proportion_ci(0.9, method="exact")
    assert found.estimate == pytest.approx(12 / 190)
    assert found.upper == pytest.approx(exact.high, abs=0.001)
    assert found.lower <= exact.low  # a gain could have been seen among the other 500


def test_a_tenth_to_0_095_is_five_percent() -> None:
    found = relative(b=50, c=0, both=950, none=9000).interval(0.95)
    assert found.estimate == pytest.approx(0.05)
    assert found.lower < 0.05 < found.upper < 0.063
    assert relative(b=0, c=0, both=0, none=50).interval(0.95).upper == pytest.approx(1.0)  # nothing to lose was seen


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.1, 0.3])
def test_p_value_and_lower_bound_agree(margin: float) -> None:
    for units in (relative(30, 10, 150, 40), of_losses([0.5, 0.2, -0.1, 0.0, 1.0] * 12)):
        p = units.p_value(margin)
        assert (p < 0.05) == (units.interval(0.95).lower > margin) or abs(p - 0.05) < 0.003


def test_clusters_of_one_are_items_and_copies_of_an_item_are_one() -> None:
    losses = list(np.random.default_rng(2).choice([-1.0, 0.0, 1.0], 80, p=[0.05, 0.85, 0.1]))
    items = {("s", "t", str(i)): Unit(loss, 1.0) for i, loss in enumerate(losses)}
    alone = clustered(items, {item: item for item in items}, WORST_LOSS, BEST_LOSS).interval(0.95)
    assert alone == clustered(items, {}, WORST_LOSS, BEST_LOSS).interval(0.95)
    copies = {("s", "t", f"{i}-{k}"): Unit(loss, 1.0) for i, loss in enumerate(losses) for k in range(5)}
    found = clustered(copies, {key: key[2].split("-")[0] for key in copies}, WORST_LOSS, BEST_LOSS).interval(0.95)
    assert found == pytest.approx(alone)


@pytest.mark.long
def test_the_level_holds_for_clusters_and_for_relative_losses() -> None:
    """At the margin at most 5 % pass; items of a cluster taken as independent would pass three times as often."""
    rng, runs, wrong, naive, relative_wrong = np.random.default_rng(0), 200, 0, 0, 0
    for _ in range(runs):
        sizes = rng.integers(1, 12, 40)
        lost = rng.random(40) < 0.05  # a passage is lost as a whole
        losses = [np.full(size, gone) for size, gone in zip(sizes, lost, strict=True)]
        items = {("s", "t", f"{i}-{k}"): Unit(float(x), 1.0) for i, of in enumerate(losses) for k, x in enumerate(of)}
        bounds = clustered(items, {key: key[2].split("-")[0] for key in items}, WORST_LOSS, BEST_LOSS).interval(0.95)
        wrong += bounds.upper < 0.05
        b = int(sum(map(np.sum, losses)))
        naive += stats.beta.ppf(0.95, b + 1, sum(sizes) - b) < 0.05
        counts = rng.multinomial(400, [0.02, 0.01, 0.18, 0.79])  # 0.20 -> 0.19
        relative_wrong += relative(*map(int, counts)).interval(0.95).upper < 0.05
    limit = stats.binom.ppf(0.999, runs, 0.05)
    assert wrong <= limit and relative_wrong <= limit and naive > 2 * limit


def test_nothing_to_weigh_is_no_number() -> None:
    assert math.isnan(relative(0, 3, 0, 5).interval(0.95).estimate)
