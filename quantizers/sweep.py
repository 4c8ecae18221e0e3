"""The exact block form of GPTQ: columns in blocks of d, an error of a block is spread over all columns after it.

With H + damping = R R^T (R upper triangular) and U = R^-1, the error e = (w - q) of a block B costs |e R_BB|^2 once the
columns after it have moved by -e R_BB U_B,rest. Published vector quantizers use the diagonal of R_BB alone (GPTVQ,
arXiv 2402.15319); the whole block is as cheap. Method of the sweep: GPTQ, arXiv 2210.17323.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from quantizers.curvature import Factors

SMALLEST_SCALE = 1e-6
"""Of a group in fp16, whose smallest normal number is 6e-5 and whose smallest of all is 6e-8."""
TABLE_ELEMENTS = 1 << 20
"""Scores of entries that are held at a time: about what a cache holds."""
STRIP, ROWS = 16, 2048
"""Columns of integers after which the rest of their group is corrected at once, and rows that are swept together: what
stays in a cache."""


@dataclass(frozen=True)
class Integers:
    """A table of all integers from `low` to `high`, d = 1: the nearest one is found by rounding."""

    low: int
    high: int


Group = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def sweep(
    weight: torch.Tensor,
    factors: Factors,
    table: torch.Tensor | Integers,
    scales: torch.Tensor,
    multipliers: tuple[float, ...],
    tick: Callable[[], None],
    scale_dtype: torch.dtype = torch.float16,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries and scales for a weight [O, I] (rotated already) that keep the output error small.

    Args:
        table: entries float32 [K, d]; or integers, which are their own codes.
        scales: a first scale [O, I/g] of each row and group of g columns.
        multipliers: what each scale is tried with; a row keeps the one with the least error in its group.
        tick: called after each group.
        scale_dtype: in which scales are stored: those that are tried are rounded to it.

    Returns: codes int32 [O, I/d] and the scales chosen, float32 of `scale_dtype` values [O, I/g].
    """
    rows, columns = weight.shape
    dimensions, groups = 1 if isinstance(table, Integers) else table.shape[1], scales.shape[1]
    width = columns // groups
    work, tries = weight.to(torch.float32).clone(), len(multipliers)
    codes = torch.empty(rows, columns // dimensions, dtype=torch.int32, device=weight.device)
    chosen = torch.empty_like(scales)
    entries = [] if isinstance(table, Integers) else [table]
    integers = table if isinstance(table, Integers) else None
    run: Group = _group if integers is None else partial(_integers, integers)
    if weight.is_cuda:
        shapes = [(rows * tries, width), (width // dimensions, dimensions, dimensions), (width, width), (rows * tries,)]
        run = _captured(integers, tuple(map(torch.Size, [*shapes, *(each.shape for each in entries)])), weight.device)
    factor = torch.tensor(multipliers, device=weight.device).repeat_interleave(rows)
    with _one_thread(integers is not None and not weight.is_cuda):
        for group in range(groups):
            start, stop = group * width, (group + 1) * width
            scale = (
                (scales[:, group].repeat(tries) * factor).clamp_min(SMALLEST_SCALE).to(scale_dtype).to(torch.float32)
            )
            part = work[:, start:stop].repeat(tries, 1)
            metric = factors.metric[start // dimensions : stop // dimensions]
            found, errors, cost = run(part, metric, factors.spread[start:stop, start:stop], scale, *entries)
            best = cost.view(tries, rows).argmin(0) * rows + torch.arange(rows, device=weight.device)
            codes[:, start // dimensions : stop // dimensions] = found[best]
            chosen[:, group] = scale[best]
            work[:, stop:].addmm_(errors[best], factors.spread[start:stop, stop:], alpha=-1)
            tick()
    return codes, chosen


def _group(
    part: torch.Tensor, metric: torch.Tensor, spread: torch.Tensor, scale: torch.Tensor, table: torch.Tensor
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


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """Integers are swept in very many tiny operations: waking a second thread for each of them takes ten times the work
    itself on a machine that is busy with something else, and saves little on one that is not."""
    threads = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(threads)


def _integers(
    table: Integers, part: torch.Tensor, metric: torch.Tensor, spread: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`_group` for integers, column by column; columns lie in rows here, so that each is one run of memory."""
    count, width = part.shape
    weights = metric.flatten().square()
    codes = torch.empty(width, count, dtype=torch.int32, device=part.device)
    errors = torch.empty(width, count, device=part.device)
    cost = torch.empty(count, device=part.device)
    step = count if part.is_cuda else ROWS
    for first in range(0, count, step):
        rows = slice(first, first + step)
        targets, divisor = part[rows].t().contiguous(), scale[rows]
        missed, code = torch.empty_like(targets), torch.empty_like(targets)
        for left in range(0, width, STRIP):
            right = min(left + STRIP, width)
            for place in range(left, right):
                torch.div(targets[place], divisor, out=code[place]).round_().clamp_(table.low, table.high)
                torch.addcmul(targets[place], code[place], divisor, value=-1, out=missed[place])
                targets[place + 1 : right].addr_(spread[place, place + 1 : right], missed[place], alpha=-1)
            targets[right:].addmm_(spread[left:right, right:].t(), missed[left:right], alpha=-1)
        codes[:, rows], errors[:, rows] = code, missed
        cost[rows] = weights @ missed.square()
    return codes.t(), errors.t(), cost


def nearest(points: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The index [N] of the entry of `table` [K, d] that is nearest to each of `points` [N, d]."""
    return _best(points, table.t().contiguous(), -0.5 * table.square().sum(1))


def _best(points: torch.Tensor, entries: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The column [N] of `entries` [d, K] with the highest score for each of `points` [N, d]."""
    step = len(points) if points.is_cuda else max(1, TABLE_ELEMENTS // len(bias))
    return torch.cat([torch.addmm(bias, part, entries).argmax(1) for part in torch.split(points, step)])


@functools.lru_cache(maxsize=8)
def _captured(integers: Integers | None, shapes: tuple[torch.Size, ...], device: torch.device) -> Group:
    """A group of these shapes as one CUDA graph: its hundreds of small kernels start ten times faster."""
    run: Group = _group if integers is None else partial(_integers, integers)
    inputs = [torch.ones(shape, device=device) for shape in shapes]
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        run(*inputs)  # libraries allocate what they need in a first call, outside of the graph
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(*inputs)

    def replay(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for held, tensor in zip(inputs, tensors, strict=True):
            held.copy_(tensor)
        graph.replay()
        return outputs

    return replay
