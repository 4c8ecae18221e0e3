"""Total variation and Jensen-Shannon divergence: between their bounds whatever the lists leave out, and no wider."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_tokens import Array, draw, top
from scipy.spatial.distance import jensenshannon

from suites.divergence.bounded import JS_CAP
from suites.divergence.kl_bounds import Comparison, compare_scores

SEEDS = st.integers(0, 2**32)
CLOSE = 3e-5
"""Float32 lists, and what is taken off for it."""


def exact_tv(p: Array, q: Array) -> Array:
    return np.asarray(np.abs(np.exp(p) - np.exp(q)).sum(axis=1) / 2)


def exact_js(p: Array, q: Array) -> Array:
    return np.asarray(jensenshannon(np.exp(p), np.exp(q), axis=1) ** 2)  # scipy's is the distance, its root


def hold(found: Comparison, tv: Array, js: Array) -> bool:
    return bool(
        (found.tv_lower <= tv + CLOSE).all()
        and (tv <= found.tv_upper + CLOSE).all()
        and (found.js_lower <= js + CLOSE).all()
        and (js <= found.js_upper + CLOSE).all()
    )


@given(SEEDS)
def test_with_the_whole_vocabulary_the_bounds_are_the_divergences(seed: int) -> None:
    p, q = draw(seed)
    found = compare_scores(top(p, 24), top(q, 24))
    for bound in (found.tv_lower, found.tv_upper):
        assert bound == pytest.approx(exact_tv(p, q), abs=CLOSE)
    for bound in (found.js_lower, found.js_upper):
        assert bound == pytest.approx(exact_js(p, q), abs=CLOSE)


@given(SEEDS, st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=300)
def test_the_divergences_lie_between_their_bounds(seed: int, k: int, m: int) -> None:
    p, q = draw(seed)
    found = compare_scores(top(p, k), top(q, m))
    assert hold(found, exact_tv(p, q), exact_js(p, q))
    assert (found.tv_lower >= 0).all() and (found.tv_upper <= 1).all() and (found.tv_lower <= found.tv_upper).all()
    assert (found.js_lower >= 0).all() and (found.js_upper <= JS_CAP).all()
    assert (found.js_lower <= found.js_upper).all()


def spread_out(listed: dict[int, float], tokens: range, vocabulary: int) -> Array:
    """Log-probabilities [1, V] of a list, with all mass that it leaves out spread over `tokens`."""
    p = np.full(vocabulary, 1e-300)
    p[list(listed)] = list(listed.values())
    p[list(tokens)] = (1 - sum(listed.values())) / len(tokens)
    return np.asarray(np.log(p)[None])


def test_the_upper_bounds_are_reached_by_tails_that_do_not_meet() -> None:
    # Both list tokens 0 to 2. The tail of the one lies on tokens 3 to 102, that of the other on 103 to 202.
    p = spread_out({0: 0.6, 1: 0.2, 2: 0.1}, range(3, 103), 203)
    q = spread_out({0: 0.5, 1: 0.3, 2: 0.05}, range(103, 203), 203)
    found = compare_scores(top(p, 3), top(q, 3))
    assert found.tv_upper == pytest.approx(exact_tv(p, q), abs=1e-6) and exact_tv(p, q) == pytest.approx(0.25)
    assert found.js_upper == pytest.approx(exact_js(p, q), abs=1e-6)
    # With equal tails the same lists are nearer: both are possible, and the lists cannot say which it is.
    q = spread_out({0: 0.5, 1: 0.3, 2: 0.05}, range(3, 103), 203)
    near = compare_scores(top(p, 3), top(q, 3))
    assert near.tv_upper == found.tv_upper and exact_tv(p, q) == pytest.approx(0.15)
    assert near.tv_lower == pytest.approx(0.15, abs=CLOSE) and near.js_lower == pytest.approx(exact_js(p, q), abs=CLOSE)


def test_a_token_that_the_other_side_left_out_counts_above_its_last_one() -> None:
    # Lists of two, by hand: p's {0, 1}, q's {0, 2}. The candidate gives token 1 at most 0.14.
    p, q = np.log([[0.4, 0.3, *[0.3 / 8] * 8]]), np.log([[0.4, 0.01, 0.14, *[0.45 / 7] * 7]])
    found = compare_scores(top(p, 2), top(q, 2))
    assert found.tv_lower == pytest.approx(0.3 - 0.14, abs=CLOSE) and found.tv_upper == pytest.approx(0.6, abs=1e-6)


@given(SEEDS, st.integers(1, 24))
def test_the_same_lists_prove_nothing_and_leave_their_tail_open(seed: int, k: int) -> None:
    p, _ = draw(seed)
    found = compare_scores(top(p, k), top(p, k))
    assert not found.tv_lower.any() and not found.js_lower.any()
    assert found.tv_upper == pytest.approx(1 - found.captured, abs=1e-12)
    assert found.js_upper == pytest.approx(math.log(2) * (1 - found.captured), abs=1e-12)


@given(SEEDS, st.integers(1, 24))
def test_neither_side_is_the_first(seed: int, k: int) -> None:
    p, q = draw(seed)
    one, other = compare_scores(top(p, k), top(q, k)), compare_scores(top(q, k), top(p, k))
    for name in ("tv_lower", "tv_upper", "js_lower", "js_upper"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=2 * CLOSE), name
