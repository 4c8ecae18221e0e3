"""Compensation over rows against the sum that it is to make small, and against the method without it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.curvature import Curvature
from quantizers.schemes import TIERS
from quantizers.schemes.base import Scheme
from quantizers.two_sided import ROWS, chunk_bounds, quantize_two_sided


def correlated(size: int, seed: int) -> torch.Tensor:
    """A Hessian [size, size] of inputs that go together."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, 4, generator=generator) @ torch.randn(4, size, generator=generator) + torch.eye(size)
    rows = torch.randn(4 * size, size, generator=generator) @ mixing
    return rows.t() @ rows


def problem(tier: str) -> tuple[Scheme, list[torch.Tensor], Curvature, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(rows, 128, generator=generator) for rows in (128, 32)]
    scheme = TIERS[tier]({"a": 128}, None, 0.01)
    return scheme, weights, Curvature(correlated(128, 2)), [correlated(len(weight), 3) for weight in weights]


def costs(tier: str, chunks: int) -> list[float]:
    """tr(F E H E^T) of each weight."""
    scheme, weights, curvature, hessians = problem(tier)
    object.__setattr__(scheme, "row_chunks", chunks)
    found = quantize_two_sided(scheme, weights, curvature, hessians, lambda: None)
    costs = []
    for weight, parts, hessian in zip(weights, found, hessians, strict=True):
        error = (weight - scheme.scaled(scheme.units(parts), scheme.stored(parts["scales"]))).double()
        costs.append(float(torch.einsum("ab,bi,ij,aj->", hessian.double(), error, curvature.hessian.double(), error)))
    return costs


def test_more_chunks_cost_less() -> None:
    for tier in ("vq2", "int4"):
        one, two, eight = (costs(tier, chunks)[0] for chunks in (1, 2, 8))
        assert eight < 0.8 * two < 0.8 * 0.9 * one


def test_one_chunk_is_the_method_without_it() -> None:
    scheme, weights, curvature, hessians = problem("vq2")
    object.__setattr__(scheme, "row_chunks", 1)
    found = quantize_two_sided(scheme, weights, curvature, hessians, lambda: None)
    for weight, parts in zip(weights, found, strict=True):
        alone = scheme.quantize(weight, curvature, lambda: None)
        assert all(torch.equal(alone[name], parts[name]) for name in alone)


def test_a_weight_does_not_know_of_the_one_beside_it() -> None:
    scheme, weights, curvature, hessians = problem("vq2")
    together = quantize_two_sided(scheme, weights, curvature, hessians, lambda: None)
    for number, weight in enumerate(weights):
        alone = quantize_two_sided(scheme, [weight], curvature, [hessians[number]], lambda: None)[0]
        assert all(torch.equal(alone[name], together[number][name]) for name in alone)


@given(st.integers(1, 5000), st.integers(1, 16))
def test_chunks_are_all_rows_once_and_start_at_tiles(rows: int, chunks: int) -> None:
    bounds = chunk_bounds(rows, chunks)
    assert bounds[0] == 0 and bounds[-1] == rows and len(bounds) == chunks + 1 and bounds == sorted(bounds)
    assert all(start % ROWS == 0 or start == rows for start in bounds)
