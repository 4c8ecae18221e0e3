"""The universal codebooks: made once for standard normal weights, from a seed, for every layer of every model.

Weights that were rotated and divided by their RMS are nearly standard normal whatever the model is, so one table a tier
serves all of it and fits a kernel's shared memory. By Lloyd's algorithm (k-means), with fresh samples in each
round so that no entry is fitted to noise; int8 in the end.
"""

from __future__ import annotations

import functools

import torch
from quantgate_kernels.formats.vq import CODEBOOK_STEP
from quantgate_kernels.tables import SEED
from scipy.spatial import cKDTree

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
