"""The universal codebooks: entries fitted once to standard normal vectors, from a seed, for every layer of every model.

Weights that were rotated and divided by their RMS are nearly standard normal whatever the model is, so one table a tier
serves all of it and fits a kernel's shared memory. Lloyd's algorithm (k-means), with fresh samples in each round so
that no entry is fitted to noise; int8 in the end.
"""

from __future__ import annotations

import functools
import hashlib

import torch
from quantgate_kernels.formats.vq import CODEBOOK_STEP

SEED = 20260101
ROUNDS = 12
SAMPLES_PER_ENTRY = 48
CHUNK = 1 << 20
"""Distances held at a time."""


@functools.cache
def universal_codebook(dimensions: int, entries: int, seed: int = SEED) -> torch.Tensor:
    """The codebook int8 [entries, dimensions], in units of CODEBOOK_STEP; sorted by norm, the same in each call."""
    generator = torch.Generator().manual_seed(seed + 7919 * dimensions + entries)
    count = SAMPLES_PER_ENTRY * entries
    table = torch.randn(entries, dimensions, generator=generator)
    for _ in range(ROUNDS):
        samples = torch.randn(count, dimensions, generator=generator)
        nearest = torch.cat([_nearest(part, table) for part in torch.split(samples, max(1, CHUNK // entries))])
        hits = torch.bincount(nearest, minlength=entries).to(torch.float32)
        sums = torch.zeros(entries, dimensions).index_add_(0, nearest, samples)
        # An entry that nothing chose begins again at a sample.
        table = torch.where(hits[:, None] > 0, sums / hits.clamp(min=1)[:, None], samples[:entries])
    rounded = (table / CODEBOOK_STEP).round().clamp(-127, 127).to(torch.int8)
    return rounded[rounded.to(torch.int32).square().sum(1).argsort(stable=True)].contiguous()


def sha256_of_table(table: torch.Tensor) -> str:
    """The sha256 of a table's bytes, row by row."""
    return hashlib.sha256(table.contiguous().numpy().tobytes()).hexdigest()


def _nearest(samples: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.addmm(-0.5 * table.square().sum(1), samples, table.t()).argmax(1)
