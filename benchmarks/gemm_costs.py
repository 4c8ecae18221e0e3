"""What the parts of a product of 9 to 64 tokens cost: the numbers in `vq_gemm.COSTS`, fitted to measured divisions.

    PYTHONPATH=.:kernels python -m benchmarks.gemm_costs [FILE]

FILE is what `python -m benchmarks.kernels --only divide` writes; without one those that were measured here. Least
squares of relative errors, no cost below zero, of the divisions that take less than twice the time of the fastest:
nobody chooses others. Printed beside the costs: how much longer than the fastest division the one takes that they
choose.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from operator import mul
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from quantgate_kernels.cuda.vq_gemm import Division, n_tiles_of, parts_of
from scipy.optimize import nnls

_RESULTS = Path(__file__).parent / "results"
MEASURED = {1: _RESULTS / "kernels_h200_divide.json", 4: _RESULTS / "kernels_h200_divide_groups.json"}
"""By how many warps multiply together."""


def main(arguments: Sequence[str]) -> int:
    """The command; see the docstring of the module."""
    for file in map(Path, arguments or MEASURED.values()):
        rows = measured(file)
        costs = fitted(rows)
        worse = regrets(rows, costs)
        print(f"{file.name}: {', '.join(f'{cost:.3g}' for cost in costs)}")
        print(f"{len(rows)} divisions; the chosen takes {fmean(worse):.3f} times the fastest, at most {max(worse):.3f}")
    return 0


def measured(file: Path) -> list[dict[str, Any]]:
    """Rows with a shape, tokens, a division, microseconds and the GPU's `rooms`."""
    found = json.loads(file.read_text("utf-8"))
    rooms = tuple(found["clusters_at_once"])
    return [row | {"rooms": rooms} for row in found["rows"]["divide"] if "product_us" in row]


def fitted(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Microseconds of each part."""
    near = [row for group in _groups(rows) for row in group if row["product_us"] < 2 * _least(group)]
    parts = np.array([_parts(row) for row in near], dtype=float)
    microseconds = np.array([row["product_us"] for row in near])
    costs, _ = nnls(parts / microseconds[:, None], np.ones(len(near)))
    return [float(cost) for cost in costs]


def regrets(rows: Sequence[dict[str, Any]], costs: Sequence[float]) -> list[float]:
    """For each shape and number of tokens: time of the division that the costs choose over that of the fastest."""
    groups = _groups(rows)
    chosen = [min(group, key=lambda row: sum(map(mul, costs, _parts(row)))) for group in groups]
    return [own["product_us"] / _least(group) for own, group in zip(chosen, groups, strict=True)]


def _groups(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((*row["shape"], row["tokens"]), []).append(row)
    return list(groups.values())


def _least(group: Sequence[dict[str, Any]]) -> float:
    return float(min(row["product_us"] for row in group))


def _parts(row: dict[str, Any]) -> tuple[float, ...]:
    rows, inputs = row["shape"]
    return parts_of(Division(**row["division"]), row["rooms"], rows, inputs, n_tiles_of(row["tokens"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
