"""A game at even odds or worse: what becomes of a gambler's fortune, and how likely he wins.

Each of n independent values is a gain, at least -1, which multiplies his fortune by 1 + bet * gain. Where the
hypothesis holds, nothing is gained on average over the values' expectations. Then the expected fortune is 1 at most:
it is the product of the expected factors, whose geometric mean is not above their arithmetic one. So the fortune
reaches 1 / alpha with chance alpha at most (Markov). Values need not be equally distributed: documents of many kinds
are not. The fortune is a product, so that the order of the values says nothing.

Several bets are mixed, all fixed by the number of values and by the hypothesis alone. The range of bets that can ever
pay is known: the best one is sqrt(2 ln(1 / alpha) / n) / sd, and no values in [0, 1] have an sd above 1 / 2. Half of
the stake is on the boldest bet, the best for a mean that is small beside the range, as divergences have.

Source: Waudby-Smith and Ramdas, JRSS-B 86 (2024) 1-27, section 4 (betting on a bounded mean; here with bets fixed
beforehand, the e-value of their equation (23) at the last value). What the bounds keep is measured in
docs/validity.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

STAKES = np.array([0.1] * 5 + [0.5])
"""Share of the gambler's first unit on each bet, from the most careful to the boldest."""
POWER = 0.8
MOST = 10_000_000
"""Number of values beyond which none is said to be needed."""


def bets_for(n: int, mean: float = 0.5) -> NDArray[np.float64]:
    """Shares of the largest bet for n gains (mean - x) / (1 - mean): from the least that can pay to all of it."""
    least = 2 * math.sqrt(2 * math.log(20) / n) * (1 - mean)
    return np.geomspace(min(1.0, least), 1.0, STAKES.size)


def log_factors(gains: NDArray[np.float64], bets: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, bets] logarithms of what each gain multiplies a fortune by."""
    with np.errstate(divide="ignore"):  # the boldest bet may lose everything
        # Rounding may take a gain below -1.
        factors: NDArray[np.float64] = np.log1p(bets * np.maximum(gains, -1)[:, None])
    return factors


def log_fortune(gains: NDArray[np.float64], bets: NDArray[np.float64]) -> float:
    """Logarithm of what becomes of one unit, spread over the bets as STAKES says."""
    factors = log_factors(np.sort(gains), bets)  # sorted: the order must not reach the last digit
    return float(logsumexp(factors.sum(axis=0), b=STAKES))


def fortune_p_value(gains: NDArray[np.float64] | None, mean: float = 0.5) -> float:
    """p value of the hypothesis that nothing is to be gained: one over the fortune. None where nothing can be won."""
    if gains is None:
        return 1.0
    return math.exp(-max(0.0, log_fortune(gains, bets_for(gains.size, mean))))


def chance_to_win(gains: NDArray[np.float64] | None, n: int, confidence: float = 0.95, mean: float = 0.5) -> float:
    """Chance that n gains like these make a fortune of 1 / (1 - confidence). None where nothing can be won.

    The logarithm of a fortune is a sum of n terms: taken as normal, for the bet that does best.
    """
    if gains is None:
        return 0.0
    with np.errstate(invalid="ignore"):  # infinite losses
        growth = log_factors(gains, bets_for(n, mean))
        drift = n * growth.mean(axis=0) + np.log(STAKES) + math.log(1 - confidence)
        z = drift / np.maximum(math.sqrt(n) * growth.std(axis=0), 1e-12)
    return float(stats.norm.cdf(np.nan_to_num(z, nan=-np.inf)).max())


def documents_to_decide(chance: Callable[[int], float]) -> int | None:
    """The least number of documents with which `chance` reaches POWER; None where none has."""
    first, last = 0, 1
    while chance(last) < POWER:
        first, last = last, 2 * last
        if last > MOST:
            return None
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if chance(middle) >= POWER else (middle, last)
    return last
