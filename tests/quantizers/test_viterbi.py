"""The search in a trellis against every path there is, against a plain one, and against known errors."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate_kernels.formats.trellis import TrellisLayout, states, values
from quantgate_kernels.tables import normal_table

from quantizers.trellis import viterbi
from quantizers.trellis.viterbi import Search, search_torch

LENGTH = {1: 9, 2: 6}
"""Symbols of a short sequence, by their bits: every path can be tried."""
NONE = torch.zeros(1, 1)
"""No feedback, one column."""


def problem(seed: int, tiles: int, symbols: int, state_bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tiles, symbols, generator=generator), torch.randn(1 << state_bits, generator=generator)


def cost_of(symbols: tuple[int, ...], start: int, targets: list[float], table: list[float], bits: int) -> float:
    """The cost of a path from a group, by the definition."""
    state, total = start, 0.0
    for symbol, target in zip(symbols, targets, strict=True):
        state = (state << bits | symbol) % len(table)
        total += (target - table[state]) ** 2
    return total


def end_of(symbols: tuple[int, ...], start: int, bits: int, state_bits: int) -> int:
    state = start
    for symbol in symbols:
        state = (state << bits | symbol) % (1 << state_bits)
    return state % (1 << (state_bits - bits))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2]))
def test_no_path_is_better(seed: int, bits: int) -> None:
    targets, table = problem(seed, 2, LENGTH[bits], 4)
    groups = range(16 >> bits)
    paths = list(itertools.product(range(1 << bits), repeat=LENGTH[bits]))
    search = Search(targets, NONE, table, bits)
    free = search.path(None, None).tolist()
    from_each = [search.path(torch.full((2,), g), torch.full((2,), g)).tolist() for g in groups]
    for tile in range(2):
        aims, entries = targets[tile].tolist(), table.tolist()
        costs = {(g, path): cost_of(path, g, aims, entries, bits) for g in groups for path in paths}
        found = min(costs[g, tuple(free[tile])] for g in groups)
        assert found == pytest.approx(min(costs.values()), rel=1e-5)
        for g in groups:
            rings = [costs[g, path] for path in paths if end_of(path, g, bits, 4) == g]
            path = tuple(from_each[g][tile])
            assert end_of(path, g, bits, 4) == g and costs[g, path] == pytest.approx(min(rings), rel=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_ring_closes_where_the_free_path_crossed_its_end(bits: int) -> None:
    """Its cost, with the states that a reader sees, is that of the best path from and to its own first group."""
    targets, table = problem(bits, 8, 256, 8)
    search = Search(targets, torch.zeros(16, 16), table, bits)
    symbols = search.ring()
    seen = states(symbols, TrellisLayout(bits, 8))
    assert torch.equal(seen & ((1 << bits) - 1), symbols.int())
    assert torch.equal(seen.roll(-1, 1), (seen << bits | symbols.roll(-1, 1).int()) % 256)
    crossing = (seen[:, 0] >> bits).long()
    assert torch.equal(search.path(crossing, crossing), symbols)
    cost = (table[seen] - targets).square().sum(1)
    search.path(None, None)
    assert bool((search.costs[256].amin(0) <= cost * 1.00001).all())


def plain(targets: list[float], feedback: list[list[float]], table: list[float], bits: int, start: int) -> list[int]:
    """Viterbi's algorithm that carries whole paths, from and to a group, with errors of columns fed forward."""
    aims, height, groups = list(targets), len(targets) // len(feedback), len(table) >> bits
    best: dict[int, tuple[float, list[int]]] = {start: (0.0, [])}
    for step in range(len(aims)):
        if step and step % height == 0:
            path = min(best.values())[1]
            for later in range(step, len(aims)):
                place = step - height + later % height
                error = aims[place] - table[path[place]]
                aims[later] -= error * feedback[step // height - 1][later // height]
        after: dict[int, tuple[float, list[int]]] = {}
        for group, (cost, path) in best.items():
            for symbol in range(1 << bits):
                state = (group << bits | symbol) % len(table)
                new = (cost + (aims[step] - table[state]) ** 2, [*path, state])
                after[state % groups] = min(after.get(state % groups, new), new)
        best = after
    return best[start][1]


@pytest.mark.parametrize("bits", [1, 2])
def test_errors_of_a_column_move_the_columns_after_it(bits: int) -> None:
    targets, table = problem(3, 6, 32, 6)
    feedback = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)) / 2
    start = torch.arange(6) % (64 >> bits)
    found = Search(targets, feedback, table, bits).path(start, start)
    for tile in range(6):
        path = plain(targets[tile].tolist(), feedback.tolist(), table.tolist(), bits, int(start[tile]))
        assert found[tile].tolist() == [state % (1 << bits) for state in path]


@pytest.mark.parametrize(
    ("state_bits", "bits", "error"),
    [(10, 2, 0.0787), (12, 1, 0.2820), (12, 2, 0.0735), (12, 3, 0.0197), (12, 4, 0.00532)],
)
def test_errors_on_normal_weights_are_those_of_the_experiment(state_bits: int, bits: int, error: float) -> None:
    # Quantiles, as tails that a sample has too many or too few of decide at 3 bits and more.
    targets = torch.special.ndtri((torch.arange(48 * 256) + 0.5) / (48 * 256))
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(5))].view(48, 256)
    table = values(normal_table(state_bits))
    symbols = search_torch(targets, torch.zeros(16, 16), table, bits)
    found = table[states(symbols, TrellisLayout(bits, state_bits))]
    assert float((found - targets).square().mean()) == pytest.approx(error, rel=0.03)


def test_tiles_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, table = problem(4, 50, 256, 8)
    feedback = torch.triu(torch.full((16, 16), 0.2), 1)
    together = Search(targets, feedback, table, 2).ring()
    monkeypatch.setattr(viterbi, "COSTS", {"cpu": 256 * 20})
    assert torch.equal(search_torch(targets, feedback, table, 2), together)
    assert torch.equal(Search(targets[7:8], feedback, table, 2).ring(), together[7:8])


def test_targets_out_of_reach_spoil_no_neighbour() -> None:
    """Rows with a scale of nearly nothing have targets of any size."""
    targets, table = torch.randn(4, 256), values(normal_table(8))
    targets[:, ::16] = 1e12
    symbols = search_torch(targets, torch.zeros(16, 16), table, 2)
    found = table[states(symbols, TrellisLayout(2, 8))]
    others = torch.arange(256) % 16 > 0
    assert float((found - targets)[:, others].square().mean()) < 0.5
    assert float(found[:, ::16].mean()) > 1.5


def test_runs_of_tiles_have_feedback_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts that are searched together: each as with its matrix alone, wherever the tiles are cut."""
    targets, table = problem(6, 18, 256, 8)
    feedback = torch.triu(torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(2)) / 4, 1)
    expected = torch.cat([search_torch(targets[6 * n : 6 * n + 6], feedback[n], table, 2) for n in range(3)])
    monkeypatch.setattr(viterbi, "FEWEST", 4)
    monkeypatch.setattr(viterbi, "COSTS", {"cpu": 256 * 4})
    assert torch.equal(search_torch(targets, feedback, table, 2), expected)
    assert not torch.equal(search_torch(targets, feedback[0], table, 2), expected)
