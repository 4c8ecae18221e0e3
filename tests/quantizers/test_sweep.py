"""The block sweep against brute force and against the textbook, in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantizers.curvature import Factors, HessianError, factors_of
from quantizers.sweep import Integers, nearest, sweep


def sweep_one(
    weight: torch.Tensor, factors: Factors, table: Any, scales: torch.Tensor, *settings: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """`sweep` of a stack of one."""
    stack = Factors(factors.metric[None], factors.spread[None])
    codes, chosen = sweep(weight[None], stack, table, scales[None], *settings)
    return codes[0], chosen[0]


def problem(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5 + torch.eye(columns)
    inputs = torch.randn(4 * columns, columns, generator=generator) @ mixing
    return torch.randn(rows, columns, generator=generator), inputs.t() @ inputs


def output_error(weight: torch.Tensor, quantized: torch.Tensor, hessian: torch.Tensor) -> float:
    error = (weight - quantized).double()
    return float(((error @ hessian.double()) * error).sum())


def textbook(weight: torch.Tensor, hessian: torch.Tensor, table: torch.Tensor, scale: float) -> torch.Tensor:
    """Optimal brain quantization of blocks: choose, then move the rest by the exact minimiser, from the inverse."""
    dimensions, columns = table.shape[1], weight.shape[1]
    curvature = hessian.double() / hessian.diagonal().double().mean() + 0.01 * torch.eye(columns, dtype=torch.float64)
    work, result = weight.double().clone(), torch.empty(weight.shape, dtype=torch.float64)
    for start in range(0, columns, dimensions):
        inverse = torch.linalg.inv(curvature[start:, start:])
        corner = torch.linalg.inv(inverse[:dimensions, :dimensions])  # what an error of the block costs in the end
        for row in range(len(weight)):
            errors = work[row, start : start + dimensions] - scale * table.double()
            best = int(torch.einsum("ki,ij,kj->k", errors, corner, errors).argmin())
            result[row, start : start + dimensions] = scale * table[best].double()
            work[row, start:] -= errors[best] @ corner @ inverse[:dimensions]
    return result.float()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]))
def test_it_is_the_textbook(seed: int, dimensions: int) -> None:
    weight, hessian = problem(seed, 3, 16)
    table = torch.randn(12, dimensions, generator=torch.Generator().manual_seed(seed))
    scales = torch.full((3, 2), 0.5)
    codes, chosen = sweep_one(weight, factors_of(hessian, dimensions, 0.01), table, scales, (1.0,), lambda: None)
    assert torch.equal(chosen, scales)
    assert torch.allclose(table[codes.long()].flatten(1) * 0.5, textbook(weight, hessian, table, 0.5), atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(-2, 1), (-8, 7), (-128, 127)]), st.sampled_from([1, 3]))
def test_integers_are_a_table_of_integers(seed: int, limits: tuple[int, int], groups: int) -> None:
    """Rounding column by column gives what the search through a table gives, scales and all."""
    low, high = limits
    weight, hessian = problem(seed, 5, 40 * groups)  # strips of 16 do not divide a group
    factors = factors_of(hessian, 1, 0.01)
    table = torch.arange(low, high + 1, dtype=torch.float32)[:, None]
    scales = weight.view(5, groups, -1).abs().amax(2) / (high + 0.5)
    multipliers = (0.7, 0.85, 1.0)
    expected, chosen = sweep_one(weight, factors, table, scales, multipliers, lambda: None)
    codes, found = sweep_one(weight, factors, Integers(low, high), scales, multipliers, lambda: None)
    # Float32 may land on the other side of a tie, and the row then takes another path.
    same = (codes == expected + low).all(1) & (found == chosen).all(1)
    assert same.float().mean() >= 0.6
    errors = [
        output_error(weight, c * s.repeat_interleave(40, 1), hessian)
        for c, s in ((codes, found), (expected + low, chosen))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    if groups == 1:
        book = textbook(weight, hessian, table, float(scales[0, 0]))
        again, _ = sweep_one(
            weight, factors, Integers(low, high), scales[:1, :1].half().float().expand(5, 1), (1.0,), lambda: None
        )
        assert output_error(weight, again * scales[0, 0], hessian) == pytest.approx(
            output_error(weight, book, hessian), rel=0.05
        )


def test_rows_are_independent_and_many_rows_are_cut() -> None:
    weight, hessian = problem(4, 2100, 64)
    factors, scales = factors_of(hessian, 1, 0.01), torch.full((2100, 2), 0.3)
    codes, _ = sweep_one(weight, factors, Integers(-8, 7), scales, (0.9, 1.0), lambda: None)
    part, _ = sweep_one(weight[2040:2060], factors, Integers(-8, 7), scales[:20], (0.9, 1.0), lambda: None)
    assert (codes[2040:2060] == part).float().mean() > 0.99


def test_the_number_of_threads_is_what_it_was() -> None:
    threads = torch.get_num_threads()
    weight, hessian = problem(6, 4, 32)

    def tick() -> None:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_one(weight, factors_of(hessian, 1, 0.01), Integers(-8, 7), torch.ones(4, 1), (1.0,), tick)
    assert torch.get_num_threads() == threads


def test_scales_are_rounded_to_what_is_stored() -> None:
    weight, hessian = problem(5, 4, 32)
    for dtype in (torch.float16, torch.bfloat16):
        _, chosen = sweep_one(
            weight, factors_of(hessian, 1, 0.01), Integers(-8, 7), torch.rand(4, 1), (0.9, 1.0), lambda: None, dtype
        )
        assert torch.equal(chosen.to(dtype).float(), chosen)


def test_compensation_pays_and_more_scales_do() -> None:
    weight, hessian = problem(1, 64, 128)
    table = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    scales = weight.square().mean(1, keepdim=True).sqrt()
    plain = table[nearest((weight / scales).view(-1, 4), table)].view(64, 128) * scales
    factors, errors = factors_of(hessian, 4, 0.01), []
    for multipliers in ((1.0,), (0.85, 0.9, 0.95, 1.0, 1.05, 1.1)):
        codes, chosen = sweep_one(weight, factors, table, scales, multipliers, lambda: None)
        errors.append(output_error(weight, table[codes.long()].flatten(1) * chosen, hessian))
    assert errors[1] < errors[0] < 0.9 * output_error(weight, plain, hessian)


def test_a_singular_hessian_is_no_error_and_a_broken_one_is() -> None:
    weight, _ = problem(2, 8, 32)
    one = torch.randn(1, 32)
    for hessian in (torch.zeros(32, 32), one.t() @ one):
        codes, _ = sweep_one(
            weight, factors_of(hessian, 2, 0.0), torch.randn(4, 2), torch.ones(8, 1), (1.0,), lambda: None
        )
        assert codes.shape == (8, 16)
    with pytest.raises(HessianError, match="not finite"):
        factors_of(torch.full((4, 4), float("nan")), 2, 0.01)


def test_nearest_is_the_nearest() -> None:
    points, table = torch.randn(50, 3), torch.randn(7, 3)
    assert nearest(points, table).tolist() == torch.cdist(points, table).argmin(1).tolist()
    grid = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    assert torch.equal(grid[nearest(grid * 0.3, grid)], grid)
