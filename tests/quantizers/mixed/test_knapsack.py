"""The knapsack against all choices there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.errors import QuantizeError
from quantizers.mixed import knapsack
from quantizers.mixed.knapsack import choose

GROUPS = st.lists(
    st.dictionaries(
        st.sampled_from("abcd"), st.tuples(st.floats(-5, 50, width=32), st.integers(0, 40)), min_size=1, max_size=4
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(GROUPS, st.integers(0, 160))
def test_no_choice_within_the_budget_is_better(groups: list[dict[str, tuple[float, int]]], budget: int) -> None:
    values = [{name: value for name, (value, _) in group.items()} for group in groups]
    sizes = [{name: size for name, (_, size) in group.items()} for group in groups]
    fitting = [
        sum(v[name] for v, name in zip(values, names, strict=True))
        for names in itertools.product(*groups)
        if sum(s[name] for s, name in zip(sizes, names, strict=True)) <= budget
    ]
    if not fitting:
        with pytest.raises(QuantizeError, match="nothing fits"):
            choose(values, sizes, budget)
        return
    chosen = choose(values, sizes, budget)
    assert sum(s[name] for s, name in zip(sizes, chosen, strict=True)) <= budget
    assert sum(v[name] for v, name in zip(values, chosen, strict=True)) == pytest.approx(min(fitting), abs=5e-3)


@pytest.mark.slow
def test_four_hundred_groups_fill_their_budget_to_the_byte_or_nearly() -> None:
    tiers = {"a": 1.125, "b": 1.625, "c": 2.125, "d": 3.125, "e": 8.0, "f": 16.0}
    weights = [(1 + 7 * (i % 4)) * 100_000_000 + 16 * i for i in range(400)]
    sizes = [{name: int(bits * count / 8) for name, bits in tiers.items()} for count in weights]
    values = [{name: (1 + i * 37 % 101) * 4.0**-bits for name, bits in tiers.items()} for i in range(400)]
    budget = int(1.71 * sum(weights) / 8)
    chosen = choose(values, sizes, budget)
    size = sum(s[name] for s, name in zip(sizes, chosen, strict=True))
    assert 0.9999 * budget < size <= budget


def test_many_groups_are_chosen_by_price_within_one_step_of_the_bound() -> None:
    generator = np.random.default_rng(0)
    sizes = [dict(zip("abcd", sorted(generator.integers(1, 1000, 4).tolist()), strict=True)) for _ in range(3000)]
    values = [dict(zip("abcd", sorted(generator.lognormal(0, 2, 4), reverse=True), strict=True)) for _ in range(3000)]
    budget = sum(own["b"] for own in sizes)
    chosen = choose(values, sizes, budget)
    spent = sum(own[name] for own, name in zip(sizes, chosen, strict=True))
    found = sum(own[name] for own, name in zip(values, chosen, strict=True))
    assert budget - 1000 < spent <= budget
    value = np.array([list(own.values()) for own in values])
    size = np.array([list(own.values()) for own in sizes], dtype=float)
    bound = max(float((value + price * size).min(1).sum() - price * budget) for price in np.geomspace(1e-6, 1, 2000))
    assert bound <= found <= bound * 1.001


def test_many_groups_that_only_fit_at_their_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "MANY", 1)
    values = [{"a": 5.0, "b": 1.0}, {"a": 7.0, "b": 0.0}, {"a": 1.0}]
    sizes = [{"a": 1, "b": 10}, {"a": 2, "b": 20}, {"a": 3}]
    assert choose(values, sizes, 6) == ["a", "a", "a"]
    assert choose(values, sizes, 15) == ["b", "a", "a"]
    assert choose(values, sizes, 99) == ["b", "b", "a"]
