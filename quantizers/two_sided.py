"""Error compensation over the rows of a weight too: rows still to come make up for what those before them lost.

With factors H of the inputs and F = R R^T of the outputs (R upper triangular, U = R^-1) an error E costs
tr(F E H E^T). Rows are taken in chunks: a chunk's weight is quantized by the scheme's own sweep, its error E_a then
moves the rows after it by -(R_aa U_a,later)^T E_a. One chunk is the one-sided method; more are better and slower. The
factors: K-FAC, arXiv 1503.05671; both sides in quantization: YAQA, arXiv 2505.22988.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from quantizers.curvature import Curvature, upper_factors
from quantizers.schemes.base import Parts, Scheme, split_rows

DAMPING = 0.1
"""Of F, in units of the mean of its diagonal."""
ROWS = 16
"""Chunks are multiples of so many rows: tiles of the trellis have as many."""


def quantize_two_sided(
    scheme: Scheme,
    weights: Sequence[torch.Tensor],
    curvature: Curvature,
    hessians: Sequence[torch.Tensor],
    tick: Callable[[], None],
) -> list[Parts]:
    """Quantize `weights` [O_i, I] that share their inputs, each with the Hessian [O_i, O_i] of its outputs.

    Raises:
        HessianError: a Hessian cannot be used.
    """
    factors = [upper_factors(hessian, DAMPING) for hessian in hessians]
    work = [weight.to(torch.float32).clone() for weight in weights]
    bounds = [chunk_bounds(len(weight), scheme.row_chunks) for weight in weights]
    found: list[list[Parts]] = [[] for _ in weights]
    for chunk in range(scheme.row_chunks):
        spans = [(edges[chunk], edges[chunk + 1]) for edges in bounds]
        rows = [stop - start for start, stop in spans]
        if not any(rows):
            continue
        tall = torch.cat([weight[start:stop] for weight, (start, stop) in zip(work, spans, strict=True)])
        parts = scheme.quantize(tall, curvature, tick)
        errors = torch.split(tall - scheme.scaled(scheme.units(parts), scheme.stored(parts["scales"])), rows)
        for weight, (start, stop), error, (upper, inverse) in zip(work, spans, errors, factors, strict=True):
            spread = (upper[start:stop, start:stop] @ inverse[start:stop, stop:]).to(torch.float32)
            weight[stop:].addmm_(spread.t(), error, alpha=-1)
        for pieces, piece in zip(found, split_rows(parts, rows), strict=True):
            pieces.append(piece)
    return [{name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]} for pieces in found]


def chunk_bounds(rows: int, chunks: int) -> list[int]:
    """Where each of `chunks` nearly equal chunks begins, and the end: multiples of ROWS, some of them empty."""
    return [min(rows, -(-rows * n // (chunks * ROWS)) * ROWS) for n in range(chunks)] + [rows]
