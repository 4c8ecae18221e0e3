"""Weights with one Hessian, quantized as one tall weight: gate and up of 256 experts have 1,048,576 rows.

They go in chunks of rows that share the factors of the Hessian. Rows do not know of each other: chunks change no result
but for rounding, and what fits in one chunk goes as it always did.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from quantizers.curvature import Curvature
from quantizers.schemes.base import Parts, Scheme, split_rows
from quantizers.workers.tasks import HERE, Task, Workers

CHUNK_BYTES = 2 << 30
"""Of a chunk in float32: 87,381 rows of 6,144. A sweep holds it three times, and what a group of it is tried with."""

_numbers = itertools.count()


def quantize_tall(
    scheme: Scheme,
    weights: Sequence[torch.Tensor],
    hessian: torch.Tensor,
    tick: Callable[[], None],
    workers: Workers = HERE,
    *,
    turned: bool = False,
) -> Iterator[Parts]:
    """The parts of each of `weights` [O_i, I] with one Hessian, one after the other; none is held longer than it takes.

    A scheme that is not `tall`, or needs no Hessian, has each weight alone. Weights elsewhere than the Hessian are
    moved to its device chunk by chunk.

    Args:
        workers: who encodes the chunks.
        turned: are the weights (not the Hessian) in the basis of the scheme already?

    Raises:
        HessianError: the Hessian cannot be used.
    """
    curvature, number = Curvature(turned_hessian(scheme, hessian)), next(_numbers)
    if scheme.tall and not scheme.data_free:
        chunks = list(row_chunks([len(weight) for weight in weights], weights[0].shape[1], scheme.rows_multiple))
    else:
        chunks = [[(number, 0, len(weight))] for number, weight in enumerate(weights)]

    def tasks() -> Iterator[Task]:
        for chunk in chunks:
            rows = sum(stop - start for _, start, stop in chunk)
            tall = torch.empty(rows, weights[chunk[0][0]].shape[1], device=hessian.device)
            at = 0
            for place, start, stop in chunk:
                whole = weights[place].to(hessian.device, torch.float32)
                tall[at : at + stop - start] = (whole if turned else scheme.turn(whole))[start:stop]
                at += stop - start
            yield Task(scheme, tall[None], [curvature], number)
            del tall, whole

    pieces: list[Parts] = []
    for chunk, parts in zip(chunks, workers.map(tasks(), tick), strict=True):
        only = {name: part[0] for name, part in parts.items()}
        for (place, _, stop), piece in zip(
            chunk, split_rows(only, [stop - start for _, start, stop in chunk]), strict=True
        ):
            pieces.append(piece)
            if stop == len(weights[place]):
                yield pieces[0] if len(pieces) == 1 else {k: torch.cat([it[k] for it in pieces]) for k in piece}
                pieces = []


def turned_hessian(scheme: Scheme, hessian: torch.Tensor) -> torch.Tensor:
    """A Hessian [I, I] in the basis of the scheme."""
    return scheme.turn(scheme.turn(hessian).t())


def row_chunks(rows: Sequence[int], columns: int, multiple: int) -> Iterator[list[tuple[int, int, int]]]:
    """Which rows go together: (number of the weight, first row, last row plus one) of each piece of a chunk.

    Chunks are nearly equal, so that few shapes are ever seen, and end at multiples of `multiple` rows of a weight.
    """
    total = sum(rows)
    limit = max(1, CHUNK_BYTES // (4 * columns * multiple)) * multiple
    count = max(1, -(-total // limit))
    most = -(-total // (count * multiple)) * multiple
    chunk: list[tuple[int, int, int]] = []
    held = 0
    for number, size in enumerate(rows):
        start = 0
        while start < size or not size:
            stop = min(size, start + (most - held) // multiple * multiple)
            chunk.append((number, start, stop))
            held, start = held + stop - start, stop
            if held + multiple > most and (number, stop) != (len(rows) - 1, size):
                yield chunk
                chunk, held = [], 0
            if not size:
                break
    yield chunk
