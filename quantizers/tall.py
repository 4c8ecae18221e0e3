"""Weights with one Hessian, quantized as one tall weight: gate and up of 256 experts have 1,048,576 rows.

They go in chunks of rows, one after the other, that share the factors of the Hessian. Rows do not know of each other:
chunks change no result but for rounding, and what fits in one chunk goes as it always did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from quantizers.curvature import Curvature
from quantizers.schemes.base import Parts, Scheme, split_rows

CHUNK_BYTES = 2 << 30
"""Of a chunk in float32: 87,381 rows of 6,144. A sweep holds it three times, and what a group of it is tried with."""


def quantize_tall(
    scheme: Scheme, weights: Sequence[torch.Tensor], curvature: Curvature, tick: Callable[[], None]
) -> list[Parts]:
    """The parts of each of `weights` [O_i, I] with one Hessian; the scheme is `tall`.

    Weights elsewhere than the Hessian are moved to its device chunk by chunk, and their parts stay there.

    Raises:
        HessianError: the Hessian cannot be used.
    """
    found: list[list[Parts]] = [[] for _ in weights]
    for chunk in row_chunks([len(weight) for weight in weights], weights[0].shape[1], scheme.rows_multiple):
        pieces = [weights[number][start:stop] for number, start, stop in chunk]
        tall = torch.cat([piece.to(curvature.hessian.device) for piece in pieces])
        parts = split_rows(scheme.quantize(tall, curvature, tick), [len(piece) for piece in pieces])
        for (number, _, _), part in zip(chunk, parts, strict=True):
            found[number].append(part)
    return [
        parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        for parts in found
    ]


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
