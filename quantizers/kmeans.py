"""The nearest entries of a codebook of any size, and a codebook made of points by Lloyd's algorithm (k-means)."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree

SCORES = 1 << 20
"""Distances that a CPU holds at a time: about what a cache holds."""
LARGEST_SCANNED = 4096
"""Entries that a CPU scans for each point; with more, a tree of them is faster."""
FEWEST_SAMPLES, SAMPLES_PER_ENTRY = 1 << 17, 16
"""Of k-means, where there are so many points."""


def nearest_few(points: torch.Tensor, table: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and squared distances [N, count] of the entries of `table` [K, i] nearest to `points` [N, i]."""
    if not points.is_cuda and len(table) > LARGEST_SCANNED:
        distance, index = cKDTree(table.numpy()).query(points.numpy(), k=range(1, count + 1), workers=-1)
        return torch.from_numpy(index), torch.from_numpy(distance).to(torch.float32).square()
    norms, entries = table.square().sum(1), table.t().contiguous()
    step = max(1, SCORES * (64 if points.is_cuda else 1) // len(table))
    found = []
    for part in torch.split(points, step):
        scores = torch.addmm(norms, part, entries, alpha=-2)
        best = scores.min(1, keepdim=True) if count == 1 else scores.topk(count, dim=1, largest=False)
        found.append((best[1], best[0] + part.square().sum(1, keepdim=True)))
    return torch.cat([index for index, _ in found]), torch.cat([distance for _, distance in found])


def kmeans(points: torch.Tensor, weights: torch.Tensor, entries: int, rounds: int, seed: int) -> torch.Tensor:
    """A codebook [K, i] for `points` [N, i] of these `weights` [N]; entries beyond the number of points are zero."""
    generator = torch.Generator().manual_seed(seed)
    most = max(FEWEST_SAMPLES, SAMPLES_PER_ENTRY * entries)
    order = torch.randperm(len(points), generator=generator)[:most].to(points.device)
    points, weights = points[order], weights[order].clamp_min(1e-12)
    table = torch.zeros(entries, points.shape[1], device=points.device)
    table[: len(points)] = points[:entries]
    if len(points) <= entries:
        return table
    for _ in range(rounds):
        index, distance = (part[:, 0] for part in nearest_few(points, table, 1))
        order, counts = torch.argsort(index, stable=True), torch.bincount(index, minlength=entries)
        mass = segments(weights[order, None], counts)
        table = torch.where(mass > 0, segments((points * weights[:, None])[order], counts) / mass, table)
        # An entry that nothing chose begins again at one of the points that cost most.
        empty = torch.nonzero(counts == 0)[:, 0]
        if len(empty):
            table[empty] = points[(distance * weights).topk(len(empty))[1]]
    return table


def segments(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Sums [K, i] over runs of `counts` [K] rows of `values` [N, i]."""
    return torch.segment_reduce(values, "sum", lengths=counts, axis=0, unsafe=True)
