"""Statistics over all positions, read from the divergence suite's files: against plain numpy over the same ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from next_tokens import comparison, draw, top

from harness.contract.errors import BadInput
from harness.runs.positions import BUCKETS, COLUMNS, position_summary
from suites.divergence.kl_bounds import Comparison, compare_scores
from suites.divergence.parquet_files import rounded, write_trajectory


def store(folder: Path, item: str, compared: Comparison, task: str = "chat-en", role: str = "candidate") -> None:
    """A stored trajectory whose comparison is given."""
    n = compared.kl_lower.size
    scores = top(draw(0, n=1)[0], 2)
    scores = type(scores)(*(np.repeat(values, n, axis=0) for values in vars(scores).values()))
    scores = type(scores)(scores.token_ids, compared.logprobs.astype(np.float32), scores.top_ids, scores.top_logprobs)
    write_trajectory(folder / f"{item}.{role}.parquet", [1], scores, task, compared)


def made(n: int, seed: int) -> Comparison:
    """A comparison of n positions with random figures that float32 holds."""
    rng = np.random.default_rng(seed)
    lower = rng.lognormal(-5, 2, n).astype(np.float32).astype(float)
    logprobs = [-rng.exponential(1.0, n).astype(np.float32).astype(float) for _ in range(2)]
    flips = rng.random(n) < 0.2
    return comparison(
        n,
        kl_lower=lower,
        kl_upper=lower * 2,
        flips=flips,
        confident_flips=flips & (rng.random(n) < 0.3),
        reference_logprobs=logprobs[0],
        logprobs=logprobs[1],
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=30)
def test_the_summary_is_that_of_all_positions(tmp_path_factory: Any, sizes: list[int], seed: int) -> None:
    folder = tmp_path_factory.mktemp("run")
    documents = [made(n, seed + index) for index, n in enumerate(sizes)]
    for index, compared in enumerate(documents):
        store(folder, f"chat-en-{index:02d}", compared)
    summary = position_summary(folder)
    assert summary is not None
    found = summary.total

    def joined(name: str) -> Any:
        return np.concatenate([getattr(compared, name) for compared in documents])

    assert (found.documents, found.positions) == (len(sizes), sum(sizes))
    for side, name in enumerate(("kl_lower", "kl_upper")):
        kl = joined(name)
        assert found.kl_mean[side] == pytest.approx(kl.mean(), rel=1e-6)
        assert found.kl_median[side] == pytest.approx(np.median(kl), rel=1e-6)
        assert found.kl_p99[side] == pytest.approx(np.percentile(kl, 99), rel=1e-6)
        assert found.kl_p999[side] == pytest.approx(np.percentile(kl, 99.9), rel=1e-6)
        assert found.kl_max[side] == pytest.approx(kl.max(), rel=1e-6)
    delta = np.exp(joined("logprobs")) - np.exp(joined("reference_logprobs"))
    assert found.delta_p_mean == pytest.approx(delta.mean(), abs=1e-9)
    assert found.delta_p_rms == pytest.approx(np.sqrt((delta**2).mean()))
    assert found.same_top == pytest.approx(1 - joined("flips").mean())
    assert (found.flips, found.confident_flips) == (joined("flips").sum(), joined("confident_flips").sum())
    ratio = np.exp(-joined("logprobs").mean()) / np.exp(-joined("reference_logprobs").mean())
    assert found.perplexity_ratio == pytest.approx(ratio)


def test_pooled_means_of_the_samples_and_of_the_files_agree(tmp_path: Path) -> None:
    sums: dict[str, float] = {}
    for seed in range(5):
        p, q = draw(seed, n=20 + seed)
        scores = rounded(top(q, 6))
        compared = compare_scores(rounded(top(p, 6)), scores)
        write_trajectory(tmp_path / f"i{seed}.candidate.parquet", [1], scores, "code-ja", compared)
        for name, value in compared.totals().items():
            sums[name] = sums.get(name, 0.0) + value
    summary = position_summary(tmp_path)
    assert summary is not None
    found, n = summary.total, sums["positions"]
    assert found.positions == n
    assert found.kl_mean == pytest.approx((sums["kl_lower_sum"] / n, sums["kl_upper_sum"] / n), rel=1e-6)
    assert found.delta_p_rms == pytest.approx((sums["delta_p_squared_sum"] / n) ** 0.5)
    assert found.perplexity_ratio == pytest.approx(np.exp((sums["nll_candidate_sum"] - sums["nll_reference_sum"]) / n))
    assert (found.flips, found.confident_flips) == (sums["flips"], sums["confident_flips"])


def test_parts_by_bucket_language_and_kind(tmp_path: Path) -> None:
    tasks = {"a": ("chat-en", 10), "b": ("chat-ja", 1500), "c": ("code-ja", 5000), "d": ("tools-zh", 1024)}
    for seed, (item, (task, n)) in enumerate(tasks.items()):
        store(tmp_path, item, made(n, seed), task)
    summary = position_summary(tmp_path)
    assert summary is not None
    assert {name: part.positions for name, part in summary.by_language.items()} == {"en": 10, "ja": 6500, "zh": 1024}
    assert {name: part.documents for name, part in summary.by_kind.items()} == {"chat": 2, "code": 1, "tools": 1}
    assert list(summary.by_bucket) == list(BUCKETS)[:3]  # no position lies at 16k or beyond
    assert [part.positions for part in summary.by_bucket.values()] == [10 + 3 * 1024, 476 + 3072, 904]
    assert [part.documents for part in summary.by_bucket.values()] == [4, 2, 1]
    late = made(5000, 2).kl_lower[4096:]
    assert summary.by_bucket["4k-16k"].kl_mean[0] == pytest.approx(late.mean(), rel=1e-6)
    assert sum(part.flips for part in summary.by_bucket.values()) == summary.total.flips


def test_each_role_has_its_own_positions(tmp_path: Path) -> None:
    assert position_summary(tmp_path) is None and position_summary(tmp_path / "nowhere") is None
    store(tmp_path, "chat-en-01", made(10, 1))
    store(tmp_path, "chat-en-01", made(10, 2), role="noise")
    store(tmp_path, "chat-en-02", made(5, 3))
    (tmp_path / "chat-en-03.candidate.tmp").write_bytes(b"half")  # a killed run leaves this behind
    candidate, noise = position_summary(tmp_path), position_summary(tmp_path, "noise")
    assert candidate is not None and noise is not None
    assert (candidate.total.positions, noise.total.positions) == (15, 10)
    assert noise.total.kl_max[0] == pytest.approx(made(10, 2).kl_lower.max())


def test_a_probability_of_nothing_stays_a_number(tmp_path: Path) -> None:
    store(tmp_path, "a", replace(made(3, 0), logprobs=np.full(3, -9999.0)))
    summary = position_summary(tmp_path)
    assert summary is not None and np.isfinite(summary.total.perplexity_ratio)


def write_table(path: Path, task: bytes | None = b"chat-en", **columns: Any) -> None:
    good = {name: pa.array([0.0 if kind == pa.float32() else False], kind) for name, kind in COLUMNS.items()}
    table = pa.table({name: value for name, value in (good | columns).items() if value is not None})
    pq.write_table(table.replace_schema_metadata(None if task is None else {b"task": task}), path)


def test_the_table_that_the_cases_change_is_a_good_one(tmp_path: Path) -> None:
    write_table(tmp_path / "x.candidate.parquet")
    summary = position_summary(tmp_path)
    assert summary is not None and summary.total.positions == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"PAR1 and then nothing"),
        lambda p: p.mkdir(),
        lambda p: write_table(p, task=None),
        lambda p: write_table(p, task=b"\xff"),
        lambda p: write_table(p, kl_lower=None),
        lambda p: write_table(p, kl_lower=pa.array(["0.1"])),
        lambda p: write_table(p, kl_upper=pa.array([None], pa.float32())),
        lambda p: write_table(p, logprob=pa.array([float("nan")], pa.float32())),
        lambda p: write_table(p, flip=pa.array([1])),
        lambda p: write_table(p, **{name: pa.array([], kind) for name, kind in COLUMNS.items()}),
        lambda p: write_trajectory(p, [1], top(draw(1)[0], 4), "chat-en"),  # never compared with anything
    ],
)
def test_what_was_not_compared_is_named(tmp_path: Path, damage: Any) -> None:
    damage(tmp_path / "x.candidate.parquet")
    with pytest.raises(BadInput, match=r"x\.candidate\.parquet: not a trajectory that was compared"):
        position_summary(tmp_path)
