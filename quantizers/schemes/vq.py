"""Codebook quantization of the AQLM family with one universal codebook a tier, by the exact block sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.vq import CODEBOOK_STEP, FORMAT, VQLayout, encode, units
from quantgate_kernels.tables import SEED, SIGNS, UNIVERSAL, sha256_of_table

from quantizers.codebooks import universal_codebook
from quantizers.curvature import Curvature, stacked_factors
from quantizers.schemes.base import ROTATION_SEED, TABLES_FILE, CardWords, Parts, require_storable
from quantizers.schemes.stacked import StackedScheme
from quantizers.sweep import sweep

FEW = (0.92, 1.0, 1.08)
MANY = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1)
"""What the RMS of a group is tried with as its scale: many where a table is small enough to search so often."""


@dataclass(frozen=True)
class VectorQuantization(StackedScheme):
    """Entries of a codebook for every d neighbouring inputs, an fp16 scale for each group; inputs rotated."""

    tier: str
    layout: VQLayout
    damping: float
    rotation_seed: int | None = ROTATION_SEED

    @property
    def multipliers(self) -> tuple[float, ...]:
        return MANY if self.layout.entries <= 256 else FEW

    def quantize_stack(self, weights: torch.Tensor, curvatures: Sequence[Curvature], tick: Callable[[], None]) -> Parts:
        count, rows, columns = weights.shape
        table = self._table().to(weights.device, torch.float32) * CODEBOOK_STEP
        groups = weights.view(count, rows, columns // block_of(columns), -1)
        factors = stacked_factors(curvatures, self.layout.dimensions, self.damping, [None] * count)
        codes, scales = sweep(weights, factors, table, groups.square().mean(3).sqrt(), self.multipliers, tick)
        return {"codes": codes, "scales": scales}

    def units(self, parts: Parts) -> torch.Tensor:
        return units(parts["codes"], self._table().to(parts["codes"].device))

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return encode(parts["codes"].cpu(), self.stored(parts["scales"]).cpu(), self.layout)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows * (4 * self.layout.words(columns) + 2 * (columns // block_of(columns)))

    def tables(self, widths: Sequence[int]) -> dict[str, torch.Tensor]:
        found = {f"codebooks.{self.tier}": self._table()}
        if self.rotation_seed is not None:
            found |= {f"signs.{width}": signs_of(width, self.rotation_seed) for width in sorted(set(widths))}
        return found

    def entry(self) -> dict[str, Any]:
        table = self._table()
        return {
            "format": FORMAT,
            "dimensions": self.layout.dimensions,
            "entries": self.layout.entries,
            "table": f"codebooks.{self.tier}",
            "codebook": {"kind": UNIVERSAL, "seed": SEED, "sha256": sha256_of_table(table)},
            "rotation": None if self.rotation_seed is None else {"kind": SIGNS, "seed": self.rotation_seed},
        }

    def words(self) -> CardWords:
        layout = self.layout
        bits = layout.code_bits / layout.dimensions
        return CardWords(
            method="vector quantization with one universal codebook, exact block error compensation, rotated inputs",
            weights=f"{layout.dimensions} weights share one of {layout.entries} entries: {bits:g} bits each, and an "
            "fp16 scale per 128 inputs",
            activations="not quantized",
            format=f"quantgate `{FORMAT}` ({TABLES_FILE} holds the codebook and the rotation's signs)",
            tags=("quantgate-vq",),
            settings={"damping": f"{self.damping:g}"},
        )

    def _table(self) -> torch.Tensor:
        return universal_codebook(self.layout.dimensions, self.layout.entries)


def for_model(
    tier: str, dimensions: int, entries: int, features: Mapping[str, int], group_size: int | None, damping: float
) -> VectorQuantization:
    """The scheme for one model; arguments as those of `int_groups.for_model`.

    Raises:
        QuantizeError: a group_size is asked for, or naming a Linear whose inputs no rotation fits.
    """
    layout = VQLayout(dimensions, entries)
    require_storable(tier, layout.words, features, group_size)
    return VectorQuantization(tier, layout, damping)
