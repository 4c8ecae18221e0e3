"""Hessians from hooks."""

from functools import partial

import pytest
import torch
from torch import nn

from quantizers.errors import QuantizeError
from quantizers.hessian import hessian_of, hessians_of, input_groups


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.o, self.unused = (nn.Linear(8, 8) for _ in range(4))
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = self.q(x) * self.k(x)
        self.inputs.append(middle.detach())
        out: torch.Tensor = self.o(middle)
        return out


def test_linears_with_one_input_are_one_group_and_its_hessian_sums_over_batches() -> None:
    torch.manual_seed(0)
    block = Block()
    linears = {"o": block.o, "q": block.q, "k": block.k}
    batches = [torch.randn(2, 5, 8) for _ in range(3)]
    runs = [partial(block, batch) for batch in batches]
    assert input_groups(linears, runs[0]) == [["q", "k"], ["o"]]
    block.inputs.clear()
    shared = hessian_of("q", block.q, runs)
    assert not block.inputs, "the pass goes on behind the Linear that was waited for"
    own = hessian_of("o", block.o, runs)
    for hessian, inputs in ((shared, batches), (own, block.inputs)):
        rows = torch.cat(inputs).reshape(-1, 8).double()
        torch.testing.assert_close(hessian.double(), 2 * rows.T @ rows, rtol=1e-5, atol=1e-5)
    assert not any(linear._forward_pre_hooks for linear in linears.values())


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        downs = [Counting(8, 16, bias=False) for _ in range(3)]
        self.downs, self.named = nn.ModuleList(downs), {str(n): down for n, down in enumerate(downs, start=1)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((down(x * n) * x[..., :1] for n, down in enumerate(self.downs, start=1)), torch.zeros(16))


class Counting(nn.Linear):
    ran = 0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.ran += 1
        return super().forward(input)


def test_what_linears_give_is_not_computed_while_their_inputs_are_counted() -> None:
    experts, x = Experts(), torch.randn(2, 5, 8)
    before = experts(x)
    found = hessians_of(experts.named, [partial(experts, x)])
    assert [down.ran for down in experts.named.values()] == [1, 1, 1]
    rows = x.reshape(-1, 8)
    for n in (1, 2, 3):
        torch.testing.assert_close(found[str(n)], 2 * n * n * rows.T @ rows)
    assert torch.equal(experts(x), before) and [down.ran for down in experts.named.values()] == [2, 2, 2]


def test_a_linear_that_never_ran_is_named() -> None:
    block = Block()
    with pytest.raises(QuantizeError, match="unused never ran"):
        input_groups({"q": block.q, "unused": block.unused}, lambda: block(torch.randn(1, 2, 8)))


def test_a_linear_that_runs_twice_is_named() -> None:
    block = Block()
    with pytest.raises(QuantizeError, match="q ran 2 times"):
        input_groups({"q": block.q}, lambda: block.q(block.q(torch.randn(1, 2, 8))))


def test_inputs_that_overflow_are_named() -> None:
    block = Block()
    with pytest.raises(QuantizeError, match="inputs of q overflow"):
        hessian_of("q", block.q, [lambda: block(torch.full((1, 2, 8), 1e30))])
