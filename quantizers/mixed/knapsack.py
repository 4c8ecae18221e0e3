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
MANY = 2000
"""Groups from which on prices decide: with so many, one group more or less is nothing."""


def choose(values: Sequence[Mapping[str, float]], sizes: Sequence[Mapping[str, int]], budget: int) -> list[str]:
    """The multiple-choice knapsack: the option of each group with the least sum of `values` within `budget`.

    Exact up to rounding (HiGHS' branch and bound); after a minute the best choice that was found. Of many groups see
    `_choose_by_price`.

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
    if len(values) >= MANY:
        return _choose_by_price(values, sizes, budget)
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


def _choose_by_price(
    values: Sequence[Mapping[str, float]], sizes: Sequence[Mapping[str, int]], budget: int
) -> list[str]:
    """`choose` by a price for size: each group takes what is best for it at the lowest price at which all fit.

    (Lagrangian relaxation: Everett, "Generalized Lagrange multiplier method", 1963.) What room is left goes to the
    moves that bring most for their size, so that what is lost to the least sum is less than one group's step.
    """
    names = [list(own) for own in sizes]
    width = max(map(len, names))
    value, size = np.full((len(names), width), np.inf), np.zeros((len(names), width))
    for row, own in enumerate(names):
        value[row, : len(own)] = [values[row][name] for name in own]
        size[row, : len(own)] = [sizes[row][name] for name in own]
    rows = np.arange(len(names))

    def at(price: float) -> np.ndarray:
        return np.asarray((value + price * size).argmin(1))

    smallest = np.where(np.isfinite(value), size, np.inf).argmin(1)
    low, high = 0.0, 1.0
    while size[rows, at(high)].sum() > budget and high < 1e300:
        high *= 16.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if size[rows, at(middle)].sum() > budget else (low, middle)
    chosen = at(high)
    if size[rows, chosen].sum() > budget:
        chosen = smallest
    while True:
        room = budget - size[rows, chosen].sum()
        more = size - size[rows, chosen][:, None]
        less = value[rows, chosen][:, None] - value
        gain = np.where((less > 0) & (more <= room), less / np.maximum(more, 1e-9), 0.0)
        best = int(gain.argmax())
        if gain.flat[best] <= 0:
            return [names[row][option] for row, option in enumerate(chosen)]
        chosen[best // width] = best % width
