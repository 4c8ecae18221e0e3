"""Integers with a scale for each group of inputs, by GPTQ; what stock servers load where they can.

compressed-tensors and so transformers read 2, 4 and 8 bits. vLLM 0.32 reads them too, and has kernels of its own for
4 bits (GPU and CPU) and for 8 (GPU); for 2 it needs the package `humming`. 3 bits and rotated inputs are read by our
plugin alone (quantgate_kernels/formats/pack_quantized.py says why).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.pack_quantized import FORMAT, encode, limits
from quantgate_kernels.formats.rotation import signs_of
from quantgate_kernels.formats.words import WORD_BITS
from quantgate_kernels.tables import SIGNS

from quantizers.curvature import Curvature, stacked_factors
from quantizers.errors import QuantizeError
from quantizers.gptq import GPTQArgs, gptq, gptq_each, ordered_factor
from quantizers.schemes.base import ROTATION_SEED, TABLES_FILE, CardWords, Parts
from quantizers.schemes.stacked import StackedScheme
from quantizers.sweep import Integers, sweep

GROUP_SIZES = (128, 64, 32)
SCALE_BYTES, SHAPE_BYTES = 2, 16
MULTIPLIERS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""What the scale that clips nothing of a group is tried with."""


@dataclass(frozen=True)
class IntGroups(StackedScheme):
    """Signed integers of `bits`, symmetric, one scale of 16 bits for `group_size` neighbouring inputs of a row."""

    bits: int
    group_size: int
    damping: float
    rotation_seed: int | None = None
    row_chunks = 4
    stored_scales = "weight_scale"

    @property
    def tier(self) -> str:  # type: ignore[override]
        return f"int{self.bits}" + ("" if self.rotation_seed is None else "-rotated")

    @property
    def stock(self) -> bool:
        """Do others read it?"""
        return self.bits != 3 and self.rotation_seed is None

    @property
    def outputs_multiple(self) -> int:  # type: ignore[override]
        # vLLM's Marlin pads, its CPUWNA16 does not (model_executor/kernels/linear/mixed_precision in vLLM 0.32).
        return 32 if self.stock else 1

    @property
    def scale_dtype(self) -> torch.dtype:  # type: ignore[override]
        return torch.bfloat16 if self.stock else torch.float16  # bf16 is what compressed-tensors has

    def quantize_stack(self, weights: torch.Tensor, curvatures: Sequence[Curvature], tick: Callable[[], None]) -> Parts:
        return (self._by_gptq if self.rotation_seed is None else self._by_sweep)(weights, curvatures, tick)

    def _by_gptq(self, weights: torch.Tensor, curvatures: Sequence[Curvature], tick: Callable[[], None]) -> Parts:
        """Columns by importance across groups: the sweep below has 3 % less error on SmolLM2, but 24 % more KL."""
        args = GPTQArgs(self.group_size, self.bits, self.damping)
        if len(weights) == 1:
            hessian = curvatures[0].hessian
            ordered = curvatures[0].kept(("gptq", self.damping), lambda: ordered_factor(hessian, self.damping))
            codes, scales = (part[None] for part in gptq(weights[0], hessian, args, tick, ordered))
        else:
            codes, scales = gptq_each(weights, [each.hessian for each in curvatures], args, tick)
        return {"codes": codes, "scales": scales.to(torch.float32)}

    def _by_sweep(self, weights: torch.Tensor, curvatures: Sequence[Curvature], tick: Callable[[], None]) -> Parts:
        low, high = limits(self.bits)
        count, rows, _ = weights.shape
        widest = weights.view(count, rows, -1, self.group_size).abs().amax(3) / (high + 0.5)
        orders, group_orders = zip(
            *(by_importance(torch.diagonal(each.hessian), self.group_size) for each in curvatures), strict=True
        )
        factors = stacked_factors(curvatures, 1, self.damping, orders)
        order, group_order = (torch.stack(each)[:, None].expand(-1, rows, -1) for each in (orders, group_orders))
        swept = sweep(
            weights.gather(2, order), factors, Integers(low, high), widest.gather(2, group_order), MULTIPLIERS, tick,
            self.scale_dtype,
        )  # fmt: skip
        codes, scales = torch.empty_like(weights, dtype=torch.int8), torch.empty_like(widest)
        codes.scatter_(2, order, swept[0].to(torch.int8))
        scales.scatter_(2, group_order, swept[1])
        return {"codes": codes, "scales": scales}

    def units(self, parts: Parts) -> torch.Tensor:
        return parts["codes"].to(torch.float32)

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return encode(parts["codes"].cpu(), self.stored(parts["scales"]).cpu(), self.bits, self.scale_dtype)

    def nbytes(self, rows: int, columns: int) -> int:
        words, groups = columns * self.bits // WORD_BITS, columns // self.group_size
        return rows * (4 * words + SCALE_BYTES * groups) + SHAPE_BYTES

    def tables(self, widths: Sequence[int]) -> dict[str, torch.Tensor]:
        if self.rotation_seed is None:
            return {}
        return {f"signs.{width}": signs_of(width, self.rotation_seed) for width in sorted(set(widths))}

    def entry(self) -> dict[str, Any]:
        rotation = None if self.rotation_seed is None else {"kind": SIGNS, "seed": self.rotation_seed}
        return {"format": FORMAT, "bits": self.bits, "group_size": self.group_size, "rotation": rotation}

    def stock_config(self, ignore: Sequence[str]) -> dict[str, Any] | None:
        if not self.stock:
            return None
        # "static" is the act-order that needs no g_idx: vLLM runs it like no act-order at all.
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": True,
            "strategy": "group",
            "group_size": self.group_size,
            "dynamic": False,
            "actorder": "static",
        }
        return {
            "quant_method": "compressed-tensors",
            "format": FORMAT,
            "quantization_status": "compressed",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": weights,
                    "input_activations": None,
                    "output_activations": None,
                    "format": FORMAT,
                }
            },
            "ignore": list(ignore),
            "kv_cache_scheme": None,
        }

    def serving(self, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        if self.bits == 2 and self.stock:
            return (
                "vLLM reads it on a GPU with the package `humming`, its own kernels have no 2 bits; transformers reads "
                "it with `compressed-tensors`."
            )
        return None

    def words(self) -> CardWords:
        width, kind = self.bits, "bf16" if self.stock else "fp16"
        bits = width + 8 * SCALE_BYTES / self.group_size
        turned = "" if self.rotation_seed is None else ", rotated inputs"
        ours = f"quantgate `{FORMAT}`" + (f" ({TABLES_FILE} holds the rotation's signs)" if turned else "")
        return CardWords(
            method="GPTQ ([arXiv 2210.17323](https://arxiv.org/abs/2210.17323)), static act-order, searched "
            f"scales{turned}",
            weights=f"{width}-bit integers, symmetric, {kind} scale per {self.group_size} inputs ({bits:g} bits each)",
            activations=f"not quantized (W{width}A16)",
            format=f"compressed-tensors `{FORMAT}`" if self.stock else ours,
            tags=(("compressed-tensors" if self.stock else "quantgate-int"), f"w{width}a16"),
            settings={"damping": f"{self.damping:g}"},
        )


def for_model(
    bits: int, rotated: bool, features: Mapping[str, int], group_size: int | None, damping: float
) -> IntGroups:
    """The scheme for one model.

    Args:
        bits: of a code.
        rotated: are inputs rotated?
        features: inputs of each Linear by its full name.
        group_size: neighbouring inputs that share a scale; None: the largest that fits every Linear.
        damping: added to the diagonal of a Hessian, in units of its mean.

    Raises:
        QuantizeError: naming a Linear that no allowed group size divides.
    """
    return IntGroups(bits, choose_group_size(features, group_size), damping, ROTATION_SEED if rotated else None)


def by_importance(importance: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The order [I] in which columns are swept, and that [I/g] of their groups: what inputs are largest in comes first.

    Whole groups by the mean of `importance` [I], and the columns within each by their own: errors of the first are made
    up for by all others. The codes keep their places, so no server knows of it ("static" act-order).
    """
    groups = importance.view(-1, group_size)
    group_order = torch.argsort(groups.mean(1), descending=True, stable=True)
    within = torch.argsort(groups, dim=1, descending=True, stable=True)
    return (group_order[:, None] * group_size + within[group_order]).flatten(), group_order


def choose_group_size(features: Mapping[str, int], wanted: int | None = None) -> int:
    """The group size for all layers: `wanted`, or the largest of 128, 64, 32 that divides every Linear's inputs.

    One size for all, because vLLM fuses q/k/v and gate/up and their parts must share a scheme.

    Raises:
        QuantizeError: naming a layer that no allowed size divides.
    """
    if wanted is not None and wanted not in GROUP_SIZES:
        sizes = ", ".join(map(str, GROUP_SIZES))
        raise QuantizeError(f"group_size {wanted} is not supported: use one of {sizes}, or none")
    allowed = GROUP_SIZES if wanted is None else (wanted,)
    for size in allowed:
        if all(count % size == 0 for count in features.values()):
            return size
    name, count = next((name, count) for name, count in features.items() if count % allowed[-1])
    raise QuantizeError(
        f"{name} has {count} inputs, which group size {allowed[-1]} does not divide: "
        f"{'ignore this layer in the recipe' if wanted is None else 'choose another group_size or none'}"
    )
