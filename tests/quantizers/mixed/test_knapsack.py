"""The knapsack against all choices there are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.errors import QuantizeError
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
