"""What a policy can decide: chances of each check and of the run, for an equal candidate and for a damaged one.

Right or wrong: summed over all counts that can be seen, by the tests that judge (`paired_power.py`); of very many
items PASS is taken as normal, and FAIL from the p value of the counts that are expected. D is the share of items that
only one of the two gets right. Of other checks the spread is that of the interval of an earlier run, taken as normal.
The chances of the run take its checks as independent, and so those of a margin and of a ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from harness.judging.paired_power import EXACT_ITEMS, paired_chance
from harness.judging.paired_rates import paired_p_value, tango_z

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
    on: str
    """`suite`, or `suite/task`."""
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
    ceiling: float | None = None
    rate: float | None = None
    """The reference's own value, which a candidate like it has too; a ceiling is left out where it is not known."""
    most: int | None = None
    """Items that the data have, where that is known and no more can be made."""


@dataclass(frozen=True)
class Chances:
    """What a statement decides with its items, and what would decide it in 80 of 100 cases."""

    planned: Planned
    passes: float
    """Chance of a PASS for a candidate as good as its reference."""
    fails: float
    """Chance that a candidate at twice the margin fails it, after the correction for all checks of the run."""
    needed: int | None
    """About how many items have the chance of a PASS that the run needs of each check to reach `GOAL`; None where that
    is not known or no number helps. For a FAIL of the run one check that stands is enough."""
    repeats: int | None
    """Of the items that there are, where more of them are needed; None where repeats do not help."""

    @property
    def known(self) -> bool:
        """Whether anything is known: how many items there are, and how much they scatter."""
        return bool(self.planned.items) and self.planned.variance is not None


def _worth(planned: Planned, items: float) -> float:
    """Items of a test at the end that decides as much."""
    return items / SEQUENTIAL_COST if planned.sequential else items


def chance_of_pass(planned: Planned, items: float) -> float:
    """For a candidate as good as its reference."""
    if planned.variance is None or planned.distance <= 0:
        return 0.0
    n = max(1, int(_worth(planned, items)))
    if not planned.paired or n > EXACT_ITEMS:
        return _rough_pass(planned, items)
    by_margin = paired_chance("PASS", n, planned.variance, 0.0, planned.distance, planned.confidence)
    return by_margin * _below_ceiling(planned, n)


def _rough_pass(planned: Planned, items: float) -> float:
    """The same as a normal approximation, which takes no time."""
    assert planned.variance is not None
    items = _worth(planned, items)
    below = _below_ceiling(planned, max(1, int(items)))
    if planned.variance <= 0:  # no discordant item at all: the bound of zero cases
        least = math.log(1 - planned.confidence) / math.log1p(-min(planned.distance, 1 - 1e-9))
        return below * (items >= least)
    margin, z = planned.distance, float(stats.norm.ppf(planned.confidence))
    spread = math.sqrt(planned.variance / items)
    taken = spread  # the error that the test takes the loss to have
    if planned.paired:
        each = items * planned.variance / 2
        taken = margin / abs(float(tango_z(each, each, items, margin)))
    return below * float(stats.norm.cdf((margin - z * taken) / spread))


def _below_ceiling(planned: Planned, n: int) -> float:
    """Chance that n answers of a candidate like its reference are shown to lie below the ceiling (exact binomial)."""
    if planned.ceiling is None or planned.rate is None:
        return 1.0
    most = int(stats.binom.ppf(1 - planned.confidence, n, planned.ceiling))
    if stats.binom.cdf(most, n, planned.ceiling) > 1 - planned.confidence:
        most -= 1
    return float(stats.binom.cdf(most, n, planned.rate)) if most >= 0 else 0.0


def _above_ceiling(planned: Planned, n: int, level: float) -> float:
    """Chance that n answers of a candidate at twice the margin are shown to lie above the ceiling at `level`."""
    if planned.ceiling is None or planned.rate is None:
        return 0.0
    most = int(stats.binom.isf(level, n, planned.ceiling))
    return float(stats.binom.sf(most, n, min(1.0, planned.rate + 2 * planned.distance)))


def chance_of_fail(planned: Planned, items: float, level: float) -> float:
    """For a candidate at twice the margin, when it fails at `level`."""
    if planned.variance is None or planned.distance <= 0:
        return 0.0
    n, margin = max(1, int(_worth(planned, items))), planned.distance
    if not planned.paired:
        return float(stats.norm.cdf(margin / math.sqrt(planned.variance / n) - stats.norm.ppf(1 - level)))
    if planned.ceiling is not None:  # two ways to fail: each at half the level
        level /= 2
    loss = min(1.0, 2 * margin)
    d = max(planned.variance, loss)
    if n <= EXACT_ITEMS:
        by_margin = paired_chance("FAIL", n, d, loss, margin, planned.confidence, level)
    else:
        by_margin = _rough_fail(n, d, loss, margin, level)
    return max(by_margin, _above_ceiling(planned, n, level))


def _rough_fail(n: int, d: float, loss: float, margin: float, level: float) -> float:
    shares = (d + loss) / 2, (d - loss) / 2
    b, c = (round(n * share) for share in shares)
    p_value = paired_p_value(b, c, n, margin)  # of what is seen on average
    if not 0 < p_value < 1:
        return float(p_value == 0)
    # The test's statistic moves with the loss by one for each error that it takes the loss to have.
    taken = (loss - margin) / abs(float(tango_z(n * shares[0], n * shares[1], n, margin)))
    spread = math.sqrt(max(d - loss * loss, 1e-12) / n)
    room = float(stats.norm.isf(p_value) - stats.norm.isf(level))
    return float(stats.norm.cdf(room * taken / spread))


def chances(statements: Sequence[Planned], alpha: float = 0.05) -> list[Chances]:
    """The chances of every statement; each is to reach what makes the run as a whole reach `GOAL`."""
    level, goal = alpha / max(1, len(statements)), GOAL ** (1 / max(1, len(statements)))
    return [_chances(planned, level, goal) for planned in statements]


def run_chances(found: Sequence[Chances]) -> tuple[float, float]:
    """Of the run: PASS for a candidate that is equal everywhere, FAIL for one at twice every margin.

    Holm rejects something exactly when the smallest p value is below the level over the number of checks. With checks
    of which nothing is known, the first is the most and the second the least that the run's chance may be.
    """
    return math.prod(c.passes for c in found if c.known), 1 - math.prod(1 - c.fails for c in found)


def scaled(statements: Sequence[Planned], factor: float) -> list[Planned]:
    """The statements with `factor` times as many items, as far as there are so many."""
    return [s if s.items is None else replace(s, items=_scaled(s.items, factor, s.most)) for s in statements]


def _scaled(items: int, factor: float, most: int | None) -> int:
    wanted = max(1, int(items * factor))
    return wanted if most is None else min(wanted, max(items, most))


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
    rough = _least(planned, goal)
    if rough is None or not planned.paired or not planned.variance or _worth(planned, rough) > EXACT_ITEMS:
        return rough
    # The approximation is corrected once by what the tests give.
    found, said = (min(max(of(planned, rough), 1e-9), 1 - 1e-9) for of in (chance_of_pass, _rough_pass))
    return _least(planned, float(stats.norm.cdf(stats.norm.ppf(goal) + stats.norm.ppf(said) - stats.norm.ppf(found))))


def _least(planned: Planned, goal: float) -> int | None:
    first, last = 0, 1
    while _rough_pass(planned, last) < goal:
        first, last = last, 2 * last
        if last > 10**9:
            return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if _rough_pass(planned, middle) >= goal else (middle, last)
    return last
