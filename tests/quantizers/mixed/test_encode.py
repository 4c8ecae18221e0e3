"""Many Linears at many tiers in few calls: what each gives alone."""

from __future__ import annotations

import pytest
import torch

from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.mixed.encode import encoded
from quantizers.schemes import TIERS, Scheme

NAMES = ("a", "b", "c")
SCHEMES = {tier: TIERS[tier](dict.fromkeys(NAMES, 64), None, 0.01) for tier in ("vq1", "vq2", "int4", "fp8")}


def alone(scheme: Scheme, weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    curvature = Curvature(scheme.turn(scheme.turn(hessian).t()))
    return scheme.dequantize(scheme.quantize(scheme.turn(weight), curvature, lambda: None))


@pytest.mark.parametrize("shared", [True, False])
def test_each_weight_is_what_it_is_alone(shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(16, 64, generator=generator) for name in NAMES}
    if shared:
        weights["c"] = torch.randn(8, 64, generator=generator)  # rows may differ where the inputs are the same
    rows = [torch.randn(200, 64, generator=generator) for _ in NAMES]
    found = [2 * own.t() @ own for own in rows]
    hessians = dict(zip(NAMES, found[:1] * 3 if shared else found, strict=True))
    tiers = {"a": ("vq1", "vq2", "int4"), "b": ("vq2", "fp8"), "c": ("int4", "vq2")}
    wanted = {name: {tier: SCHEMES[tier] for tier in own} for name, own in tiers.items()}
    done = encoded(weights, hessians, wanted)
    assert done.keys() == {(name, tier) for name, own in tiers.items() for tier in own}
    for (name, tier), made in done.items():
        same = made.weight("cpu") == alone(SCHEMES[tier], weights[name], hessians[name])
        assert float(same.float().mean()) > 0.99, (name, tier)


def test_a_hessian_that_cannot_be_used_is_named() -> None:
    weights = {name: torch.ones(4, 64) for name in NAMES}
    hessians = {name: torch.eye(64) for name in NAMES}
    hessians["b"] = torch.full((64, 64), float("nan"))
    with pytest.raises(QuantizeError, match=r"^b: .*raise damping, or add it to ignore"):
        encoded(weights, hessians, {name: {"vq2": SCHEMES["vq2"]} for name in NAMES})
