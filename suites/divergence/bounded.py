"""Divergences that cannot be larger than a known value, and what lists of likeliest tokens say of them.

    total variation  TV = 1/2 sum |p - q| = 1 - sum min(p, q), in [0, 1]: the share of tokens that two samplers would
                     still draw differently, coupled as well as they can be
    Jensen-Shannon   JS = 1/2 KL(p || m) + 1/2 KL(q || m) with m = (p + q) / 2, in [0, ln 2] nats

What is in neither list, or in one alone, is the tail of the other. Both upper bounds take the tails of the two sides as
wholly different: nothing of what the lists leave out is assumed. (A sum of f(p, q) with f convex and homogeneous of
degree 1 is largest where the two do not overlap; Csiszar and Shields, Information Theory and Statistics, section 4.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

JS_CAP = math.log(2)
"""Largest Jensen-Shannon divergence, in nats."""

Floats = NDArray[np.float64]


class BoundedDivergences(NamedTuple):
    """Of n positions, each from what is proven to what is possible."""

    tv_lower: Floats
    tv_upper: Floats
    js_lower: Floats
    """Nats."""
    js_upper: Floats


def bounded_divergences(p: Floats, q: Floats, p_alone: Floats, q_alone: Floats, rounding: float) -> BoundedDivergences:
    """Bounds of both from probabilities [n, k] of the tokens in both lists (0 where a token is not shared).

    `p_alone` [n]: by how much, in sum, the tokens that only the first list has are above the largest probability that
    the second can give them; `q_alone` likewise. `rounding`: what a mass outside the lists is uncertain by, since
    probabilities are rounded; a difference as small proves nothing.
    """
    p_rest, q_rest = (np.clip(1.0 - shared.sum(axis=1), 0.0, 1.0) for shared in (p, q))
    tv_upper = np.clip(1.0 - np.minimum(p, q).sum(axis=1), 0.0, 1.0)
    # The probability of any set of tokens differs by TV at most: here of those that one side is known to favour.
    favoured = [np.maximum(a - b, 0.0).sum(axis=1) + alone for a, b, alone in ((p, q, p_alone), (q, p, q_alone))]
    tv_lower = np.clip(np.maximum(*favoured) - rounding, 0.0, tv_upper)
    inside = _js(p, q).sum(axis=1)
    js_upper = np.minimum(inside + JS_CAP / 2 * (p_rest + q_rest), JS_CAP)
    # All other tokens as one: merging outcomes cannot raise a divergence.
    nearer = q_rest + np.clip(p_rest - q_rest, -rounding, rounding)
    js_lower = np.clip(inside + _js(p_rest, nearer), 0.0, js_upper)
    return BoundedDivergences(tv_lower, tv_upper, js_lower, js_upper)


def _js(p: Floats, q: Floats) -> Floats:
    middle = (p + q) / 2
    return np.asarray((rel_entr(p, middle) + rel_entr(q, middle)) / 2)
