"""How near to normal weights a trellis of byte sums comes, by its multiplier, against one of normal quantiles.

    PYTHONPATH=.:kernels python -m benchmarks.trellis_values --out FILE [--multipliers 2765345611,3] [--draw 5]

The search is the quantizers' own, of tail-biting tiles of standard normal numbers without any curvature. Of each
multiplier, each number of bits and a few scales: the mean squared error over that of the table of `normal quantiles`
with scale 1, on the same numbers. On a GPU all of it takes seconds; on a core about ten a multiplier and width.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from quantgate_kernels.formats.trellis import MULTIPLIER, SYMBOLS, TrellisLayout, states, values
from quantgate_kernels.tables import normal_table, sums_of

from quantizers.trellis.viterbi import search

SCALES = {2: (0.84, 0.88, 0.92), 3: (0.88, 0.92, 0.96), 4: (0.93, 0.97, 1.01)}


def error(targets: torch.Tensor, table: torch.Tensor, bits: int) -> float:
    """Mean squared error of tiles [N, 256] in values float32 [2^16]."""
    symbols = search(targets, torch.zeros(16, 16, device=targets.device), table, bits)
    return float((targets - table[states(symbols, TrellisLayout(bits, 16)).long()]).square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--multipliers", default=str(MULTIPLIER))
    parser.add_argument("--draw", type=int, default=0, help="odd multipliers to try at random besides")
    parser.add_argument("--tiles", type=int, default=64)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    drawn = random.Random(20260101)
    tried = [int(number) for number in given.multipliers.split(",")]
    tried += [drawn.randrange(1 << 17, 1 << 32) | 1 for _ in range(given.draw)]
    targets = torch.randn(given.tiles, SYMBOLS, generator=torch.Generator().manual_seed(1)).to(device)
    rows: list[dict[str, Any]] = []
    report = {"command": " ".join(sys.argv), "device": device, "torch": torch.__version__, "rows": rows}
    for bits, scales in SCALES.items():
        reference = error(targets, values(normal_table(16)).to(device), bits)
        for number in tried:
            sums = values(sums_of(number)).to(device)
            # Values of another scale: the search bounds its targets in units of the values.
            found = {scale: error(targets / scale, sums, bits) * scale**2 / reference for scale in scales}
            rows.append({"bits": bits, "multiplier": number, "table_error": reference, "error_by_scale": found})
            print(json.dumps(rows[-1]), flush=True)
            given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
