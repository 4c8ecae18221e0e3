"""Brute force over all tables of n pairs, an oracle for the tests of the paired bounds and p values."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

Floats = NDArray[np.float64]
COUNTS = st.integers(1, 60).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n)))
)


def tables(n: int) -> tuple[Floats, Floats]:
    b, c = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij")
    fits = b + c <= n
    return b[fits], c[fits]


def chances(n: int, delta: float, p_c: Floats) -> Floats:
    """[p_c, table] exact chance of every table when the true difference is delta."""
    b, c = tables(n)
    ways = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(n - b - c + 1)
    first, second = p_c[:, None] + delta, p_c[:, None]
    rest = np.clip(1 - first - second, 0, 1)
    logs = ways + xlogy(b, np.clip(first, 0, 1)) + xlogy(c, second) + xlogy(n - b - c, rest)
    return np.asarray(np.exp(logs), dtype=np.float64)


def nuisances(delta: float, points: int) -> Floats:
    """The whole range of the share of c."""
    return np.linspace(max(0.0, -delta), (1 - delta) / 2, points)


def score_statistics(n: int, delta: float) -> Floats:
    """The score statistic of every table; the nuisance parameter is found by bisection of the likelihood's slope."""
    b, c = tables(n)
    low, high = np.full(b.shape, max(0.0, -delta)), np.full(b.shape, (1 - delta) / 2)
    for _ in range(60):
        p = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(b > 0, b / (p + delta), 0) + np.where(c > 0, c / p, 0)
            slope -= np.where(n - b - c > 0, 2 * (n - b - c) / (1 - 2 * p - delta), 0)
        low, high = np.where(slope > 0, p, low), np.where(slope > 0, high, p)
    variance = n * (low + high + delta * (1 - delta))
    return np.asarray((b - c - n * delta) / np.sqrt(np.maximum(variance, 1e-12)), dtype=np.float64)


def brute_force_p(n: int, delta: float) -> Floats:
    """p value of every table for "the difference is delta or more", the nuisance searched over its whole range."""
    z = np.round(score_statistics(n, delta), 7)
    order = np.argsort(z, kind="stable")
    at_most = np.cumsum(chances(n, delta, nuisances(delta, 201))[:, order], axis=1).max(axis=0)
    return np.asarray(at_most[np.searchsorted(z[order], z, side="right") - 1], dtype=np.float64)
