"""The benchmark of stored trajectories runs, and its figures are those of the files and the bounds."""

import math

import numpy as np
import pytest

from benchmarks.trajectory_size import NOISES, K, log_softmax, measure, synthetic, top


def test_what_is_measured() -> None:
    found = measure("small", synthetic(192, 3000, seed=0), [64, 192, 500])
    assert found["positions"] == 192 and K <= found["distinct_ids"] <= 3000
    assert [entry["positions_a_file"] for entry in found["stored"]] == [64, 192]  # no file is longer than what there is
    for entry in found["stored"]:
        assert K < entry["bytes_a_position_reference"] < entry["bytes_a_position_candidate"] < 8 * K
    for noise, figures in found["rounding_by_noise"].items():
        assert all(math.isfinite(value) for value in figures.values())
        # What noise does to a softmax in the second order: at most half its variance.
        assert 0 < figures["kl_exact_mean"] < 0.6 * float(noise) ** 2
        assert figures["kl_lower_mean"] <= figures["kl_exact_mean"] * 1.01 <= figures["kl_upper_mean"] * 1.02
        assert abs(figures["kl_lower_bias"]) <= figures["kl_lower_mean_error"] <= figures["kl_lower_max_error"]
    assert list(found["rounding_by_noise"]) == [str(noise) for noise in NOISES]


def test_distributions_are_the_same_for_the_same_seed_and_sum_to_one() -> None:
    first, again = (list(synthetic(100, 500, seed=3)) for _ in range(2))
    assert sum(len(tokens) for _, tokens in first) == 100
    for (logits, tokens), (others, drawn) in zip(first, again, strict=True):
        assert np.array_equal(logits, others) and np.array_equal(tokens, drawn)
        logprobs = log_softmax(logits)
        assert np.exp(logprobs.astype(float)).sum(axis=1) == pytest.approx(1, abs=1e-5)
        scores = top(logprobs, tokens)
        assert np.array_equal(scores.top_ids, np.argsort(-logprobs, axis=1, kind="stable")[:, :K])
