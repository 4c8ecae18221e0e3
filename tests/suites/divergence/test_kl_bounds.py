"""Comparing lists of likeliest tokens: bounds that hold for every pair of distributions, and a slow oracle."""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from next_tokens import comparison, draw, exact_kl, top

from harness.contract.metrics import KL_CAP
from harness.endpoint.client import Scores
from harness.runs.positions import BUCKETS, CONFIDENCES
from suites.divergence.kl_bounds import CONFIDENT, ROUNDING, ROWS, Comparison, compare_scores

SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_with_the_whole_vocabulary_the_lower_bound_is_the_kl(seed: int) -> None:
    p, q = draw(seed)
    found = compare_scores(top(p, 24), top(q, 24))
    assert found.kl_lower == pytest.approx(exact_kl(p, q), rel=1e-4, abs=2e-5)
    assert found.captured == pytest.approx(1.0, abs=1e-5)


@given(SEEDS, st.integers(1, 23))
@example(30, 23)  # rounding made the bound too high by 5e-4 here
@settings(max_examples=300)
def test_with_the_likeliest_tokens_the_lower_bound_never_exceeds_the_kl(seed: int, k: int) -> None:
    p, q = draw(seed)
    found = compare_scores(top(p, k), top(q, k))
    assert (found.kl_lower <= exact_kl(p, q) + 2e-5 + 1e-4 * found.kl_lower).all()
    assert (found.kl_lower >= 0).all() and (found.kl_upper >= found.kl_lower).all()
    assert (found.captured >= 0).all() and (found.captured <= 1).all()


def test_a_mass_lost_to_rounding_is_no_proof() -> None:
    # q leaves 1e-9 outside the list: in float32 that is anything between nothing and 1e-7.
    rest = 1e-9
    p, q = np.log([[0.5, 0.4, 0.05, 0.05]]), np.log([[0.5, 0.5 - 2 * rest, rest, rest]])
    found = compare_scores(top(p, 2), top(q, 2))
    assert 0.1 * np.log(0.1 / 1e-4) < found.kl_lower[0] < exact_kl(p, q)[0]
    assert found.kl_lower[0] < 0.4 * np.log(0.4 / 0.5) + 0.1 * np.log(0.1 / 1e-5) + 1e-3


@given(SEEDS, st.integers(1, 22))
def test_longer_lists_never_prove_less(seed: int, k: int) -> None:
    p, q = draw(seed)
    shorter, longer = compare_scores(top(p, k), top(q, k)), compare_scores(top(p, k + 1), top(q, k + 1))
    assert (longer.captured >= shorter.captured - 1e-6).all()


def test_the_upper_bound_holds_where_its_assumption_does() -> None:
    held = 0
    for seed in range(400):
        k = 2 + seed % 12
        p, q = draw(seed)
        upper, exact = compare_scores(top(p, k), top(q, k)).kl_upper, exact_kl(p, q)
        for row in range(len(p)):
            mine, others = np.argsort(-p[row])[:k], np.argsort(-q[row])[:k]
            shared = np.intersect1d(mine, others)
            outside = np.setdiff1d(np.arange(p.shape[1]), shared)
            left_out = np.setdiff1d(mine, others)
            known = [*(p - q)[row, shared], *(p[row, left_out] - q[row, others].min())]
            if (p - q)[row, outside].max() <= max(known):
                held += 1
                assert upper[row] >= exact[row] - 2e-5
    assert held > 200


def test_one_bucket_by_hand() -> None:
    # p = (0.7, 0.2, 0.1), q = (0.5, 0.1, 0.4); lists of two: p's {0, 1}, q's {0, 2}. Shared: 0.
    p, q = np.log([[0.7, 0.2, 0.1]]), np.log([[0.5, 0.1, 0.4]])
    found = compare_scores(top(p, 2), top(q, 2))
    assert found.kl_lower[0] == pytest.approx(0.7 * np.log(0.7 / 0.5) + 0.3 * np.log(0.3 / 0.5), abs=1e-5)
    assert found.kl_upper[0] == pytest.approx(0.7 * np.log(0.7 / 0.5) + 0.3 * np.log(0.7 / 0.5), abs=1e-6)
    assert found.captured[0] == pytest.approx(0.7, abs=1e-6)


