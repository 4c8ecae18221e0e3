"""Bit-shift trellis (QTIP, arXiv 2406.11235), with exact block error compensation and feedback inside the tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from quantgate_kernels.formats.rotation import block_of, signs_of
from quantgate_kernels.formats.trellis import FORMAT, TILE, TrellisLayout, encode, units
from quantgate_kernels.tables import NORMAL, SEED, SIGNS, normal_table, sha256_of_table

from quantizers.curvature import Curvature, stacked_factors
from quantizers.schemes.base import ROTATION_SEED, TABLES_FILE, CardWords, Parts, require_storable
from quantizers.schemes.stacked import StackedScheme
from quantizers.sweep import SMALLEST_SCALE
from quantizers.trellis.sweep import sweep


@dataclass(frozen=True)
class Trellis(StackedScheme):
    """k bits a weight, each of 2^L values by the bits of its neighbours in the tile; an fp16 scale for each group.

    Scales are the RMS of their group; inputs are rotated, so that the weights are nearly normal, as the table is.
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
        scales = self.stored(groups.square().mean(3).sqrt().clamp_min(SMALLEST_SCALE))
        factors = stacked_factors(curvatures, TILE, self.damping, [None] * count)
        codes = sweep(weights, factors, self._table(weights), self.layout, scales, tick)
        return {"codes": codes, "scales": scales}

    def units(self, parts: Parts) -> torch.Tensor:
        return units(parts["codes"], self._table(parts["codes"]), self.layout)

    def tensors(self, parts: Parts) -> dict[str, torch.Tensor]:
        return encode(parts["codes"].cpu(), self.stored(parts["scales"]).cpu(), self.layout)

    def nbytes(self, rows: int, columns: int) -> int:
        return rows // TILE * 4 * self.layout.words(columns) + rows * 2 * (columns // block_of(columns))

    def tables(self, widths: Sequence[int]) -> dict[str, torch.Tensor]:
        found = {self._table_name: normal_table(self.layout.state_bits)}
        if self.rotation_seed is not None:
            found |= {f"signs.{width}": signs_of(width, self.rotation_seed) for width in sorted(set(widths))}
        return found

    def entry(self) -> dict[str, Any]:
        table = normal_table(self.layout.state_bits)
        return {
            "format": FORMAT,
            "bits": self.layout.bits,
            "state_bits": self.layout.state_bits,
            "table": self._table_name,
            "codebook": {"kind": NORMAL, "seed": SEED, "sha256": sha256_of_table(table)},
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
        return f"trellis.{self.layout.state_bits}"

    def _table(self, beside: torch.Tensor) -> torch.Tensor:
        return normal_table(self.layout.state_bits).to(beside.device)


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
