"""Several weights with a Hessian each are quantized together as each is alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from quantgate_kernels.formats.vq import CODEBOOK_STEP

from quantizers.curvature import NONE, Curvature, HessianError, factors_of
from quantizers.each import quantize_each
from quantizers.schemes import TIERS, Scheme, stacked, vq
from quantizers.schemes.stacked import stacks
from quantizers.tall import turned_hessian

TIERS_STACKED: list[Any] = [
    *("vq1", "vq1.5", "vq2", "vq3", "int4", "int4-rotated", "int3"),
    pytest.param("trellis2-l12", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def codebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by chance: those that are used take seconds."""

    @functools.cache
    def table(dimensions: int, entries: int) -> torch.Tensor:
        found = torch.randn(entries, dimensions, generator=torch.Generator().manual_seed(entries)) / CODEBOOK_STEP
        return found.round().clamp(-127, 127).to(torch.int8)

    monkeypatch.setattr(vq, "universal_codebook", table)


def problem(scheme: Scheme, seed: int, singular: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(1 if singular else 256, 128, generator=generator) * torch.linspace(0.2, 2, 128)
    weight = torch.randn(16, 128, generator=generator)
    return weight, 2 * inputs.t() @ inputs


def output_error(scheme: Scheme, parts: dict[str, torch.Tensor], weight: torch.Tensor, hessian: torch.Tensor) -> float:
    error = (weight - scheme.scaled(scheme.units(parts), parts["scales"])).double()
    return float(((error @ hessian.double()) * error).sum())


@pytest.mark.parametrize("tier", TIERS_STACKED)
def test_each_is_as_if_it_were_alone(tier: str) -> None:
    """Alone is a stack of one. The third Hessian of five is singular: without damping of its own it has no factors."""
    scheme = TIERS[tier]({"a": 128}, None, 0.0 if tier != "int4" else 0.01)
    weights, hessians = zip(*(problem(scheme, seed, seed == 2) for seed in range(5)), strict=True)
    ticks: list[int] = []
    turned = [(scheme.turn(w), turned_hessian(scheme, h)) for w, h in zip(weights, hessians, strict=True)]
    alone = [scheme.quantize(weight, Curvature(hessian), lambda: None) for weight, hessian in turned]
    for count in (1, 3, 5):
        each = list(quantize_each(scheme, weights[:count], hessians[:count], lambda: ticks.append(1)))
        assert len(each) == count and ticks
        for part, expected, (weight, hessian) in zip(each, alone, turned, strict=False):
            assert {k: (v.dtype, v.shape) for k, v in part.items()} == {
                k: (v.dtype, v.shape) for k, v in expected.items()
            }
            if count == 1:
                assert all(torch.equal(part[name], expected[name]) for name in expected)
            assert float((part["codes"] == expected["codes"]).float().mean()) >= 0.99
            errors = [output_error(scheme, parts, weight, hessian) for parts in (part, expected)]
            assert errors[0] == pytest.approx(errors[1], rel=1e-5)


@pytest.mark.parametrize("tier", ["vq2", "trellis2-l12", "int4", "int4-rotated", "fp8"])
def test_unequal_shapes_are_refused(tier: str) -> None:
    scheme = TIERS[tier]({"a": 128}, None, 0.01)
    hessian = torch.eye(128)
    for rows, columns in ((32, 128), (16, 256)):
        weights = [torch.ones(16, 128), torch.ones(rows, columns)]
        with pytest.raises(ValueError, match=rf"weight 2 is \[{rows}, {columns}\], the first is \[16, 128\]"):
            list(quantize_each(scheme, weights, [hessian] * 2, lambda: None))
    with pytest.raises(ValueError, match="2 weights need as many Hessians, not 1"):
        list(quantize_each(scheme, [torch.ones(16, 128)] * 2, [hessian], lambda: None))
    with pytest.raises(ValueError, match=r"weight 1 is \[16, 128\], its Hessian \[64, 64\]"):
        list(quantize_each(scheme, [torch.ones(16, 128)], [torch.eye(64)], lambda: None))
    assert list(quantize_each(scheme, [], [], lambda: None)) == []


def test_a_scheme_without_stacks_takes_one_after_the_other() -> None:
    scheme = TIERS["fp8"]({}, None, 0.01)
    weights = [torch.randn(16, 128, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    each = quantize_each(scheme, weights, [torch.eye(128)] * 3, lambda: None)
    for weight, part in zip(weights, each, strict=True):
        assert torch.equal(scheme.quantize(weight, NONE, lambda: None)["codes"].float(), part["codes"].float())


@pytest.mark.parametrize("tier", ["int4", "int4-rotated"])
def test_a_hessian_that_cannot_be_used_is_named(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = TIERS[tier]({"a": 128}, None, 0.01)
    monkeypatch.setitem(stacked.STACK_BYTES, "cpu", 2 * 4 * 16 * 128)  # two weights go together
    weights, hessians = zip(*(problem(scheme, seed) for seed in range(4)), strict=True)
    hessians[3][5, 5] = float("nan")
    with pytest.raises(HessianError, match=r"^weight 4 of 4: the Hessian has a diagonal") as caught:
        list(quantize_each(scheme, weights, hessians, lambda: None))
    assert caught.value.number == 3


def test_stacks_are_bounded_and_nearly_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stacked.STACK_BYTES, "cpu", 4 * 4 * 32)
    assert stacks(9, 32, "cpu") == [(0, 3), (3, 6), (6, 9)]
    assert stacks(2, 800, "cpu") == [(0, 1), (1, 2)]
    assert stacks(0, 32, "cpu") == []


def test_a_singular_hessian_of_a_stack_is_damped_alone() -> None:
    """Its neighbours have the factors that they have alone, to the bit where nothing is multiplied."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(rank, 32, generator=generator) for rank in (64, 1, 64, 0)]
    hessians = [each.t() @ each for each in inputs]
    together = factors_of(torch.stack(hessians), 4, 0.0)
    for number, hessian in enumerate(hessians):
        alone = factors_of(hessian, 4, 0.0)
        assert torch.equal(together.metric[number], alone.metric)
        assert torch.allclose(together.spread[number], alone.spread, rtol=1e-6, atol=1e-7)
    assert float(together.metric[1].abs().min()) == 0 and bool(torch.isfinite(together.spread).all())
    with pytest.raises(HessianError) as caught:
        factors_of(torch.stack([hessians[0], torch.full((32, 32), float("inf"))]), 4, 0.0)
    assert caught.value.number == 1
