"""Bounds for the ratio of two means over independent units: items, or clusters of items that share a passage.

A loss relative to the reference is such a ratio, E[reference - candidate] / E[reference], and so is the loss of an item
where clusters are drawn and not items, E[losses of a cluster] / E[its items]. "The ratio is at most m" says that the
mean of z = sum - m * weight is at most 0, and z is bounded: Gaffke's bound of `resampling.mean_interval` holds for it.
All m are tried at once: the weighted means of all units and of the worst that is possible, divided.

Source: as of `mean_interval`; the inversion is Fieller's (J. R. Statist. Soc. B 16 (1954) 175-185).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.contract.check import Check
from harness.contract.metrics import Difference
from harness.contract.pairs import Pair
from harness.contract.samples import PairKey
from harness.judging.resampling import weighted_sums
from harness.judging.statistics import Interval

ItemKey = tuple[str, str, str]


class Unit(NamedTuple):
    """What one unit adds to both sums, or the least or most that is possible."""

    sum: float
    weight: float


class Units(NamedTuple):
    """Units that are drawn independently of each other."""

    units: Sequence[Unit]
    worst: Unit
    """No unit has a larger sum - m * weight, for any m in question."""
    best: Unit

    def interval(self, confidence: float) -> Interval:
        """The ratio and its one-sided bounds. Raises ValueError: no units."""
        total, weight = (math.fsum(column) for column in zip(*self.units, strict=True))
        sums, weights = self._sums(self.worst)
        upper = float(np.quantile(_ratio(sums, weights), confidence, method="higher"))
        sums, weights = self._sums(self.best)
        lower = float(np.quantile(_ratio(sums, weights), 1 - confidence, method="lower"))
        return Interval(total / weight if weight else math.nan, lower, upper)

    def p_value(self, margin: float) -> float:
        """p value of "the ratio is at most `margin`"."""
        sums, weights = self._sums(self.best)
        kept = np.count_nonzero(sums <= margin * weights)
        return float((1 + kept) / (1 + sums.size))

    def stretch(self, items: int) -> float:
        """Items that weigh as much as the worst unit that is possible: so many times more are needed."""
        weight = math.fsum(unit.weight for unit in self.units)
        return self.worst.weight * items / weight if weight else math.inf

    def _sums(self, extra: Unit) -> NDArray[np.float64]:
        return weighted_sums(np.asarray(self.units, dtype=np.float64), extra)


def _ratio(sums: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights > 0, sums / weights, np.copysign(np.inf, sums))


def clustered(values: Mapping[ItemKey, Unit], clusters: Mapping[ItemKey, Hashable], worst: Unit, best: Unit) -> Units:
    """Units of clusters out of those of items, whose extremes are `worst` and `best`; without clusters the items.

    The largest cluster that was seen stands for the largest there is.
    """
    if not clusters:
        return Units(list(values.values()), worst, best)
    found: dict[Hashable, list[Unit]] = {}
    for item, unit in values.items():
        found.setdefault(clusters[item], []).append(unit)
    most = max(map(len, found.values()))
    units = [Unit(math.fsum(u.sum for u in of), math.fsum(u.weight for u in of)) for of in found.values()]
    return Units(units, Unit(most * worst.sum, most * worst.weight), Unit(most * best.sum, most * best.weight))


def clusters_of(pairs: Mapping[PairKey, Pair]) -> dict[ItemKey, Hashable]:
    """What each item is drawn with, by the reference's samples, by the candidate's where these do not say; empty where
    no two items share anything."""
    found: dict[ItemKey, Hashable] = {}
    for key, pair in pairs.items():
        shared = pair.candidate.cluster if pair.reference.cluster is None else pair.reference.cluster
        found.setdefault(key[:3], key[:3] if shared is None else (*key[:2], "cluster", shared))
    return found if len(set(found.values())) < len(found) else {}


def shared_clusters(pairs: Mapping[PairKey, Pair]) -> int:
    """How many clusters the items are of; 0 where no two items share anything."""
    return len(set(clusters_of(pairs).values()))


WORST_RELATIVE, BEST_RELATIVE = Unit(1.0, 1.0), Unit(-1.0, 0.0)
"""Right before and wrong now; wrong before and right now."""
WORST_LOSS, BEST_LOSS = Unit(1.0, 1.0), Unit(-1.0, 1.0)
"""Likewise of a loss over items, which all weigh 1."""


def ratio_units(
    check: Check, metric: Difference, pairs: Mapping[PairKey, Pair], losses: Mapping[ItemKey, float]
) -> tuple[Units | None, str]:
    """The units of a relative loss, or of a loss over items of which some share a passage, and the method in words.

    None for a check whose items are independent and whose margin is absolute: there are better bounds for these.
    `losses` are those of each item, means over its repeats.
    """
    relative, clusters = check.margin_kind == "max_relative_loss", clusters_of(pairs)
    if check.stop or not (relative or clusters):
        return None, ""
    values = {item: Unit(loss, 1.0) for item, loss in losses.items()}
    if relative:
        by_item: dict[ItemKey, list[float]] = {}
        for key, pair in pairs.items():
            by_item.setdefault(key[:3], []).append(metric.value(pair.reference) or 0.0)
        values = {item: Unit(losses[item], math.fsum(of) / len(of)) for item, of in by_item.items()}
    worst, best = (WORST_RELATIVE, BEST_RELATIVE) if relative else (WORST_LOSS, BEST_LOSS)
    if check.mean == "tasks":
        sizes = Counter(item[:2] for item in values)
        values = {item: Unit(*(part / sizes[item[:2]] for part in unit)) for item, unit in values.items()}
        worst, best = (Unit(*(part / min(sizes.values()) for part in unit)) for unit in (worst, best))
    units = clustered(values, clusters, worst, best)
    over = f"{len(units.units):,} groups of items that share a passage" if clusters else "items"
    return units, f"Gaffke's bound over {over}{', as a ratio of means' if relative else ''} (its level is conjectured)"
