"""Hessians from hooks."""

from functools import partial

import pytest
import torch
from torch import nn

from quantizers.errors import QuantizeError
from quantizers.hessian import hessian_of, input_groups


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