def test_a_token_that_the_candidate_left_out_is_at_least_as_bad_as_its_last_one() -> None:
    # Lists of two: p's {0, 1}, q's {0, 2}. Token 1 has 0.3 of p and at most 0.14 of q; all else is equal in sum.
    p, q = np.log([[0.4, 0.3, *[0.3 / 8] * 8]]), np.log([[0.4, 0.01, 0.14, *[0.45 / 7] * 7]])
    found = compare_scores(top(p, 2), top(q, 2))
    assert found.kl_lower[0] == pytest.approx(0, abs=1e-6)
    assert found.kl_upper[0] == pytest.approx(0.6 * np.log(0.3 / 0.14), abs=1e-6)


@given(SEEDS, st.integers(1, 24))
def test_a_model_does_not_diverge_from_itself(seed: int, k: int) -> None:
    p, _ = draw(seed)
    found = compare_scores(top(p, k), top(p, k))
    assert not found.kl_lower.any() and not found.kl_upper.any()  # exactly 0: the verdict looks for that
    assert not found.flips.any() and not found.confident_flips.any()


def test_lists_without_a_common_token_prove_what_they_can() -> None:
    p, q = np.log([[0.97, 0.01, 0.01, 0.01]]), np.log([[0.01, 0.01, 0.01, 0.97]])
    found = compare_scores(top(p, 1), top(q, 1))
    assert found.captured[0] == 0 and found.flips[0] and found.confident_flips[0]
    assert 0 <= found.kl_lower[0] <= exact_kl(p, q)[0] and np.isfinite(found.kl_upper[0])


def test_a_flip_is_another_likeliest_token_and_counts_as_confident_when_the_reference_was_sure() -> None:
    p = np.log([[0.95, 0.04, 0.01], [0.5, 0.4, 0.1], [0.95, 0.04, 0.01], [0.5, 0.4, 0.1]])
    q = np.log([[0.90, 0.09, 0.01], [0.4, 0.5, 0.1], [0.04, 0.95, 0.01], [0.6, 0.3, 0.1]])
    assert 0.5 < CONFIDENT < 0.95
    found = compare_scores(top(p, 2), top(q, 2))
    assert found.flips.tolist() == [False, True, True, False]
    assert found.confident_flips.tolist() == [False, False, True, False]
    totals = found.totals()
    assert (totals["positions"], totals["flips"], totals["confident_flips"]) == (4.0, 2.0, 1.0)


def test_other_tokens_are_not_compared() -> None:
    p, q = draw(1)
    with pytest.raises(ValueError, match="scored different tokens"):
        compare_scores(top(p, 4), top(q, 4, np.array([0, 0, 0, 1], np.int32)))


def by_hand(reference: Scores, candidate: Scores, row: int) -> tuple[float, float, float, bool, bool]:
    """The definition of one position in plain Python: (lower, upper, captured, flip, confident flip)."""
    p, q = (
        dict(zip(scores.top_ids[row].tolist(), map(float, scores.top_logprobs[row]), strict=True))
        for scores in (reference, candidate)
    )
    shared = p.keys() & q.keys()
    captured = math.fsum(math.exp(p[i]) for i in shared)
    p_rest = max(1 - captured, 1e-12)
    q_rest = max(1 - math.fsum(math.exp(q[i]) for i in shared), 0) + ROUNDING
    inside = math.fsum(math.exp(p[i]) * (p[i] - q[i]) for i in shared)
    lower = max(0.0, inside + p_rest * math.log(p_rest / q_rest))
    worst = max(p[i] - q.get(i, min(q.values())) for i in p)
    upper = max(lower, inside + p_rest * max(0.0, worst))
    flip = max(p, key=p.__getitem__) != max(q, key=q.__getitem__)
    return lower, upper, min(captured, 1.0), flip, flip and max(p.values()) > math.log(CONFIDENT)


