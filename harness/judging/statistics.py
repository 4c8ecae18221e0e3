"""What all methods share: an interval, a single proportion, what a result is worth, Holm.

One-sided levels everywhere: a bound at 0.95 is exceeded with 5 % chance. What each bound costs and keeps is measured in
docs/validity.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """An estimate with its two one-sided bounds."""

    estimate: float
    lower: float
    upper: float


def proportion_p_value(hits: int, n: int, ceiling: float) -> float:
    """p value of the hypothesis "the proportion is at most `ceiling`" (exact binomial test, through scipy)."""
    return float(stats.binomtest(hits, n, ceiling, alternative="greater").pvalue)


def proportion_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact one-sided bounds of a single proportion hits / n.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404-413, through scipy.
    """
    two_sided = stats.binomtest(hits, n).proportion_ci(2 * confidence - 1, method="exact")
    return Interval(hits / n, float(two_sided.low), float(two_sided.high))


def standard_error(interval: Interval, confidence: float) -> float:
    """The normal standard error that would give the wider half of an interval."""
    half = max(interval.upper - interval.estimate, interval.estimate - interval.lower)
    return half / float(stats.norm.ppf(confidence))


def power_at_equality(error: float, margin: float, confidence: float = 0.95) -> float:
    """Chance of a PASS for a candidate as good as its reference, given the standard error of the estimate.

    Source: normal approximation; Chow, Shao and Wang, Sample Size Calculations in Clinical Research, section 4.2.
    """
    if error <= 0:
        return 1.0 if margin > 0 else 0.0
    return float(stats.norm.cdf(margin / error - stats.norm.ppf(confidence)))


def items_to_decide(n: int, error: float, distance: float, confidence: float = 0.95, power: float = 0.8) -> int | None:
    """Items after which the verdict would be clear with chance `power`, if estimate and spread stay as they are.

    `distance` is that of the estimate to the margin; None when it is zero and no number of items helps.
    Source: as `power_at_equality`; the standard error shrinks as 1 / sqrt(n).
    """
    if distance <= 0 or not math.isfinite(error):
        return None
    z = float(stats.norm.ppf(confidence) + stats.norm.ppf(power))
    return math.ceil(n * (z * error / distance) ** 2)


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected when all are tested together at `alpha`.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
