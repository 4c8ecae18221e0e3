"""The evidence of bounded divergences: documents have the mean they should, many trials are the product's, 5 % hold."""

import json
import math
from typing import Any

import numpy as np
import pytest

from benchmarks.validity import divergences
from benchmarks.validity.__main__ import DIVERGENCES
from benchmarks.validity.cells import seeded
from harness.judging.bounded_means import bounded_mean_p_value
from harness.judging.resampling import mean_interval

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DIVERGENCES.read_text("utf-8"))
    return found


def at_most(rate: float, trials: int) -> bool:
    """A simulated rate that a true one of 5 % can bring."""
    return rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("shape", divergences.SHAPES)
@pytest.mark.parametrize("mean", [0.01, 0.1])
def test_documents_have_the_mean_of_their_cell(shape: str, mean: float) -> None:
    x = divergences.SHAPES[shape][1](seeded("test", shape), mean, (1000, 400))
    assert x.min() >= 0 and x.max() <= 1
    assert x.mean() == pytest.approx(mean, abs=5 * x.std() / math.sqrt(x.size) + 1e-6)


def test_many_fortunes_are_the_products() -> None:
    x = np.random.default_rng(3).beta(0.5, 9, (6, 40))
    found = divergences.log_fortunes(x, 0.1)
    expected = [bounded_mean_p_value(row, 0, 1, 0.1, least=True) for row in x]
    assert np.minimum(1, np.exp(-found)) == pytest.approx(expected)


def test_many_of_gaffkes_bounds_are_the_products() -> None:
    x = np.random.default_rng(4).beta(0.5, 9, (3, 25))
    lower, upper = divergences.gaffke_bounds(x)
    for row in range(3):
        product = mean_interval(2 * x[row] - 1)
        ours = 2 * upper[row] - 1, 2 * lower[row] - 1
        assert (product.upper, product.lower) == pytest.approx(ours, abs=0.01)  # other order of the draws


def test_no_stored_cell_is_wrong_more_often_than_claimed(stored: dict[str, Any]) -> None:
    assert {row["n"] for row in stored["misses"]} >= {8, 16, 32, 64, 128, 256, 512}
    assert {row["shape"] for row in stored["misses"]} == set(divergences.SHAPES)
    assert stored["plan"]["trials"] >= 20_000
    for row in stored["misses"]:
        assert row["upper"] <= 0.05 and row["lower"] <= 0.05, row


def test_the_bootstrap_is_wrong_where_the_bound_is_not(stored: dict[str, Any]) -> None:
    assert max(row["bootstrap"]["upper"] for row in stored["others"]) > 0.5
    assert all(at_most(row["gaffke"]["upper"], row["trials"]) for row in stored["others"])


def test_the_policies_ask_for_enough_documents(stored: dict[str, Any]) -> None:
    chances = {(row["mean"], row["margin"], row["n"]): row for row in stored["power"]}
    assert chances[0.02, 0.04, 256]["passed"] > 0.8 > chances[0.02, 0.04, 160]["passed"]
    assert chances[0.03, 0.05, 256]["passed"] > 0.8
    assert all(chances[2 * m, m, 256]["failed"] > 0.95 for m in (0.04, 0.1))
