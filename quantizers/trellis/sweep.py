"""GPTQ over tiles: a column of tiles is searched at once, and its exact error is spread over all columns after it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from quantgate_kernels.formats.trellis import TILE, TrellisLayout, tiled, units, values

from quantizers.curvature import Factors
from quantizers.sweep import subtract_product
from quantizers.trellis.viterbi import search


def sweep(
    weights: torch.Tensor,
    factors: Factors,
    table: torch.Tensor,
    layout: TrellisLayout,
    scales: torch.Tensor,
    tick: Callable[[], None],
) -> torch.Tensor:
    """The symbols uint8 [E, O / 16, I / 16, 256] of weights [E, O, I] (rotated already) that keep the output error of
    each small.

    Args:
        factors: in blocks of 16 columns, of a stack of E Hessians.
        table: int8 [2^L].
        scales: float32 [E, O, I / g] of each row and group of g columns, as they will be stored.
        tick: called after each column of tiles.
    """
    count, rows, columns = weights.shape
    width, high = columns // scales.shape[2], rows // TILE
    work = weights.to(torch.float32).clone()
    entries, feedback = values(table), inner_feedback(factors)
    symbols = torch.empty(count, high, columns // TILE, TILE * TILE, dtype=torch.uint8, device=weights.device)
    for block in range(columns // TILE):
        start, stop = block * TILE, (block + 1) * TILE
        scale = scales[:, :, start // width, None]
        target = work[:, :, start:stop]
        tiles = tiled((target / scale).view(count * rows, TILE))[:, 0]
        found = search(tiles, feedback[:, block], entries, layout.bits)
        symbols[:, :, block] = found.view(count, high, -1)
        error = target - units(found[:, None], table, layout).view(count, rows, TILE) * scale
        subtract_product(work[:, :, stop:], error, factors.spread[:, start:stop, stop:])
        tick()
    return symbols


def inner_feedback(factors: Factors) -> torch.Tensor:
    """What an error of each column alone takes from the later ones of its block: R_cc U_cc' [..., I / 16, 16, 16]."""
    metric = factors.metric.to(torch.float64)
    diagonal = torch.diagonal(metric, dim1=-2, dim2=-1)
    inner: torch.Tensor = torch.linalg.inv(metric)
    return (diagonal[..., None] * inner).to(torch.float32)