@given(SEEDS, st.integers(1, 24), st.integers(1, 24))
@settings(max_examples=300)
def test_every_position_is_what_plain_python_finds(seed: int, k: int, m: int) -> None:
    p, q = draw(seed)
    reference, candidate = top(p, k), top(q, m)  # a candidate whose lists have another length
    found = compare_scores(reference, candidate)
    for row in range(len(p)):
        lower, upper, captured, flip, sure = by_hand(reference, candidate, row)
        assert found.kl_lower[row] == pytest.approx(lower, rel=1e-9, abs=1e-12)
        assert found.kl_upper[row] == pytest.approx(upper, rel=1e-9, abs=1e-12)
        assert found.captured[row] == pytest.approx(captured, abs=1e-12)
        assert (found.flips[row], found.confident_flips[row]) == (flip, sure)


def test_rows_are_compared_each_by_itself_however_many_there_are() -> None:
    p, q = draw(3, n=ROWS + 7)
    whole = compare_scores(top(p, 5), top(q, 5))
    for rows in (slice(0, 1), slice(ROWS - 1, ROWS + 1), slice(ROWS, None)):
        part = compare_scores(top(p[rows], 5), top(q[rows], 5))
        for field in fields(Comparison):
            assert np.array_equal(getattr(whole, field.name)[rows], getattr(part, field.name)), field.name


def test_ids_of_any_size_are_found_in_their_own_row() -> None:
    # 2**31 - 1 and -1 beside each other: a row's ids must not be taken for the next one's.
    ids = np.array([[2**31 - 1, 0], [-1, 2**31 - 1], [-(2**31), 5]], np.int32)
    logprobs = np.log(np.array([[0.6, 0.3]] * 3, np.float32))
    scores = Scores(np.zeros(3, np.int32), np.zeros(3, np.float32), ids, logprobs)
    assert compare_scores(scores, scores).captured == pytest.approx([0.9] * 3)
    moved = replace(scores, top_ids=np.roll(ids, 1, axis=0))
    assert compare_scores(scores, moved).captured == pytest.approx([0, 0.3, 0], abs=1e-6)


def test_an_id_that_a_server_lists_twice_breaks_nothing() -> None:
    ids = np.array([[4, 4, 7]], np.int32)
    twice = Scores(np.zeros(1, np.int32), np.zeros(1, np.float32), ids, np.log(np.array([[0.4, 0.3, 0.2]], np.float32)))
    once = replace(twice, top_ids=np.array([[4, 5, 7]], np.int32))
    for one, other in ((twice, twice), (twice, once), (once, twice)):
        found = compare_scores(one, other)
        assert 0 <= found.captured[0] <= 1 and 0 <= found.kl_lower[0] <= found.kl_upper[0] < 10


def test_nothing_to_compare_is_said() -> None:
    none = Scores(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, 4), np.int32), np.zeros((0, 4), "f4"))
    with pytest.raises(ValueError, match="no positions"):
        compare_scores(none, none)


# -- totals --------------------------------------------------------------------------------------------------


def made(n: int, seed: int = 0) -> Comparison:
    """A comparison of n positions with random figures."""
    rng = np.random.default_rng(seed)
    lower, tv, flips = rng.exponential(0.01, n), rng.random(n) / 2, rng.random(n) < 0.1
    return comparison(
        n,
        kl_lower=lower,
        kl_upper=lower * 1.5,
        tv_lower=tv,
        tv_upper=tv * 2,
        flips=flips,
        confident_flips=flips & (rng.random(n) < 0.5),
        confidence=rng.random(n),
    )


@pytest.mark.parametrize("parts_of", [BUCKETS, CONFIDENCES])
@pytest.mark.parametrize("n", [1, 7, 1025, 20_000])
def test_the_parts_add_up_to_the_whole(n: int, parts_of: dict[str, Any]) -> None:
    totals = made(n).totals()
    for name in ("positions", "kl_lower_sum", "kl_upper_sum", "tv_lower_sum", "tv_upper_sum", "flips"):
        parts = [totals.get(f"{name}@{part}", 0.0) for part in parts_of]
        assert math.fsum(parts) == pytest.approx(totals[name], rel=1e-12)
    assert all(totals[f"positions@{part}"] > 0 for part in parts_of if f"kl_lower_sum@{part}" in totals)


