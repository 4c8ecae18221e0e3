"""Effective context length: how long a prompt may be before a model's score on RULER falls."""

from __future__ import annotations

from collections.abc import Mapping

THRESHOLD = 0.856
"""RULER's threshold (arXiv 2404.06654, section 4): what Llama-2-7B, made for 4,096 tokens, scores at that length."""


def effective_length(scores: Mapping[int, float], threshold: float = THRESHOLD) -> int | None:
    """The largest length whose score is above the threshold; None when there is none.

    Args:
        scores: length in tokens -> mean score of all tasks at that length, in [0, 1].
    """
    return max((length for length, score in scores.items() if score > threshold), default=None)
