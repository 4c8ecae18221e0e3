"""Chances of PASS and FAIL of a paired rate, as the judge decides: summed over all counts that can be seen.

Exact where at most MOST_COUNTS counts of wins can be seen, as with few items; beyond, the edge of the decision is drawn
between so many of them, and the chances are right to about a point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.judging.paired_rates import paired_p_value, tango_z

EXACT_ITEMS = 2_000
"""Up to so many items this is fast enough; beyond, a normal approximation is as good."""
LEFT_OUT = 1e-5
"""Chance of the counts of c that are left out at either end."""
MOST_COUNTS = 10
"""Values of c at which the last b that decides is searched for."""


@lru_cache(512)
def paired_chance(
    verdict: Literal["PASS", "FAIL"],
    n: int,
    d: float,
    loss: float,
    margin: float,
    confidence: float = 0.95,
    level: float = 0.05,
) -> float:
    """Chance of a PASS at `confidence`, or of a FAIL at `level`, of n items, of which a share d is discordant.

    `loss` is the true mean of reference minus candidate, `d` at least its size.

    Raises:
        ValueError: shares that do not fit.
    """
    p_b, p_c = (d + loss) / 2, (d - loss) / 2
    if p_c < -1e-12 or d > 1 + 1e-12:
        raise ValueError(f"a loss of {loss} does not fit a share of {d} discordant items")
    p_c = max(0.0, p_c)
    c = np.arange(int(stats.binom.ppf(LEFT_OUT, n, p_c)), int(stats.binom.isf(LEFT_OUT, n, p_c)) + 1)
    weights, given = stats.binom.pmf(c, n, p_c), min(1.0, p_b / (1 - p_c))
    if verdict == "PASS":
        alpha = 1 - confidence + 1e-12

        def keeps(b: int, wins: int) -> bool:
            return paired_p_value(wins, b, n, -margin, confidence) <= alpha

        last = _last(keeps, c, n, margin, -float(stats.norm.ppf(confidence)))
        return float(weights @ np.where(last < 0, 0.0, stats.binom.cdf(last, n - c, given)))

    def spares(b: int, wins: int) -> bool:
        return paired_p_value(b, wins, n, margin, confidence) > level + 1e-12

    last = _last(spares, c, n, margin, float(stats.norm.isf(level)))
    return float(weights @ stats.binom.sf(last, n - c, given))


def _last(
    holds: Callable[[int, int], bool], c: NDArray[np.int_], n: int, margin: float, z: float
) -> NDArray[np.float64]:
    """For each c the largest b that `holds`, which all smaller ones do then; -1 where none does.

    Outcomes come in the order of their score statistic, or nearly so: where a few c say at which statistic it ends, the
    others follow. `z` is where to look first.
    """
    tried = np.unique(np.linspace(c[0], c[-1], min(c.size, MOST_COUNTS)).round().astype(int)).tolist()
    found, within, beyond = [], [], []
    for wins in tried:
        scores = tango_z(np.arange(n - wins + 2), wins, n, margin)
        b = min(int(np.searchsorted(scores, z)), n - wins)
        while b >= 0 and not holds(b, wins):
            b -= 1
        while b < n - wins and holds(b + 1, wins):
            b += 1
        found.append(b)
        within.append(scores[b] if b >= 0 else scores[0] - 1)
        beyond.append(scores[b + 1])
    if c.size == len(tried):
        return np.array(found, dtype=np.float64)
    ends = (np.array(within) + np.array(beyond)) / 2
    if max(within) < min(beyond):
        ends = np.full(len(tried), (max(within) + min(beyond)) / 2)
    last = [
        int(np.searchsorted(tango_z(np.arange(n - wins + 1), wins, n, margin), end)) - 1
        for wins, end in zip(c.tolist(), np.interp(c, tried, ends).tolist(), strict=True)
    ]
    return np.array(last, dtype=np.float64)
