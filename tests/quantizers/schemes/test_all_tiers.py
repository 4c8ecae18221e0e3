"""What holds of every tier that a recipe may name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from quantgate_kernels.formats.trellis import TrellisLayout

from quantizers.curvature import Curvature
from quantizers.schemes import TIERS, Scheme
from quantizers.schemes.base import split_rows
from quantizers.schemes.trellis import Trellis

SLOW = ("vq1", "vq3", "trellis")
"""Tiers, or how they begin, whose tables take a second to make or to search."""
LONG = ("vq1.5", "aqlm-1x16g8")
"""Those whose tables take ten."""


def marked(tiers: Iterable[str]) -> list[Any]:
    def marks(tier: str) -> list[Any]:
        return [pytest.mark.long] if tier in LONG else [pytest.mark.slow] if tier.startswith(SLOW) else []

    return [pytest.param(tier, marks=marks(tier)) for tier in tiers]


def scheme_of(tier: str, columns: int) -> Scheme:
    """The scheme of a tier; a trellis with so few states that its search takes no time."""
    scheme: Scheme = TIERS[tier]({"a": columns}, None, 0.05)
    return replace(scheme, layout=TrellisLayout(scheme.layout.bits, 8)) if isinstance(scheme, Trellis) else scheme


def weight_and_hessian(rows: int, columns: int) -> tuple[torch.Tensor, Curvature]:
    generator = torch.Generator().manual_seed(rows)
    inputs = torch.randn(2 * columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), Curvature(inputs.t() @ inputs)


@pytest.mark.slow
@pytest.mark.parametrize("tier", marked(t for t in TIERS if t != "fp8" and TIERS[t]({}, None, 0.05).tall))
def test_a_tall_weight_is_its_parts(tier: str) -> None:
    """Linears with one Hessian are quantized as one weight; what is stored of each is as if it had been alone."""
    scheme = scheme_of(tier, 128)
    weight, curvature = weight_and_hessian(48, 128)
    rows = [16, 32]
    together = split_rows(scheme.quantize(weight, curvature, lambda: None), rows)
    for part, found in zip(torch.split(weight, rows), together, strict=True):
        alone = scheme.quantize(part, curvature, lambda: None)
        assert all(torch.equal(alone[name], found[name]) for name in alone)
        assert torch.equal(scheme.dequantize(alone), scheme.dequantize(found))


@pytest.mark.parametrize("tier", marked(TIERS))
def test_bytes_are_those_of_what_is_stored(tier: str) -> None:
    scheme = scheme_of(tier, 256)
    stored = scheme.tensors(scheme.quantize(*weight_and_hessian(32, 256), lambda: None))
    assert scheme.nbytes(32, 256) == sum(tensor.nbytes for tensor in stored.values())
