"""One option from each of several groups, so that the sum of values is small and the sum of sizes fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag, csr_array

from quantizers.errors import QuantizeError

SECONDS = 60.0
GAP = 1e-5
"""How far, in proportion, the sum may be from the least one."""


def choose(values: Sequence[Mapping[str, float]], sizes: Sequence[Mapping[str, int]], budget: int) -> list[str]:
    """The multiple-choice knapsack: the option of each group with the least sum of `values` within `budget`.

    Exact up to rounding (HiGHS' branch and bound); after a minute the best choice that was found.

    Args:
        values: by option, of each group; may be negative.
        sizes: by option, of each group, whole numbers from 0 up.

    Raises:
        QuantizeError: nothing fits.
    """
    smallest = sum(min(own.values()) for own in sizes)
    if smallest > budget:
        raise QuantizeError(f"nothing fits: the least sum is {smallest}, and {budget} are asked for")
    if len(values) == 0:
        return []
    options = [(index, name) for index, own in enumerate(values) for name in own]
    value = np.array([values[index][name] for index, name in options], dtype=float)
    size = np.array([sizes[index][name] for index, name in options], dtype=float)
    spread = max(float(np.ptp(list(own.values()))) for own in values)
    one_each = csr_array(block_diag([np.ones((1, len(own))) for own in values]))
    room = float(budget)
    while True:
        found = milp(
            value / (spread or 1.0) * len(values),
            integrality=np.ones(len(options)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(size[None] / max(budget, 1), -np.inf, room / max(budget, 1)),
            ],
            options={"time_limit": SECONDS, "mip_rel_gap": GAP},
        )
        if found.x is None:
            return [min(own, key=lambda name: own[name]) for own in sizes]  # what is within rounding of the least sum
        chosen = [options[place] for place in np.flatnonzero(found.x > 0.5)]
        over = sum(sizes[index][name] for index, name in chosen) - budget
        if over <= 0:
            return [name for _, name in chosen]
        room -= over  # the solver's own tolerance, in whole numbers
