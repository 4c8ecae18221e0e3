"""Next-token distributions for tests: drawn, cut to the likeliest tokens, and their exact divergence."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.endpoint.client import Scores
from suites.divergence.kl_bounds import Comparison

Array = NDArray[np.float64]


def top(logprobs: Array, k: int, tokens: NDArray[np.int32] | None = None) -> Scores:
    """What a server returns of full log-probabilities [n, V]: the k likeliest of each row."""
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
    n = len(logprobs)
    ids = np.zeros(n, np.int32) if tokens is None else tokens
    return Scores(
        ids,
        logprobs[np.arange(n), ids].astype(np.float32),
        order.astype(np.int32),
        np.take_along_axis(logprobs, order, 1).astype(np.float32),
    )


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def exact_kl(p: Array, q: Array) -> Array:
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))


def draw(seed: int, n: int = 4, vocabulary: int = 24) -> tuple[Array, Array]:
    """Two next-token distributions at n positions: from nearly equal to unrelated, from flat to sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.uniform(0.1, 6), size=(n, vocabulary))
    noise = rng.normal(scale=10 ** rng.uniform(-3, 0.7), size=(n, vocabulary))
    return log_softmax(logits), log_softmax(logits + noise)


def comparison(n: int, **known: Any) -> Comparison:
    """A comparison of n positions that are all zero but for what is given."""
    return Comparison(
        **({f.name: np.zeros(n, bool if "flips" in f.name else float) for f in fields(Comparison)} | known)
    )
