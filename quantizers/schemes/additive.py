"""Sums of entries of codebooks that each Linear has of its own, in the AQLM project's format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from quantgate_kernels.formats.aqlm import FORMAT, AQLMLayout, encode, units

from quantizers.additive import AdditiveFit, Effort
from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.schemes.base import CardWords, Parts, Scheme


@dataclass(frozen=True)
class Additive(Scheme):
    """M codes for 8 neighbouring inputs, fp16 codebooks for each Linear, an fp16 scale for each row; not rotated."""

    layout: AQLMLayout
    damping: float
    effort: Effort = field(default_factory=Effort)
    tall = False

    @property
    def tier(self) -> str:  # type: ignore[override]
        return f"aqlm-{self.layout.books}x{self.layout.bits}g{self.layout.in_group}"

    def quantize(self, weight: torch.Tensor, curvature: Curvature, tick: Callable[[], None]) -> Parts:
        fit = AdditiveFit(weight, curvature, self.layout, self.damping, self.effort)
        fit.run(tick)
        return {"codes": fit.codes.to(torch.int32), "codebooks": fit.codebooks, "scales": fit.scales[:, None]}

    def units(self, parts: Parts) -> torch.Tensor:
        return units(parts["codes"], parts["codebooks"])

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return encode(parts["codes"].cpu(), parts["codebooks"].cpu(), self.stored(parts["scales"])[:, 0].cpu())

    def nbytes(self, rows: int, columns: int) -> int:
        return self.layout.nbytes(rows, columns)

    def entry(self) -> dict[str, Any]:
        return {"format": FORMAT, **self.layout.settings(), "rotation": None}

    def stock_config(self, ignore: Sequence[str]) -> dict[str, Any]:
        # Older transformers (and vLLM) know a Linear here by the name of its weight, transformers 5 by its own.
        names = [_name(entry) for entry in ignore]
        both = [form for name in names for form in ([name] if name.endswith(".") else [name, f"{name}.weight"])]
        return {"quant_method": "aqlm", **self.layout.settings(), "linear_weights_not_to_quantize": both}

    def words(self) -> CardWords:
        layout, effort = self.layout, self.effort
        sums = "one entry" if layout.books == 1 else f"the sum of {layout.books} entries"
        return CardWords(
            method="additive quantization by beam search, codebooks by least squares (after AQLM, "
            "[arXiv 2401.06118](https://arxiv.org/abs/2401.06118))",
            weights=f"{layout.in_group} weights are {sums} of {layout.entries:,}, in fp16 codebooks for each Linear, "
            "times an fp16 scale per row",
            activations="not quantized",
            format=f"`{FORMAT}`, which transformers reads with the package of that name",
            tags=("aqlm",),
            settings={"damping": f"{self.damping:g}", "beam": f"{effort.beam}, {effort.rounds} rounds"},
        )


def for_model(books: int, bits: int, features: Mapping[str, int], group_size: int | None, damping: float) -> Additive:
    """The scheme for one model; the last three arguments as those of `int_groups.for_model`.

    Raises:
        QuantizeError: a group_size is asked for, or naming a Linear whose inputs 8 does not divide.
    """
    scheme = Additive(AQLMLayout(books, bits), damping)
    if group_size is not None:
        raise QuantizeError(f"tier {scheme.tier} has one scale for each row: no group_size")
    for name, columns in features.items():
        if columns % scheme.layout.in_group:
            raise QuantizeError(
                f"{name} has {columns} inputs, which groups of {scheme.layout.in_group} do not divide: ignore this "
                "layer in the recipe"
            )
    return scheme


def _name(entry: str) -> str:
    """An entry of `ignore` without regular expressions: a name, or how the names of a draft layer begin."""
    return re.sub(r"\\(.)", r"\1", entry[3:].removesuffix(".*")) if entry.startswith("re:") else entry
