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

from quantizers import nearest_cuda
from quantizers.curvature import Factors

SMALLEST_SCALE = 1e-6
"""Of a group in fp16, whose smallest normal number is 6e-5 and whose smallest of all is 6e-8."""
SCORES = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Of entries that are held at a time: about what a cache holds, and 1 GiB."""
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
    weights: torch.Tensor,
    factors: Factors,
    table: torch.Tensor | Integers,
    scales: torch.Tensor,
    multipliers: tuple[float, ...],
    tick: Callable[[], None],
    scale_dtype: torch.dtype = torch.float16,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Entries and scales for weights [E, O, I] (rotated already) that keep the output error of each small.

    Args:
        factors: of a stack of E Hessians.
        table: entries float32 [K, d]; or integers, which are their own codes.
        scales: a first scale [E, O, I/g] of each row and group of g columns.
        multipliers: what each scale is tried with; a row keeps the one with the least error in its group.
        tick: called after each group.
        scale_dtype: in which scales are stored: those that are tried are rounded to it.

    Returns: codes int32 [E, O, I/d] and the scales chosen, float32 of `scale_dtype` values [E, O, I/g].
    """
    count, rows, columns = weights.shape
    dimensions, groups = 1 if isinstance(table, Integers) else table.shape[1], scales.shape[2]
    width, blocks = columns // groups, columns // groups // dimensions
    work, tries = weights.to(torch.float32).clone(), len(multipliers)
    codes = torch.empty(count, rows, columns // dimensions, dtype=torch.int32, device=weights.device)
    chosen = torch.empty_like(scales)
    entries = [] if isinstance(table, Integers) else [table]
    integers = table if isinstance(table, Integers) else None
    run: Group = _group if integers is None else partial(_integers, integers)
    if weights.is_cuda:
        lines = (count, rows * tries)
        shapes = [(*lines, width), (count, blocks, dimensions, dimensions), (count, width, width), lines]
        run = _captured(integers, tuple(map(torch.Size, [*shapes, *(each.shape for each in entries)])), weights.device)
    factor = torch.tensor(multipliers, device=weights.device).repeat_interleave(rows)
    experts = torch.arange(count, device=weights.device)[:, None]
    with _one_thread(integers is not None and not weights.is_cuda):
        for group in range(groups):
            start, stop = group * width, (group + 1) * width
            first = scales[:, :, group].repeat(1, tries) * factor
            scale = first.clamp_min(SMALLEST_SCALE).to(scale_dtype).to(torch.float32)
            part = work[:, :, start:stop].repeat(1, tries, 1)
            metric = factors.metric[:, group * blocks : (group + 1) * blocks]
            found, errors, cost = run(part, metric, factors.spread[:, start:stop, start:stop], scale, *entries)
            best = cost.view(count, tries, rows).argmin(1) * rows + torch.arange(rows, device=weights.device)
            codes[:, :, group * blocks : (group + 1) * blocks] = found[experts, best]
            chosen[:, :, group] = scale[experts, best]
            subtract_product(work[:, :, stop:], errors[experts, best], factors.spread[:, start:stop, stop:])
            tick()
    return codes, chosen


def subtract_product(values: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """values [E, N, M] -= left [E, N, k] @ right [E, k, M]; one is no stack, whose products may be rounded otherwise
    and take longer."""
    if len(values) == 1:
        values[0].addmm_(left[0], right[0], alpha=-1)
    else:
        values.baddbmm_(left, right, alpha=-1)


def _group(
    part: torch.Tensor, metric: torch.Tensor, spread: torch.Tensor, scale: torch.Tensor, table: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [E, N, g/d], errors [E, N, g] and costs [E, N] of one group `part` [E, N, g], which is used up.

    `metric` [E, g/d, d, d] and `spread` [E, g, g] are its share of the factors, `scale` [E, N] what its rows are
    divided by.
    """
    (count, rows, width), dimensions = part.shape, table.shape[1]
    entries = (table @ metric.flatten(0, 1)).view(count, width // dimensions, len(table), dimensions)
    bias = -0.5 * entries.square().sum(3)
    codes = torch.empty(count, rows, width // dimensions, dtype=torch.int32, device=part.device)
    errors = torch.empty_like(part)
    at_once = nearest_cuda.usable(part, table)
    for block in range(width // dimensions):
        start, rest = block * dimensions, (block + 1) * dimensions
        if at_once:
            nearest_cuda.nearest(part, metric, entries, bias, table, scale, codes, errors, block)
        else:
            target, divisor = part[:, :, start:rest], scale[:, :, None]
            points = _product(target, metric[:, block]) * (1 / divisor)
            code = _best_each(points, entries[:, block].transpose(1, 2).contiguous(), bias[:, block])
            codes[:, :, block] = code
            errors[:, :, start:rest] = torch.addcmul(target, table[code], divisor, value=-1)
        subtract_product(part[:, :, rest:], errors[:, :, start:rest], spread[:, start:rest, rest:])
    turned = torch.einsum("xnbd,xbde->xnbe", errors.view(count, rows, -1, dimensions), metric)
    return codes, errors, turned.square().sum((2, 3))


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
    count, rows, width = part.shape
    weights = metric.flatten(1).square()
    codes = torch.empty(count, width, rows, dtype=torch.int32, device=part.device)
    errors = torch.empty(count, width, rows, device=part.device)
    cost = torch.empty(count, rows, device=part.device)
    step = rows if part.is_cuda else max(1, ROWS // count)
    for first in range(0, rows, step):
        some = slice(first, first + step)
        targets, divisor = part[:, some].transpose(1, 2).contiguous(), scale[:, some]
        missed, code = torch.empty_like(targets), torch.empty_like(targets)
        for left in range(0, width, STRIP):
            right = min(left + STRIP, width)
            if count == 1:
                _strip(table, targets[0], code[0], missed[0], spread[0], divisor[0], range(left, right))
            else:
                _strip_each(table, targets, code, missed, spread, divisor, range(left, right))
            subtract_product(targets[:, right:], spread[:, left:right, right:].transpose(1, 2), missed[:, left:right])
        codes[:, :, some], errors[:, :, some] = code, missed
        cost[:, some] = torch.stack([each @ lost for each, lost in zip(weights, missed.square(), strict=True)])
    return codes.transpose(1, 2), errors.transpose(1, 2), cost


def _strip(
    table: Integers,
    targets: torch.Tensor,
    code: torch.Tensor,
    missed: torch.Tensor,
    spread: torch.Tensor,
    divisor: torch.Tensor,
    places: range,
) -> None:
    """Fill in code and missed [g, N] of some columns and correct those after them: `_strip_each` of one, which takes a
    third more for the same."""
    right = places.stop
    for place in places:
        torch.div(targets[place], divisor, out=code[place]).round_().clamp_(table.low, table.high)
        torch.addcmul(targets[place], code[place], divisor, value=-1, out=missed[place])
        targets[place + 1 : right].addr_(spread[place, place + 1 : right], missed[place], alpha=-1)


def _strip_each(
    table: Integers,
    targets: torch.Tensor,
    code: torch.Tensor,
    missed: torch.Tensor,
    spread: torch.Tensor,
    divisor: torch.Tensor,
    places: range,
) -> None:
    """`_strip` of targets [E, g, N] with spread [E, g, g] and divisors [E, N]."""
    right = places.stop
    for place in places:
        torch.div(targets[:, place], divisor, out=code[:, place]).round_().clamp_(table.low, table.high)
        torch.addcmul(targets[:, place], code[:, place], divisor, value=-1, out=missed[:, place])
        subtract_outer(targets[:, place + 1 : right], spread[:, place, place + 1 : right], missed[:, place])


def subtract_outer(values: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """values [E, N, M] -= the outer products of left [E, N] and right [E, M]."""
    values.addcmul_(left[:, :, None], right[:, None], value=-1)


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left [E, N, k] @ right [E, k, M]."""
    return (left[0] @ right[0])[None] if len(left) == 1 else torch.bmm(left, right)


def nearest(points: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The index [N] of the entry of `table` [K, d] that is nearest to each of `points` [N, d]."""
    return _best(points, table.t().contiguous(), -0.5 * table.square().sum(1))


def _best(points: torch.Tensor, entries: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The column [N] of `entries` [d, K] with the highest score for each of `points` [N, d]."""
    step = max(1, SCORES[points.device.type] // len(bias))
    return torch.cat([torch.addmm(bias, part, entries).argmax(1) for part in torch.split(points, step)])


def _best_each(points: torch.Tensor, entries: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`_best` [E, N] of points [E, N, d] among entries [E, d, K] with bias [E, K]."""
    if len(points) == 1:
        return _best(points[0], entries[0], bias[0])[None]
    step = max(1, SCORES[points.device.type] // bias.numel())
    parts = torch.split(points, step, dim=1)
    return torch.cat([torch.baddbmm(bias[:, None], part, entries).argmax(2) for part in parts], 1)


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
