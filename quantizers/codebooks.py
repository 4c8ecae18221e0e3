"""The universal tables: made once for standard normal weights, from a seed, for every layer of every model.

Weights that were rotated and divided by their RMS are nearly standard normal whatever the model is, so one table a tier
serves all of it and fits a kernel's shared memory. Codebooks: Lloyd's algorithm (k-means), with fresh samples in each
round so that no entry is fitted to noise; int8 in the end.
"""

from __future__ import annotations

import functools
import hashlib

import torch
from quantgate_kernels.formats.trellis import TABLE_STEP
from quantgate_kernels.formats.vq import CODEBOOK_STEP
from scipy.spatial import cKDTree

SEED = 20260101
SAMPLES_PER_ENTRY = 48
FEWEST_SAMPLES = 1 << 16
"""Of each round."""
RELAXATION = 1.7
"""How far an entry goes towards the mean of its samples, but in the last two rounds: 12 rounds do what took 24."""


@functools.cache
def universal_codebook(dimensions: int, entries: int, seed: int = SEED) -> torch.Tensor:
    """The codebook int8 [entries, dimensions], in units of CODEBOOK_STEP; sorted by norm, the same in each call."""
    generator = torch.Generator().manual_seed(seed + 7919 * dimensions + entries)
    count, rounds = max(SAMPLES_PER_ENTRY * entries, FEWEST_SAMPLES), 12 * max(1, 1024 // entries)
    table = torch.randn(entries, dimensions, generator=generator)
    for step in range(rounds):
        samples = torch.randn(count, dimensions, generator=generator)
        nearest = torch.from_numpy(cKDTree(table.numpy()).query(samples.numpy(), workers=-1)[1])
        hits = torch.bincount(nearest, minlength=entries).to(torch.float32)
        sums = torch.zeros(entries, dimensions).index_add_(0, nearest, samples)
        # An entry that nothing chose begins again at a sample.
        means = torch.where(hits[:, None] > 0, sums / hits.clamp(min=1)[:, None], samples[:entries])
        table += (means - table) * (RELAXATION if step < rounds - 2 else 1.0)
    rounded = (table / CODEBOOK_STEP).round().clamp(-127, 127).to(torch.int8)
    return rounded[rounded.to(torch.int32).square().sum(1).argsort(stable=True)].contiguous()


@functools.cache
def normal_table(state_bits: int, seed: int = SEED) -> torch.Tensor:
    """The table int8 [2^L] of a trellis in units of TABLE_STEP: quantiles of the standard normal, shuffled.

    Neighbours in a trellis differ in few bits, so their values must have nothing to do with each other.
    """
    count = 1 << state_bits
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles: torch.Tensor = torch.special.ndtri(levels)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + state_bits))
    return (quantiles[order] / TABLE_STEP).round().clamp(-127, 127).to(torch.int8)


def sha256_of_table(table: torch.Tensor) -> str:
    """The sha256 of a table's bytes, row by row."""
    return hashlib.sha256(table.contiguous().numpy().tobytes()).hexdigest()
