"""GPTQ against the textbook, in float64 and one column at a time."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.pack_quantized import dequantize

from quantizers.curvature import HessianError
from quantizers.gptq import GPTQArgs, gptq, inverse_factor, round_to_nearest, search_scales


def problem(seed: int, rows: int, columns: int, tokens: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and the Hessian of correlated inputs of uneven size."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64) / columns**0.5
    inputs = torch.randn(tokens, columns, generator=generator, dtype=torch.float64) @ (mixing + torch.eye(columns))
    inputs = inputs * torch.logspace(-1, 1, columns, dtype=torch.float64)[torch.randperm(columns, generator=generator)]
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight.float(), (2 * inputs.T @ inputs).float()


def textbook(weight: torch.Tensor, hessian: torch.Tensor, scales: torch.Tensor, damping: float) -> torch.Tensor:
    """OBQ in a fixed order: quantize a column, spread its error by the inverse Hessian, remove it from there.

    Optimal Brain Quantization (Frantar & Alistarh 2022, arXiv 2208.11580), equations 2 and 3, in float64.
    """
    work, damped = weight.double().clone(), hessian.double().clone()
    columns = work.shape[1]
    order = torch.argsort(torch.diagonal(hessian), descending=True, stable=True).tolist()
    damped += damping * torch.diagonal(damped).mean() * torch.eye(columns, dtype=torch.float64)
    inverse = torch.linalg.inv(damped)
    step = scales.double().repeat_interleave(columns // scales.shape[1], dim=1)
    codes = torch.zeros(work.shape, dtype=torch.int8)
    for column in order:
        code = (work[:, column] / step[:, column]).round().clamp(-8, 7)
        codes[:, column] = code.to(torch.int8)
        error = (work[:, column] - code * step[:, column]) / inverse[column, column]
        work -= error[:, None] * inverse[column][None, :]
        inverse -= inverse[:, column, None] * inverse[None, column, :] / inverse[column, column]
        inverse[column] = 0.0
        inverse[:, column] = 0.0
        inverse[column, column] = 1.0  # never used again
    return codes


def loss(weight: torch.Tensor, quantized: torch.Tensor, hessian: torch.Tensor) -> float:
    difference = weight.double() - quantized.double()
    return float((difference @ hessian.double() * difference).sum())


@pytest.mark.parametrize(("seed", "block"), [(0, 128), (1, 16), (2, 7), (3, 1)])
def test_codes_are_those_of_the_textbook(seed: int, block: int) -> None:
    weight, hessian = problem(seed, rows=24, columns=64)
    codes, scales = gptq(weight, hessian, GPTQArgs(group_size=32, bits=4, block=block))
    expected = textbook(weight, hessian, scales, 0.01)
    # float32 may land on the other side of a tie and then takes another path along that row.
    assert (codes == expected).all(dim=1).float().mean() >= 0.9
    ours, theirs = (loss(weight, dequantize(c, scales), hessian) for c in (codes, expected))
    assert ours == pytest.approx(theirs, rel=0.02)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([32, 64]), st.integers(1, 20))
def test_never_worse_than_rounding(seed: int, group_size: int, rows: int) -> None:
    weight, hessian = problem(seed, rows, columns=128)
    codes, scales = gptq(weight, hessian, GPTQArgs(group_size=group_size, bits=4))
    rounded = dequantize(round_to_nearest(weight, scales, 4), scales)
    assert loss(weight, dequantize(codes, scales), hessian) <= loss(weight, rounded, hessian)


def test_rows_are_independent_and_bytes_repeat() -> None:
    weight, hessian = problem(5, rows=40, columns=96)
    args = GPTQArgs(group_size=32, bits=4)
    codes, scales = gptq(weight, hessian, args)
    again = gptq(weight.clone(), hessian.clone(), args)
    assert torch.equal(codes, again[0]) and torch.equal(scales, again[1])
    part, part_scales = gptq(weight[10:20], hessian, args)
    assert torch.equal(scales[10:20], part_scales)
    assert (codes[10:20] == part).float().mean() > 0.99


def test_inputs_are_not_changed() -> None:
    weight, hessian = problem(6, rows=4, columns=64)
    before = weight.clone(), hessian.clone()
    gptq(weight, hessian, GPTQArgs(group_size=32, bits=4))
    assert torch.equal(weight, before[0]) and torch.equal(hessian, before[1])


def test_a_diagonal_hessian_is_rounding_to_nearest() -> None:
    weight, _ = problem(7, rows=8, columns=64)
    codes, scales = gptq(weight, torch.diag(torch.linspace(1, 2, 64)), GPTQArgs(group_size=32, bits=4))
    assert torch.equal(codes, round_to_nearest(weight, scales, 4))


def test_dead_columns_are_rounded_and_do_no_harm() -> None:
    weight, hessian = problem(8, rows=8, columns=64)
    dead = [0, 17, 63]
    hessian[dead] = 0
    hessian[:, dead] = 0
    codes, scales = gptq(weight, hessian, GPTQArgs(group_size=32, bits=4))
    assert torch.equal(codes[:, dead], round_to_nearest(weight, scales, 4)[:, dead])
    assert torch.isfinite(dequantize(codes, scales).float()).all()


def test_no_input_at_all_is_rounding_to_nearest() -> None:
    weight, _ = problem(9, rows=8, columns=64)
    codes, scales = gptq(weight, torch.zeros(64, 64), GPTQArgs(group_size=32, bits=4))
    assert torch.equal(codes, round_to_nearest(weight, scales, 4))
    assert torch.equal(scales, search_scales(weight, GPTQArgs(group_size=32, bits=4)))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e4, 1e30])
def test_scales_are_positive_and_finite_at_any_size(size: float) -> None:
    weight, hessian = problem(10, rows=4, columns=64)
    weight[:, :32] *= size
    codes, scales = gptq(weight, hessian, GPTQArgs(group_size=32, bits=4))
    assert scales.dtype == torch.bfloat16 and bool((scales > 0).all()) and bool(torch.isfinite(scales).all())
    assert torch.isfinite(dequantize(codes, scales).float()).all()


def test_a_singular_hessian_is_damped_until_it_works() -> None:
    weight, _ = problem(11, rows=4, columns=64)
    one = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    codes, scales = gptq(weight, 2 * one.T @ one, GPTQArgs(group_size=32, bits=4, damping=1e-12))
    assert torch.isfinite(dequantize(codes, scales).float()).all()


def test_a_hopeless_hessian_is_an_error() -> None:
    weight, _ = problem(12, rows=4, columns=64)
    hessian = torch.full((64, 64), 5.0).fill_diagonal_(1.0)  # no X gives this
    with pytest.raises(HessianError, match="singular at damping 1"):
        gptq(weight, hessian, GPTQArgs(group_size=32, bits=4))
    hessian[3, 3] = float("nan")
    with pytest.raises(HessianError, match="not finite"):
        gptq(weight, hessian, GPTQArgs(group_size=32, bits=4))


def test_factor_is_the_cholesky_factor_of_the_inverse() -> None:
    _, hessian = problem(13, rows=1, columns=48)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    factor = inverse_factor(hessian, order, 0.01)
    assert torch.equal(factor, factor.triu())
    scaled = (hessian / torch.diagonal(hessian).mean()).double() + 0.01 * torch.eye(48, dtype=torch.float64)
    expected = torch.linalg.inv(scaled[order][:, order])
    torch.testing.assert_close(
        (factor.T @ factor).double(), expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max())
    )


def test_more_steps_never_make_scales_worse() -> None:
    weight, hessian = problem(14, rows=16, columns=64)
    importance = torch.diagonal(hessian)

    def weighted_error(args: GPTQArgs) -> float:
        scales = search_scales(weight, args, importance)
        error = (weight - dequantize(round_to_nearest(weight, scales, 4), scales).float()).square()
        return float((error * importance).sum())

    coarse = GPTQArgs(group_size=32, bits=4, steps=2)
    assert weighted_error(replace(coarse, steps=25)) < weighted_error(coarse)


@pytest.mark.parametrize(
    ("weight", "hessian"),
    [
        (torch.zeros(4), torch.zeros(4, 4)),
        (torch.zeros(0, 64), torch.zeros(64, 64)),
        (torch.zeros(4, 64), torch.zeros(32, 32)),
        (torch.zeros(4, 48), torch.zeros(48, 48)),
        (torch.full((4, 64), float("nan")), torch.eye(64)),
    ],
)
def test_wrong_shapes_and_values_are_refused(weight: torch.Tensor, hessian: torch.Tensor) -> None:
    with pytest.raises(ValueError):
        gptq(weight, hessian, GPTQArgs(group_size=32, bits=4))
