"""What the parts of a product of 9 to 64 tokens cost: the numbers in `vq_gemm.COSTS`, fitted to measured divisions.

    PYTHONPATH=.:kernels python -m benchmarks.gemm_costs [benchmarks/results/kernels_h200_divide.json]

The file is what `python -m benchmarks.kernels --only divide` writes. Least squares of relative errors, no cost below
zero. Printed beside the costs: how much longer than the fastest division the one takes that they choose.
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

MEASURED = Path(__file__).parent / "results" / "kernels_h200_divide.json"
PROCESSORS = 132


def main(arguments: Sequence[str]) -> int:
    """The command; see the docstring of the module."""
    rows = measured(Path(arguments[0]) if arguments else MEASURED)
    costs = fitted(rows)
    worse = regrets(rows, costs)
    print(", ".join(f"{cost:.3g}" for cost in costs))
    print(f"{len(rows)} divisions; the chosen one takes {fmean(worse):.3f} times the fastest, at most {max(worse):.3f}")
    return 0


def measured(file: Path) -> list[dict[str, Any]]:
    """Rows with a shape, tokens, a division and microseconds."""
    return [row for row in json.loads(file.read_text("utf-8"))["rows"]["divide"] if "product_us" in row]


def fitted(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Microseconds of each part."""
    parts = np.array([_parts(row) for row in rows], dtype=float)
    microseconds = np.array([row["product_us"] for row in rows])
    costs, _ = nnls(parts / microseconds[:, None], np.ones(len(rows)))
    return [float(cost) for cost in costs]


def regrets(rows: Sequence[dict[str, Any]], costs: Sequence[float]) -> list[float]:
    """For each shape and number of tokens: time of the division that the costs choose over that of the fastest."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((*row["shape"], row["tokens"]), []).append(row)
    found = []
    for group in groups.values():
        chosen = min(group, key=lambda row: sum(map(mul, costs, _parts(row))))
        found.append(chosen["product_us"] / min(row["product_us"] for row in group))
    return found


def _parts(row: dict[str, Any]) -> tuple[float, ...]:
    rows, inputs = row["shape"]
    return parts_of(Division(**row["division"]), PROCESSORS, rows, inputs, n_tiles_of(row["tokens"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
