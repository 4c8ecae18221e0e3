"""The Linears of a layer at every tier that is tried: all that share a Hessian, or have one shape, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from quantizers.curvature import HessianError
from quantizers.each import quantize_each
from quantizers.errors import QuantizeError
from quantizers.schemes import Parts, Scheme
from quantizers.tall import quantize_tall


@dataclass(frozen=True)
class Encoded:
    """A weight as its codes, on the CPU: a layer of GLM-5 in four tiers of vq has 28 GiB so, and 72 GiB in bf16."""

    scheme: Scheme
    parts: Parts

    def weight(self, device: str) -> torch.Tensor:
        """The weight bf16 [O, I] that a server computes with."""
        return self.scheme.dequantize({name: part.to(device) for name, part in self.parts.items()})


def encoded(
    weights: Mapping[str, torch.Tensor],
    hessians: Mapping[str, torch.Tensor],
    wanted: Mapping[str, Mapping[str, Scheme]],
) -> dict[tuple[str, str], Encoded]:
    """What the weights become, by full name and tier.

    Args:
        weights: [O, I] by full name; of one shape, if each has its own Hessian.
        hessians: [I, I], by the same names: one and the same tensor for all, or each its own.
        wanted: by full name, the schemes to try by tier.

    Raises:
        QuantizeError: a Hessian cannot be used, by name.
    """
    shared = len({id(hessian) for hessian in hessians.values()}) == 1
    found: dict[tuple[str, str], Encoded] = {}
    for tier in dict.fromkeys(tier for schemes in wanted.values() for tier in schemes):
        for scheme in dict.fromkeys(schemes[tier] for schemes in wanted.values() if tier in schemes):
            names = [name for name in weights if wanted[name].get(tier) == scheme]
            own = [weights[name].detach() for name in names]
            try:
                if shared:
                    parts = quantize_tall(scheme, own, hessians[names[0]], _no_tick)
                else:
                    parts = quantize_each(scheme, own, [hessians[name] for name in names], _no_tick)
                for name, own_parts in zip(names, parts, strict=True):
                    found[name, tier] = Encoded(scheme, {key: part.cpu() for key, part in own_parts.items()})
            except HessianError as error:
                broken = names[0 if shared else error.number]
                raise QuantizeError(f"{broken}: {error}: raise damping, or add it to ignore") from None
    return found


def _no_tick() -> None:
    """Who waits for a layer is told of it by the walk."""
