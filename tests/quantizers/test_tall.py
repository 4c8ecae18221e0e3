"""Weights with one Hessian go in chunks of rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers import tall
from quantizers.curvature import Curvature
from quantizers.schemes import TIERS, Parts
from quantizers.schemes.base import split_rows
from quantizers.tall import quantize_tall, row_chunks, turned_hessian
from quantizers.workers.tasks import Task


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.sampled_from([1, 16]), st.integers(1, 8))
def test_every_row_comes_once_in_chunks_that_fit(tiles: list[int], multiple: int, limit: int) -> None:
    rows = [count * multiple for count in tiles]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tall, "CHUNK_BYTES", limit * multiple * 4 * 10)
        chunks = list(row_chunks(rows, 10, multiple))
    seen: dict[int, list[int]] = {}
    for chunk in chunks:
        assert sum(stop - start for _, start, stop in chunk) <= limit * multiple
        for number, start, stop in chunk:
            assert start % multiple == 0
            seen.setdefault(number, []).extend(range(start, stop))
    assert seen == {number: list(range(count)) for number, count in enumerate(rows)}


def test_chunks_of_equal_experts_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list(row_chunks([2048] * 512, 6144, 1))) == 13
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 64 * 10)
    chunks = list(row_chunks([32] * 8, 10, 16))
    assert chunks == [[(n, 0, 32), (n + 1, 0, 32)] for n in (0, 2, 4, 6)]


SLOW = [pytest.param(tier, marks=pytest.mark.slow) for tier in ("vq2", "trellis2-l12")]


@pytest.mark.parametrize("tier", ["int4", "int4-rotated", *SLOW])
def test_chunks_change_nothing(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, generator = TIERS[tier]({"a": 128}, None, 0.01), torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 128, generator=generator)
    weights = [torch.randn(rows, 128, generator=generator) for rows in (16, 48, 32)]
    hessian = inputs.t() @ inputs
    tall_weight, curvature = scheme.turn(torch.cat(weights)), Curvature(turned_hessian(scheme, hessian))
    whole = split_rows(scheme.quantize(tall_weight, curvature, lambda: None), [16, 48, 32])
    monkeypatch.setattr(tall, "CHUNK_BYTES", 4 * 128 * 48)
    calls: list[int] = []
    run = Task.run

    def counted(self: Task, tick: Callable[[], None]) -> Parts:
        calls.append(self.weights.shape[1])
        return run(self, tick)

    monkeypatch.setattr(Task, "run", counted)
    for found, expected in zip(quantize_tall(scheme, weights, hessian, lambda: None), whole, strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert calls == [48, 48]
