"""Bit-shift trellis (QTIP, arXiv 2406.11235), with exact block error compensation and feedback inside the tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.trellis import FORMAT, MULTIPLIER, TILE, TrellisLayout, encode, units
from quantgate_kernels.tables import (
    BYTE_SUMS,
    NORMAL,
    SEED,
    SIGNS,
    byte_sums,
    normal_table,
    sha256_of_table,
)

from quantizers.curvature import Curvature, stacked_factors
from quantizers.schemes.base import ROTATION_SEED, TABLES_FILE, CardWords, Parts, require_storable
from quantizers.schemes.stacked import StackedScheme
from quantizers.sweep import SMALLEST_SCALE
from quantizers.trellis.sweep import sweep

SUM_SCALES = {1: 0.88, 2: 0.88, 3: 0.92, 4: 0.97}
"""By bits: the scale of values that are byte sums, in RMS of the group, which has the least error on normal weights
(docs/decisions/0041-a-trellis-computes-its-values.md)."""


@dataclass(frozen=True)
class Trellis(StackedScheme):
    """k bits a weight, each of 2^L values by the bits of its neighbours in the tile; an fp16 scale for each group.

    Scales are the RMS of their group, or a part of it; inputs are rotated, so that the weights are nearly normal, as
    the table is. With 2^16 states its values are byte sums, which kernels compute; fewer are looked up.
    """

    tier: str
    layout: TrellisLayout
    damping: float
    rotation_seed: int | None = ROTATION_SEED
    row_chunks = 2  # tiles of fewer rows at a time do not fill a GPU
    outputs_multiple = TILE
    rows_multiple = TILE

    def quantize_stack(self, weights: torch.Tensor, curvatures: Sequence[Curvature], tick: Callable[[], None]) -> Parts:
        count, rows, columns = weights.shape
        groups = weights.view(count, rows, columns // block_of(columns), -1)
        scales = groups.square().mean(3).sqrt()
        if self._byte_sums:
            scales *= SUM_SCALES[self.layout.bits]
        scales = self.stored(scales.clamp_min(SMALLEST_SCALE))
        factors = stacked_factors(curvatures, TILE, self.damping, [None] * count)
        codes = sweep(weights, factors, self._table().to(weights.device), self.layout, scales, tick)
        return {"codes": codes, "scales": scales}

    def units(self, parts: Parts) -> torch.Tensor:
        return units(parts["codes"], self._table().to(parts["codes"].device), self.layout)

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return encode(parts["codes"].cpu(), self.stored(parts["scales"]).cpu(), self.layout)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows // TILE * 4 * self.layout.words(columns) + rows * 2 * (columns // block_of(columns))

    def tables(self, widths: Sequence[int]) -> dict[str, torch.Tensor]:
        found = {self._table_name: self._table()}
        if self.rotation_seed is not None:
            found |= {f"signs.{width}": signs_of(width, self.rotation_seed) for width in sorted(set(widths))}
        return found

    def entry(self) -> dict[str, Any]:
        kind, seed = (BYTE_SUMS, MULTIPLIER) if self._byte_sums else (NORMAL, SEED)
        return {
            "format": FORMAT,
            "bits": self.layout.bits,
            "state_bits": self.layout.state_bits,
            "table": self._table_name,
            "codebook": {"kind": kind, "seed": seed, "sha256": sha256_of_table(self._table())},
            "rotation": None if self.rotation_seed is None else {"kind": SIGNS, "seed": self.rotation_seed},
        }

    def words(self) -> CardWords:
        layout = self.layout
        return CardWords(
            method="tail-biting bit-shift trellis with one table, error compensation inside and across tiles of "
            f"{TILE} x {TILE} weights, rotated inputs",
            weights=f"{layout.bits} bits each, one of {1 << layout.state_bits} values by the bits before it, and an "
            "fp16 scale per 128 inputs",
            activations="not quantized",
            format=f"quantgate `{FORMAT}` ({TABLES_FILE} holds the table and the rotation's signs)",
            tags=("quantgate-trellis",),
            settings={"damping": f"{self.damping:g}"},
        )

    @property
    def _table_name(self) -> str:
        return "trellis.sums" if self._byte_sums else f"trellis.{self.layout.state_bits}"

    @property
    def _byte_sums(self) -> bool:
        return self.layout.state_bits == 16

    def _table(self) -> torch.Tensor:
        return byte_sums() if self._byte_sums else normal_table(self.layout.state_bits)


def for_model(
    tier: str, bits: int, state_bits: int, features: Mapping[str, int], group_size: int | None, damping: float
) -> Trellis:
    """The scheme for one model; the last three arguments as those of `int_groups.for_model`.

    Raises:
        QuantizeError: a group_size is asked for, or naming a Linear whose inputs no rotation fits.
    """
    layout = TrellisLayout(bits, state_bits)
    require_storable(tier, layout.words, features, group_size)
    return Trellis(tier, layout, damping)
