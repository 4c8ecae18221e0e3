"""What a policy can decide: chances of each check and of the run, for an equal candidate and for a damaged one.

Right or wrong: PASS by Tango's statistic at the expected counts, whose spread is that of the loss over n items,
variance (D - loss^2) / n, with D the share of items that only one of the two gets right; FAIL from the p value, by the
test that judges, of the counts that are expected. Of other checks the spread is that of the interval of an earlier run.
The chances of the run take its checks as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from harness.judging.paired_rates import _tango_z, paired_p_value

GOAL = 0.8
"""Chance that a policy should have of either verdict."""
MOST_REPEATS = 64
SEQUENTIAL_COST = 2.1
"""A sequential test needs about so many times the items of a fixed one for the same power (`sequential_power`: 2.0 to
2.3 times for a D of 5 to 20 % and margins of 3 and 5 points; it usually stops long before)."""


@dataclass(frozen=True)
class Planned:
    """One blocking statement of a policy, and what is known of it."""

    name: str
    suite: str
    distance: float
    """From a candidate like its reference to the margin, in the metric's unit."""
    items: int | None
    """None where neither the policy nor an earlier run says how many there are."""
    variance: float | None
    """Of one item; for right or wrong that is D. None where it is not known."""
    noise: float = 0.0
    """The part of it that another answer to the same item would have too: repeats make it smaller."""
    paired: bool = True
    """Right or wrong: a loss of twice the margin then brings a D of at least that."""
    confidence: float = 0.95
    sequential: bool = False


@dataclass(frozen=True)
class Chances:
    """What a statement decides with its items, and what would decide it in 80 of 100 cases."""

    planned: Planned
    passes: float
    """Chance of a PASS for a candidate as good as its reference."""
    fails: float
    """Chance that a candidate at twice the margin fails it, after the correction for all checks of the run."""
    needed: int | None
    """Items with which both reach `GOAL` in the run; None where that is not known or no number helps."""
    repeats: int | None
    """Of the items that there are, where more of them are needed; None where repeats do not help."""


def _worth(planned: Planned, items: float) -> float:
    """Items of a test at the end that decides as much."""
    return items / SEQUENTIAL_COST if planned.sequential else items


def chance_of_pass(planned: Planned, items: float) -> float:
    """For a candidate as good as its reference."""
    if planned.variance is None or planned.distance <= 0:
        return 0.0
    items = _worth(planned, items)
    if planned.variance <= 0:  # no discordant item at all: the bound of zero cases
        least = math.log(1 - planned.confidence) / math.log1p(-min(planned.distance, 1 - 1e-9))
        return float(items >= least)
    margin, z = planned.distance, float(stats.norm.ppf(planned.confidence))
    spread = math.sqrt(planned.variance / items)
    taken = spread  # the error that the test takes the loss to have
    if planned.paired:
        each = items * planned.variance / 2
        taken = margin / abs(float(_tango_z(each, each, items, margin)))
    return float(stats.norm.cdf((margin - z * taken) / spread))


def chance_of_fail(planned: Planned, items: float, level: float) -> float:
    """For a candidate at twice the margin, when it fails at `level`."""
    if planned.variance is None or planned.distance <= 0:
        return 0.0
    n, margin = max(1, int(_worth(planned, items))), planned.distance
    if not planned.paired:
        return float(stats.norm.cdf(margin / math.sqrt(planned.variance / n) - stats.norm.ppf(1 - level)))
    loss = min(1.0, 2 * margin)
    d = max(planned.variance, loss)
    shares = (d + loss) / 2, (d - loss) / 2
    b, c = (round(n * share) for share in shares[:2])
    p_value = paired_p_value(b, c, n, margin)  # of what is seen on average
    if not 0 < p_value < 1:
        return float(p_value == 0)
    # The test's statistic moves with the loss by one for each error that it takes the loss to have.
    taken = (loss - margin) / abs(float(_tango_z(n * shares[0], n * shares[1], n, margin)))
    spread = math.sqrt(max(d - loss * loss, 1e-12) / n)
    room = float(stats.norm.isf(p_value) - stats.norm.isf(level))
    return float(stats.norm.cdf(room * taken / spread))


def chances(statements: Sequence[Planned], alpha: float = 0.05) -> list[Chances]:
    """The chances of every statement; each is to reach what makes the run as a whole reach `GOAL`."""
    level, goal = alpha / max(1, len(statements)), GOAL ** (1 / max(1, len(statements)))
    return [_chances(planned, level, goal) for planned in statements]


def run_chances(found: Sequence[Chances]) -> tuple[float, float]:
    """Of the run: PASS for a candidate that is equal everywhere, FAIL for one at twice every margin.

    Holm rejects something exactly when the smallest p value is below the level over the number of checks.
    """
    return math.prod(c.passes for c in found), 1 - math.prod(1 - c.fails for c in found)


def scaled(statements: Sequence[Planned], factor: float) -> list[Planned]:
    """The statements with `factor` times as many items."""
    return [s if s.items is None else replace(s, items=max(1, int(s.items * factor))) for s in statements]


def _chances(planned: Planned, level: float, goal: float) -> Chances:
    items = planned.items or 0
    passes = chance_of_pass(planned, items) if items else 0.0
    fails = chance_of_fail(planned, items, level) if items else 0.0
    needed = _needed(planned, goal)
    repeats = None
    if needed and items and needed > items and planned.noise > 0:
        tried = (r for r in range(2, MOST_REPEATS) if chance_of_pass(_repeated(planned, r), items) >= goal)
        repeats = next(tried, None)
    return Chances(planned, passes, fails, needed, repeats)


def _repeated(planned: Planned, repeats: int) -> Planned:
    assert planned.variance is not None
    noise = min(planned.noise, planned.variance)
    return replace(planned, variance=planned.variance - noise + noise / repeats)


def _needed(planned: Planned, goal: float) -> int | None:
    if planned.variance is None or planned.distance <= 0:
        return None
    first, last = 0, 1
    while chance_of_pass(planned, last) < goal:
        first, last = last, 2 * last
        if last > 10**9:
            return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if chance_of_pass(planned, middle) >= goal else (middle, last)
    return last
