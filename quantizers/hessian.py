"""Hessians of Linears: 2 X X^T over everything that flows into them (arXiv 2210.17323, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from quantizers.errors import QuantizeError


class Hessians:
    """Accumulates one Hessian for all Linears that receive the very same tensor, such as q/k/v or gate/up.

    `leaders` maps each Linear that ran to the first one that got the same tensor; `sums` holds, for each
    leader, 2 X X^T [I, I] in float32 over all rows of all inputs so far.
    """

    def __init__(self, linears: Mapping[str, nn.Linear]) -> None:
        self.leaders: dict[str, str] = {}
        self.sums: dict[str, torch.Tensor] = {}
        self._linears = dict(linears)

    def watch(self, run: Callable[[], Any]) -> Any:
        """Call `run` and add up the inputs that the Linears receive meanwhile; returns what `run` returns."""
        # Holding each input keeps its identity from being reused by a later tensor.
        seen: dict[int, tuple[str, torch.Tensor]] = {}

        def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def before(_: nn.Module, args: tuple[Any, ...]) -> None:
                inputs: torch.Tensor = args[0]
                leader = seen.setdefault(id(inputs), (name, inputs))[0]
                if self.leaders.setdefault(name, leader) != leader:
                    raise QuantizeError(f"{name} shares its input with another Linear only sometimes: ignore it")
                if leader == name:
                    self._add(name, inputs)

            return before

        handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in self._linears.items()]
        try:
            return run()
        finally:
            for handle in handles:
                handle.remove()

    def groups(self) -> list[tuple[list[str], torch.Tensor]]:
        """Names of the Linears that share a Hessian, and the Hessian, in the order of the Linears.

        Raises:
            QuantizeError: a Linear never ran (it would be calibrated on nothing), or its inputs are not finite.
        """
        for name in self._linears:
            if name not in self.leaders:
                raise QuantizeError(f"{name} never ran on the calibration text: add it to the recipe's ignore")
        for name, total in self.sums.items():
            if not bool(torch.isfinite(total).all()):
                raise QuantizeError(f"the inputs of {name} overflow on the calibration text: the model is broken")
        return [([n for n in self._linears if self.leaders[n] == leader], h) for leader, h in self.sums.items()]

    def _add(self, name: str, inputs: torch.Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).to(torch.float32)
        total = self.sums.get(name)
        if total is None:
            total = rows.new_zeros(rows.shape[1], rows.shape[1])
            self.sums[name] = total
        total.addmm_(rows.t(), rows, alpha=2)
