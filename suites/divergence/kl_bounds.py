"""Divergence of two models at given positions, from the lists of likeliest tokens that their servers return."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from harness.contract.metrics import KL_CAP
from harness.endpoint.answers import Scores
from harness.runs.positions import BUCKETS, CONFIDENCES
from suites.divergence.bounded import bounded_divergences

CONFIDENT = 0.9
"""A reference that is this sure of its top token does not flip by chance."""

ROUNDING = 1e-5
"""Float32 log-probabilities, rounded as they are stored, leave the candidate's mass outside the lists uncertain by
about this much. It is added, so that a mass lost to rounding is never taken for a proof of divergence."""

ROWS = 4096
"""Positions that are compared at a time: what bounds the memory."""


@dataclass(frozen=True)
class Comparison:
    """Two models at n positions. KL is of the reference to the candidate, in nats."""

    kl_lower: NDArray[np.float64]
    """[n] what the shared tokens and one bucket for all others prove."""
    kl_upper: NDArray[np.float64]
    """[n] the same, if no token outside is treated worse than the worst one inside."""
    tv_lower: NDArray[np.float64]
    """[n] total variation that the lists prove."""
    tv_upper: NDArray[np.float64]
    """[n] the same with all that the lists leave out, on both sides: no assumption."""
    js_lower: NDArray[np.float64]
    """[n] Jensen-Shannon divergence that the lists prove, in nats."""
    js_upper: NDArray[np.float64]
    """[n] the same with all that the lists leave out."""
    captured: NDArray[np.float64]
    """[n] probability (of the reference) on tokens that both returned."""
    flips: NDArray[np.bool_]
    """[n] the likeliest token differs."""
    confident_flips: NDArray[np.bool_]
    """[n] it differs where the reference gives its own more than CONFIDENT."""
    confidence: NDArray[np.float64]
    """[n] probability that the reference gives its likeliest token."""
    reference_logprobs: NDArray[np.float64]
    """[n] log-probability of the token that is there, by the reference."""
    logprobs: NDArray[np.float64]
    """[n] the same, by the candidate."""

    def totals(self) -> dict[str, float]:
        """Sums over the positions, as a sample's metrics: pooled means of documents are exact.

        `delta_p` is the candidate's probability of the token that is there minus the reference's, as in llama.cpp's
        KL tool; `nll` is the negative log-likelihood (nats). `NAME@PART` are sums over the positions of a part: by
        position in the answer (BUCKETS), by how sure the reference was (CONFIDENCES). `kl_capped` counts a position's
        KL as KL_CAP where it is more.
        """
        delta_p = np.exp(self.logprobs) - np.exp(self.reference_logprobs)
        found = self._sums(slice(None)) | {
            "captured_mass_sum": float(self.captured.sum()),
            "kl_lower_max": float(self.kl_lower.max(initial=0.0)),
            "kl_upper_max": float(self.kl_upper.max(initial=0.0)),
            "kl_capped_lower_sum": float(np.minimum(self.kl_lower, KL_CAP).sum()),
            "kl_capped_upper_sum": float(np.minimum(self.kl_upper, KL_CAP).sum()),
            "js_lower_sum": float(self.js_lower.sum()),
            "js_upper_sum": float(self.js_upper.sum()),
            "delta_p_sum": float(delta_p.sum()),
            "delta_p_squared_sum": float((delta_p**2).sum()),
            "nll_reference_sum": float(-self.reference_logprobs.sum()),
            "nll_candidate_sum": float(-self.logprobs.sum()),
        }
        parts: dict[str, slice | NDArray[np.bool_]] = {
            bucket: slice(first, end) for bucket, (first, end) in BUCKETS.items() if self.kl_lower.size > first
        }
        for name, (low, high) in CONFIDENCES.items():
            within = (low <= self.confidence) & (self.confidence < high)
            parts |= {name: within} if within.any() else {}
        for part, rows in parts.items():
            found |= {f"{name}@{part}": value for name, value in self._sums(rows).items()}
        return found

    def _sums(self, rows: slice | NDArray[np.bool_]) -> dict[str, float]:
        return {
            "positions": float(self.kl_lower[rows].size),
            "kl_lower_sum": float(self.kl_lower[rows].sum()),
            "kl_upper_sum": float(self.kl_upper[rows].sum()),
            "tv_lower_sum": float(self.tv_lower[rows].sum()),
            "tv_upper_sum": float(self.tv_upper[rows].sum()),
            "flips": float(self.flips[rows].sum()),
            "confident_flips": float(self.confident_flips[rows].sum()),
        }


def compare_scores(reference: Scores, candidate: Scores) -> Comparison:
    """Bounds of KL(reference || candidate), TV and JS from the top-k lists of both.

    Tokens in both lists count one by one; all others are one bucket. Merging outcomes cannot raise KL (log-sum
    inequality; Cover and Thomas, Elements of Information Theory, theorem 2.7.1), so that is a lower bound. No finite
    upper bound exists without an assumption: ours is that no token in the bucket has a larger log(p/q) than the worst
    token whose ratio, or its least value, is known (a token that the candidate left out has at most its k-th
    probability). Renormalizing the lists instead would be wrong. TV and JS need no such assumption: bounded.py.

    Raises:
        ValueError: the two do not score the same tokens, or no tokens at all.
    """
    if not np.array_equal(reference.token_ids, candidate.token_ids):
        raise ValueError("the two roles scored different tokens")
    n = reference.token_ids.size
    if n == 0:
        raise ValueError("no positions to compare")
    parts = [_compare_rows(reference, candidate, slice(row, row + ROWS)) for row in range(0, n, ROWS)]
    return Comparison(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Comparison)))


def _compare_rows(reference: Scores, candidate: Scores, rows: slice) -> Comparison:
    p = reference.top_logprobs[rows].astype(np.float64)
    q = candidate.top_logprobs[rows].astype(np.float64)
    index, shared = _matches(reference.top_ids[rows], candidate.top_ids[rows])
    found = np.take_along_axis(q, index, axis=1)
    # For a token that the candidate left out, its k-th log-probability is the most it can be.
    ratio = p - np.where(shared, found, q.min(axis=1, keepdims=True))
    mass, candidate_mass = np.where(shared, np.exp(p), 0.0), np.where(shared, np.exp(found), 0.0)
    captured = mass.sum(axis=1)
    p_rest = np.maximum(1.0 - captured, 1e-12)
    q_rest = np.maximum(1.0 - candidate_mass.sum(axis=1), 0.0) + ROUNDING
    inside = (mass * ratio).sum(axis=1)
    kl_lower = np.maximum(0.0, inside + p_rest * np.log(p_rest / q_rest))
    kl_upper = np.maximum(kl_lower, inside + p_rest * np.maximum(0.0, ratio.max(axis=1)))
    flips = reference.top_ids[rows, 0] != candidate.top_ids[rows, 0]
    sure = reference.top_logprobs[rows, 0] > np.log(CONFIDENT)
    confidence = np.exp(np.minimum(p[:, 0], 0.0))
    logprobs = [scores.logprobs[rows].astype(np.float64) for scores in (reference, candidate)]
    alone = _above(p, ~shared, q), _above(q, ~_shared_places(index, shared, q.shape[1]), p)
    bounded = bounded_divergences(mass, candidate_mass, *alone, ROUNDING)
    return Comparison(
        kl_lower, kl_upper, *bounded, np.minimum(captured, 1.0), flips, flips & sure, confidence, *logprobs
    )


def _above(p: NDArray[np.float64], alone: NDArray[np.bool_], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] by how much, in sum, tokens that the other list lacks are above that list's k-th, the most they can be."""
    most = np.exp(q.min(axis=1, keepdims=True))
    return np.asarray(np.where(alone, np.maximum(np.exp(p) - most, 0.0), 0.0).sum(axis=1))


def _shared_places(index: NDArray[np.intp], shared: NDArray[np.bool_], m: int) -> NDArray[np.bool_]:
    """[n, m] which of the other list's tokens are shared, of `_matches`."""
    places = np.zeros((len(index), m), np.bool_)
    row, column = np.nonzero(shared)
    places[row, index[row, column]] = True
    return places


def _matches(ids: NDArray[np.int32], others: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each of `ids` [n, k] is in the same row of `others` [n, m]: (index, whether it is there at all)."""
    n, m = others.shape
    order = np.argsort(others, axis=1)
    # One sorted array of (row, id): a single search finds the ids of all rows.
    row = np.arange(n, dtype=np.int64)[:, None] << 32
    there = (row + np.take_along_axis(others, order, axis=1)).ravel()
    place = np.searchsorted(there, (row + ids).ravel()).reshape(ids.shape) - np.arange(n)[:, None] * m
    index = np.take_along_axis(order, np.clip(place, 0, m - 1), axis=1)
    return index, np.take_along_axis(others, index, axis=1) == ids
