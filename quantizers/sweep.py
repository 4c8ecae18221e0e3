"""The exact block form of GPTQ: columns in blocks of d, an error of a block is spread over all columns after it.

With H + damping = R R^T (R upper triangular) and U = R^-1, the error e = (w - q) of a block B costs |e R_BB|^2 once the
columns after it have moved by -e R_BB U_B,rest. Published vector quantizers use the diagonal of R_BB alone (GPTVQ,
arXiv 2402.15319); the whole block is as cheap. Method of the sweep: GPTQ, arXiv 2210.17323.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from quantizers.curvature import Factors

SMALLEST_SCALE = 1e-6
"""Of a group in fp16, whose smallest normal number is 6e-5 and whose smallest of all is 6e-8."""
TABLE_ELEMENTS = 1 << 20
"""Scores of entries that are held at a time: about what a cache holds."""

Group = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def sweep(
    weight: torch.Tensor,
    factors: Factors,
    table: torch.Tensor,
    scales: torch.Tensor,
    multipliers: tuple[float, ...],
    tick: Callable[[], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries and scales for a weight [O, I] (rotated already) that keep the output error small.

    Args:
        table: entries float32 [K, d].
        scales: a first scale [O, I/g] of each row and group of g columns.
        multipliers: what each scale is tried with; a row keeps the one with the least error in its group.
        tick: called after each group.

    Returns: codes int32 [O, I/d] and the scales chosen, float32 of fp16 values [O, I/g].
    """
    rows, columns = weight.shape
    dimensions, groups = table.shape[1], scales.shape[1]
    width = columns // groups
    work, tries = weight.to(torch.float32).clone(), len(multipliers)
    codes = torch.empty(rows, columns // dimensions, dtype=torch.int32, device=weight.device)
    chosen = torch.empty_like(scales)
    shapes = [(rows * tries, width), (width // dimensions, dimensions, dimensions), (width, width), table.shape]
    run: Group = _group
    if weight.is_cuda:
        run = _captured(tuple(map(torch.Size, [*shapes, (rows * tries,)])), weight.device)
    factor = torch.tensor(multipliers, device=weight.device).repeat_interleave(rows)
    for group in range(groups):
        start, stop = group * width, (group + 1) * width
        scale = (scales[:, group].repeat(tries) * factor).clamp_min(SMALLEST_SCALE).to(torch.float16).to(torch.float32)
        part = work[:, start:stop].repeat(tries, 1)
        metric = factors.metric[start // dimensions : stop // dimensions]
        spread = factors.spread[start:stop, start:stop]
        found, errors, cost = run(part, metric, spread, table, scale)
        best = cost.view(tries, rows).argmin(0) * rows + torch.arange(rows, device=weight.device)
        codes[:, start // dimensions : stop // dimensions] = found[best]
        chosen[:, group] = scale[best]
        work[:, stop:].addmm_(errors[best], factors.spread[start:stop, stop:], alpha=-1)
        tick()
    return codes, chosen


def _group(
    part: torch.Tensor, metric: torch.Tensor, spread: torch.Tensor, table: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [N, g/d], errors [N, g] and costs [N] of one group `part` [N, g], which is used up.

    `metric` [g/d, d, d] and `spread` [g, g] are its share of the factors, `scale` [N] what its rows are divided by.
    """
    dimensions, width = table.shape[1], part.shape[1]
    entries = table @ metric
    bias, entries = -0.5 * entries.square().sum(2), entries.transpose(1, 2).contiguous()
    inverse, scale = 1 / scale[:, None], scale[:, None]
    errors = torch.empty_like(part)
    codes = torch.empty(len(part), width // dimensions, dtype=torch.int64, device=part.device)
    for block in range(width // dimensions):
        start, rest = block * dimensions, (block + 1) * dimensions
        target = part[:, start:rest]
        code = _best(target @ metric[block] * inverse, entries[block], bias[block])
        error = torch.addcmul(target, table[code], scale, value=-1)
        codes[:, block] = code
        errors[:, start:rest] = error
        part[:, rest:].addmm_(error, spread[start:rest, rest:], alpha=-1)
    turned = torch.einsum("nbd,bde->nbe", errors.view(len(part), -1, dimensions), metric)
    return codes.to(torch.int32), errors, turned.square().sum((1, 2))


def nearest(points: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The index [N] of the entry of `table` [K, d] that is nearest to each of `points` [N, d]."""
    return _best(points, table.t().contiguous(), -0.5 * table.square().sum(1))


def _best(points: torch.Tensor, entries: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The column [N] of `entries` [d, K] with the highest score for each of `points` [N, d]."""
    step = len(points) if points.is_cuda else max(1, TABLE_ELEMENTS // len(bias))
    return torch.cat([torch.addmm(bias, part, entries).argmax(1) for part in torch.split(points, step)])


@functools.lru_cache(maxsize=8)
def _captured(shapes: tuple[torch.Size, ...], device: torch.device) -> Group:
    """`_group` for tensors of these shapes as one CUDA graph: its hundreds of small kernels start ten times faster."""
    inputs = [torch.ones(shape, device=device) for shape in shapes]
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        _group(*inputs)  # libraries allocate what they need in a first call, outside of the graph
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = _group(*inputs)

    def replay(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for held, tensor in zip(inputs, tensors, strict=True):
            held.copy_(tensor)
        graph.replay()
        return outputs

    return replay
