"""Stored trajectories: what is read back is what was compared, in few bytes, or a file is named as not one of ours."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_tokens import draw, log_softmax, top

from harness.contract.errors import BadInput
from harness.endpoint.client import Scores
from harness.runs.positions import COLUMNS
from suites.divergence.kl_bounds import ROUNDING, compare_scores
from suites.divergence.parquet_files import (
    LINEAR,
    LOWEST,
    STEPS,
    from_steps,
    read_trajectory,
    rounded,
    to_steps,
    write_trajectory,
)

SEEDS = st.integers(0, 2**32)


def assert_same(one: Scores, other: Scores) -> None:
    for name in ("token_ids", "logprobs", "top_ids", "top_logprobs"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b), name


# -- rounding ------------------------------------------------------------------------------------------------


@given(st.floats(-50, 0, width=32))
def test_a_probability_is_rounded_to_a_step_or_a_share_of_it(logprob: float) -> None:
    found = from_steps(to_steps(np.array([logprob], np.float32)))[0]
    before, after = np.exp(float(logprob)), np.exp(float(found))
    if before >= LINEAR:
        assert abs(after - before) <= 0.5 * LINEAR / STEPS * (1 + 1e-3)
    else:
        assert abs(after / before - 1) <= 0.5 / STEPS * (1 + 1e-2)


@given(st.integers(int(STEPS * (LOWEST + 8)), 500_000))
def test_rounding_twice_is_rounding_once(step: int) -> None:
    steps = np.array([step], np.int32)
    assert to_steps(from_steps(steps)).tolist() == [step]


def test_every_step_above_one_in_a_thousand_is_kept() -> None:
    steps = np.arange(-20_000, 500_001, dtype=np.int32)
    assert np.array_equal(to_steps(from_steps(steps)), steps)
    assert (np.diff(from_steps(steps)) > 0).all()  # the order is kept too


def test_what_is_rounded_has_known_values() -> None:
    logprobs = np.log(np.array([1.0, 0.5, 0.001, 0.001 / np.e, 0.001 / np.e**2], np.float32))
    assert to_steps(logprobs).tolist() == [500_000, 250_000, 500, 0, -500]
    # A server's stand-in for minus infinity, a log-probability above 0 by rounding: nothing overflows.
    odd = np.array([-9999.0, -3e38, 1e-6, 5.0], np.float32)
    assert np.isfinite(from_steps(to_steps(odd))).all()


@pytest.mark.slow
@given(SEEDS, st.integers(1, 24))
@settings(max_examples=1000)
def test_rounding_moves_the_divergence_no_further_than_its_steps_allow(seed: int, k: int) -> None:
    p, q = draw(seed)
    exact = compare_scores(top(p, k), top(q, k))
    found = compare_scores(rounded(top(p, k)), rounded(top(q, k)))
    error = [np.minimum(0.5 / STEPS, 0.5 * LINEAR / STEPS / np.exp(x)) for x in (p, q)]  # of each log-probability
    bound = (np.exp(p) * (error[0] + error[1])).sum(axis=1) + k * 1e-6 * (np.abs(p - q).max(axis=1) + 15)
    bound += (1 - found.captured) * np.log1p(k * 2e-6 / ROUNDING)  # mass outside q's list that rounding moves
    assert (np.abs(found.kl_lower - exact.kl_lower) <= 1.01 * bound + 1e-6).all()
    assert np.array_equal(found.flips, exact.flips)


@given(SEEDS, st.integers(1, 24))
def test_a_rounded_model_does_not_diverge_from_itself(seed: int, k: int) -> None:
    scores = rounded(top(draw(seed)[0], k))
    found = compare_scores(scores, scores)
    assert not found.kl_lower.any() and not found.kl_upper.any()


# -- there and back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 64), (5, 3), (2000, 64), (9000, 8)])
def test_scores_are_read_back_as_they_were_rounded(tmp_path: Path, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    scores = top(log_softmax(rng.normal(size=(n, 80))), k, rng.integers(0, 80, n).astype(np.int32))
    path = tmp_path / "deep" / "x.reference.parquet"
    write_trajectory(path, [5, 0, 151_000], scores, "chat-en")
    prompt_ids, found = read_trajectory(path)
    assert prompt_ids == [5, 0, 151_000]
    assert_same(found, rounded(scores))
    assert np.array_equal(found.logprobs, scores.logprobs)  # of the token that is there: exact
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.slow
@given(SEEDS, st.integers(1, 23))
def test_comparing_what_is_read_back_gives_what_was_stored(tmp_path_factory: Any, seed: int, k: int) -> None:
    p, q = draw(seed)
    reference, candidate = (rounded(top(x, k)) for x in (p, q))
    path = tmp_path_factory.mktemp("files") / "x.parquet"
    write_trajectory(path, [1], reference, "chat-en")
    _, reference_back = read_trajectory(path)
    compared = compare_scores(reference_back, candidate)
    write_trajectory(path, [1], candidate, "chat-en", compared)
    _, candidate_back = read_trajectory(path)
    again = compare_scores(reference_back, candidate_back).totals()
    assert again == compared.totals()
    table = pq.read_table(path)
    assert {name: table.schema.field(name).type for name in COLUMNS} == COLUMNS
    assert np.array_equal(table["reference_logprob"].to_numpy(), reference.logprobs)
    for bound in ("kl_lower", "kl_upper"):
        assert np.array_equal(table[bound].to_numpy(), getattr(compared, bound).astype(np.float32))
    assert np.array_equal(table["flip"].to_numpy(), compared.flips)
    assert np.array_equal(table["confident_flip"].to_numpy(), compared.confident_flips)


def test_lists_may_be_of_a_fixed_size_or_not(tmp_path: Path) -> None:
    for path, kind in ((tmp_path / "one", pa.list_(pa.int32(), 2)), (tmp_path / "two", pa.list_(pa.int32()))):
        write_table(path, **{name: GOOD[name].cast(kind) for name in ("top_place", "top_step")})
    (one, scores), (two, others) = (read_trajectory(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert_same(scores, others)


def test_ids_beyond_any_vocabulary_are_kept(tmp_path: Path) -> None:
    scores = top(draw(5)[0], 6)
    odd = replace(scores, top_ids=scores.top_ids - 12 + np.array([0, 2**31 - 30, 7, 7, -(2**31) + 40, 1], np.int32))
    write_trajectory(tmp_path / "x.parquet", [], odd)
    assert np.array_equal(read_trajectory(tmp_path / "x.parquet")[1].top_ids, odd.top_ids)


def test_a_position_takes_few_bytes(tmp_path: Path) -> None:
    # Lists whose ids follow Zipf's law over 150,000 tokens. Measured on real ones: benchmarks/trajectory_size.py.
    rng = np.random.default_rng(0)
    n, k, vocabulary = 1000, 64, 150_000
    likely = np.argpartition(-rng.gumbel(size=(n, 8000)) + 1.1 * np.log(np.arange(1, 8001)), k, axis=1)[:, :k]
    ids = rng.permutation(vocabulary)[likely].astype(np.int32)
    logprobs = np.log(rng.dirichlet(0.3 * np.arange(1, k + 1, dtype=float)[::-1] / k + 0.02, n) * 0.98 + 1e-9)
    scores = Scores(ids[:, 0], np.zeros(n, np.float32), ids, -np.sort(-logprobs, axis=1).astype(np.float32))
    path = tmp_path / "x.parquet"
    write_trajectory(path, [1] * 100, scores, "chat-en", compare_scores(scores, scores))
    assert path.stat().st_size < 195 * n


# -- hostile files -------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "token_id": pa.array([1, 2], pa.int32()),
    "logprob": pa.array([-0.5, -0.1], pa.float32()),
    "top_place": pa.array([[0, 1], [1, 0]], pa.list_(pa.int32(), 2)),
    "top_step": pa.array([[400_000, 9], [300_000, 5]], pa.list_(pa.int32(), 2)),
    "vocabulary": pa.array([[1, 2], None], pa.list_(pa.int32())),
}
METADATA = {"prompt_ids": "[1, 2]", "task": "chat-en"}


def write_table(path: Path, metadata: dict[str, Any] | None = None, **columns: Any) -> None:
    table = pa.table({name: value for name, value in (GOOD | columns).items() if value is not None})
    pq.write_table(table.replace_schema_metadata(METADATA if metadata is None else metadata), path)


def write_cut(path: Path) -> None:
    write_trajectory(path, [1], top(draw(1)[0], 4))
    path.write_bytes(path.read_bytes()[:-20])


def test_the_table_that_the_cases_change_is_a_good_one(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet")
    prompt_ids, scores = read_trajectory(tmp_path / "x.parquet")
    assert prompt_ids == [1, 2] and scores.top_ids.tolist() == [[1, 2], [2, 1]]
    assert np.exp(scores.top_logprobs[:, 0]) == pytest.approx([0.8, 0.6], abs=1e-5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: None,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"PAR1 and then nothing"),
        lambda p: p.mkdir(),
        write_cut,
        lambda p: write_table(p, metadata={"task": "chat-en"}),
        lambda p: write_table(p, metadata={"prompt_ids": "[1,"}),
        lambda p: write_table(p, metadata={"prompt_ids": '["1"]'}),
        lambda p: write_table(p, metadata={"prompt_ids": "[" * 100_000}),
        lambda p: write_table(p, metadata={"prompt_ids": b"\xff"}),
        lambda p: write_table(p, token_id=None),
        lambda p: write_table(p, token_id=pa.array(["a", "b"])),
        lambda p: write_table(p, token_id=pa.array([1, None], pa.int32())),
        lambda p: write_table(p, token_id=pa.array([1, 2**40])),
        lambda p: write_table(p, logprob=pa.array([float("nan"), -1.0], pa.float32())),
        lambda p: write_table(p, top_place=pa.array([1, 2], pa.int32())),
        lambda p: write_table(p, top_place=pa.array([[0, 7], [1, 0]], pa.list_(pa.int32(), 2))),
        lambda p: write_table(p, top_place=pa.array([[0, -1], [1, 0]], pa.list_(pa.int32(), 2))),
        lambda p: write_table(p, top_place=pa.array([[0], [1]], pa.list_(pa.int32(), 1))),
        lambda p: write_table(p, top_place=pa.array([[0, 1], None], pa.list_(pa.int32(), 2))),
        lambda p: write_table(p, top_place=pa.array([[0, 1, 1], [0]], pa.list_(pa.int32()))),
        lambda p: write_table(p, top_step=pa.array([[], [0, 1, 1, 0]], pa.list_(pa.int32()))),
        lambda p: write_table(p, vocabulary=pa.array([None, [1, 2]], pa.list_(pa.int32()))),
        lambda p: write_table(p, vocabulary=pa.array([[1, 2**40], None], pa.list_(pa.int64()))),
        lambda p: write_table(p, **{name: value[:0] for name, value in GOOD.items()}),
    ],
)
def test_what_is_no_trajectory_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "x.reference.parquet"
    damage(path)
    with pytest.raises(BadInput, match=r"x\.reference\.parquet: not a stored trajectory"):
        read_trajectory(path)