def test_a_position_counts_by_how_sure_the_reference_was() -> None:
    sure, kl = np.array([0.0, 0.5, 0.49, 0.9, 0.99, 1.0]), np.array([1.0, 2, 4, 8, 16, 32])
    totals = comparison(6, confidence=sure, kl_lower=kl).totals()
    assert [totals[f"kl_lower_sum@{name}"] for name in CONFIDENCES] == [5, 2, 8, 48]
    p, q = draw(5, n=50)
    assert compare_scores(top(p, 3), top(q, 3)).confidence == pytest.approx(np.exp(p).max(axis=1), rel=1e-6)


def test_a_capped_kl_counts_the_cap_where_a_position_has_more() -> None:
    lower, upper = np.array([0.25, 0.5, 7.0]), np.array([0.5, 3.0, 9.0])
    totals = comparison(3, kl_lower=lower, kl_upper=upper).totals()
    assert KL_CAP == 1
    assert (totals["kl_capped_lower_sum"], totals["kl_capped_upper_sum"]) == (0.25 + 0.5 + 1, 0.5 + 1 + 1)


@pytest.mark.parametrize("n", [1, 1024, 1025, 20_000])
def test_the_buckets_of_a_trajectory_add_up_to_the_whole(n: int) -> None:
    totals = made(n).totals()
    reached = [name for name, (first, _) in BUCKETS.items() if first < n]
    for name in ("positions", "kl_lower_sum", "kl_upper_sum", "flips", "confident_flips"):
        parts = [totals[f"{name}@{bucket}"] for bucket in reached]
        assert math.fsum(parts) == pytest.approx(totals[name], rel=1e-12)
        assert all(math.isfinite(part) for part in parts)
    assert {key.partition("@")[2] for key in totals} - {*CONFIDENCES} == {
        "",
        *reached,
    }  # nothing is said of what was not reached
    assert totals[f"positions@{reached[-1]}"] == n - BUCKETS[reached[-1]][0]


def test_a_position_counts_in_the_bucket_that_it_lies_in() -> None:
    kl = np.zeros(17_000)
    kl[[0, 1023, 1024, 4095, 4096, 16_383, 16_384]] = [1, 2, 4, 8, 16, 32, 64]
    totals = comparison(17_000, kl_lower=kl, kl_upper=kl).totals()
    assert [totals[f"kl_lower_sum@{bucket}"] for bucket in BUCKETS] == [3, 12, 48, 64]
    assert totals["kl_lower_max"] == totals["kl_upper_max"] == 64


def test_probabilities_and_likelihoods_of_the_token_that_is_there() -> None:
    p, q = np.log([0.5, 0.8]), np.log([0.25, 0.9])
    totals = comparison(2, reference_logprobs=p, logprobs=q).totals()
    assert totals["delta_p_sum"] == pytest.approx(-0.25 + 0.1)
    assert totals["delta_p_squared_sum"] == pytest.approx(0.0625 + 0.01)
    assert totals["nll_reference_sum"] == pytest.approx(math.log(1 / 0.5) + math.log(1 / 0.8))
    ratio = math.exp((totals["nll_candidate_sum"] - totals["nll_reference_sum"]) / totals["positions"])
    assert ratio == pytest.approx(math.sqrt(0.5 * 0.8 / (0.25 * 0.9)))  # geometric means of 1 / probability


@given(SEEDS)
def test_totals_are_sums_of_the_positions(seed: int) -> None:
    p, q = draw(seed, n=7)
    found = compare_scores(top(p, 6), top(q, 6, None))
    totals = found.totals()
    for name, values in (("kl_lower", found.kl_lower), ("kl_upper", found.kl_upper)):
        assert totals[f"{name}_sum"] == pytest.approx(math.fsum(values)) and totals[f"{name}_max"] == max(values)
    assert totals["captured_mass_sum"] == pytest.approx(math.fsum(found.captured))
    assert totals["nll_candidate_sum"] == pytest.approx(-math.fsum(top(q, 6).logprobs.astype(float)))
    assert totals["nll_reference_sum"] == pytest.approx(-math.fsum(top(p, 6).logprobs.astype(float)))
