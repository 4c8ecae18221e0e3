"""Mixtures of experts as one Linear for each matrix, under the names that checkpoints have for them.

transformers holds all experts of a layer in two tensors of three dimensions. Here each expert is a module of three
Linears, so that whatever quantizes Linears quantizes experts. What a class of experts computes is not taken on trust:
before its weights are read, ours and its own are run on small random weights and must agree.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from quantizers.checkpoint import FUSED_EXPERTS, Checkpoint, one_line
from quantizers.errors import QuantizeError
from quantizers.names import Note, move, note

TRIAL_WIDTH, TRIAL_TOKENS = 8, 12
"""Kernels for groups of matrices want rows of whole 16 bytes."""


@dataclass(frozen=True)
class Names:
    """What the three matrices of an expert are called in a checkpoint."""

    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


class Expert(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, names: Names, inputs: int, width: int, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.names, self.act = names, act
        self.add_module(names.gate, nn.Linear(inputs, width, bias=False))
        self.add_module(names.up, nn.Linear(inputs, width, bias=False))
        self.add_module(names.down, nn.Linear(width, inputs, bias=False))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up, down = (self._modules[name] for name in (self.names.gate, self.names.up, self.names.down))
        assert gate is not None and up is not None and down is not None
        return down(self.act(gate(hidden)) * up(hidden))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RouterCall:
    """Tokens, and the experts that the router gives them to."""

    hidden: torch.Tensor
    """[T, D]."""
    index: torch.Tensor
    """[T, k]."""
    weights: torch.Tensor
    """[T, k]."""

    def of(self, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which tokens [n] an expert has, and its weight in each [n]."""
        rows, places = torch.where(self.index == expert)
        return rows, self.weights[rows, places]


class Experts(nn.ModuleList):
    """All experts of a layer, called as those of transformers."""

    every = False
    """Does every token go through every expert? Then each is calibrated on all of them; what comes out is the same."""
    calls: list[RouterCall] | None = None
    """What it is called with, where that is kept."""
    counts: torch.Tensor | None = None
    """Tokens that the router gave to each expert [E], where they are counted."""
    shares: torch.Tensor | None = None
    """While an expert runs on its own tokens [n, D]: its weight in each [n]."""

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states [T, D] to the sum of each token's experts [T, D], by indices and weights [T, k]."""
        if self.counts is not None:
            self.counts += torch.bincount(top_k_index.flatten(), minlength=len(self))[: len(self)].to(self.counts)
        if self.calls is not None:
            self.calls.append(RouterCall(hidden_states.detach(), top_k_index, top_k_weights.detach()))
        out = torch.zeros_like(hidden_states)
        if self.every:
            shares = hidden_states.new_zeros(len(hidden_states), len(self) + 1)  # the last: of no expert at all
            shares.scatter_add_(1, top_k_index, top_k_weights.to(shares.dtype))
            for number, expert in enumerate(self):
                out = out + expert(hidden_states) * shares[:, number, None]
            return out
        call = RouterCall(hidden_states, top_k_index, top_k_weights)
        for number in torch.unique(top_k_index).tolist():
            if number < len(self):
                tokens, self.shares = call.of(number)
                found = self[number](hidden_states[tokens]) * self.shares[:, None]
                out = out.index_add(0, tokens, found.to(out.dtype))
        self.shares = None
        return out


def unfold(layers: nn.ModuleList, prefix: str, checkpoint: Checkpoint) -> None:
    """Put an `Experts` in the place of each module of experts in `layers` (full name `prefix`), on the meta device.

    Raises:
        QuantizeError: experts that compute something else, or whose matrices the checkpoint does not have.
    """
    tried: dict[type, str | None] = {}
    for index, layer in enumerate(layers):
        for name, module in [*layer.named_modules()]:
            if not _is_fused(module):
                if _looks_like_experts(name, module):
                    raise QuantizeError(
                        f"{prefix}.{index}.{name} are experts of a kind that is not supported: {type(module).__name__} "
                        "is not gate, up and down without biases"
                    )
                continue
            parent_name, _, own = name.rpartition(".")
            stored, names = _stored_names(checkpoint, f"{prefix}.{index}", parent_name, own)
            if type(module) not in tried:
                tried[type(module)] = _difference(module)
            if reason := tried[type(module)]:
                raise QuantizeError(f"{prefix}.{index}.{name} are experts of a kind that is not supported: {reason}")
            parent = layer.get_submodule(parent_name)
            count, doubled, inputs = module.gate_up_proj.shape
            with torch.device("meta"):
                unfolded = Experts(Expert(names, inputs, doubled // 2, module.act_fn) for _ in range(count))
            setattr(parent, own, unfolded)
            if stored != parent_name:
                move(layer, name, f"{stored}.{own}" if stored else own)
            for path, linear in unfolded.named_modules():
                if isinstance(linear, nn.Linear):
                    full = f"{prefix}.{index}.{f'{stored}.' if stored else ''}{own}.{path}"
                    note(linear, Note(full, {"weight": (f"{full}.weight",)}))


@contextmanager
def every_token(layer: nn.Module) -> Iterator[None]:
    """Within it, every token of the layer goes through every expert."""
    found = [module for module in layer.modules() if isinstance(module, Experts)]
    for module in found:
        module.every = True
    try:
        yield
    finally:
        for module in found:
            module.every = False


@contextmanager
def counted(layer: nn.Module, device: str) -> Iterator[dict[str, torch.Tensor]]:
    """Tokens that routers give to each expert [E] within it, by the name of the `Experts` inside the layer."""
    found = {name: module for name, module in layer.named_modules() if isinstance(module, Experts)}
    for module in found.values():
        module.counts = torch.zeros(len(module), dtype=torch.long, device=device)
    counts = {name: module.counts for name, module in found.items() if module.counts is not None}
    try:
        yield counts
    finally:
        for module in found.values():
            module.counts = None


@contextmanager
def routed(layer: nn.Module) -> Iterator[dict[str, list[RouterCall]]]:
    """What the experts of a layer are called with within it, by the name of the `Experts` inside the layer."""
    found = {name: module for name, module in layer.named_modules() if isinstance(module, Experts)}
    calls: dict[str, list[RouterCall]] = {name: [] for name in found}
    for name, module in found.items():
        module.calls = calls[name]
    try:
        yield calls
    finally:
        for module in found.values():
            module.calls = None


def places(layer: nn.Module) -> dict[str, tuple[str, str]]:
    """Of each Linear of an expert, by its name inside the layer: the name of its `Experts`, and "in" or "out"."""
    return {
        f"{name}.{number}.{own}": (name, "out" if own == expert.names.down else "in")
        for name, module in layer.named_modules()
        if isinstance(module, Experts)
        for number, expert in enumerate(module)
        if isinstance(expert, Expert)
        for own in (expert.names.gate, expert.names.up, expert.names.down)
    }


def _is_fused(module: nn.Module) -> bool:
    shapes = {name: tensor.ndim for name, tensor in module.named_parameters(recurse=False)}
    return (
        set(shapes) == FUSED_EXPERTS
        and set(shapes.values()) == {3}
        and not module._buffers
        and hasattr(module, "act_fn")
    )


def _looks_like_experts(name: str, module: nn.Module) -> bool:
    if isinstance(module, Experts):
        return False
    return name.rpartition(".")[2] == "experts" or type(module).__name__.endswith("Experts")


def _difference(module: nn.Module) -> str | None:
    """What is different between these experts and ours of the same small weights; None: nothing."""
    generator = torch.Generator().manual_seed(0)
    count = int(module.gate_up_proj.shape[0])  # type: ignore[index]
    width, trial = TRIAL_WIDTH, copy.copy(module)
    trial.__dict__ = dict(module.__dict__)
    shapes = {"gate_up_proj": (count, 2 * width, 2 * width), "down_proj": (count, 2 * width, width)}
    trial._parameters = {
        name: nn.Parameter(torch.randn(shape, generator=generator), requires_grad=False)
        for name, shape in shapes.items()
    }
    for name, value in {"hidden_dim": 2 * width, "hidden_size": 2 * width, "intermediate_dim": width,
                        "intermediate_size": width, "expert_dim": width}.items():  # fmt: skip
        if name in trial.__dict__:
            trial.__dict__[name] = value
    ours = Experts(Expert(Names(), 2 * width, width, module.act_fn) for _ in range(count))  # type: ignore[arg-type]
    for number, expert in enumerate(ours):
        gate_up = trial._parameters["gate_up_proj"][number]  # type: ignore[index]
        down = trial._parameters["down_proj"][number]  # type: ignore[index]
        weights = {"gate_proj.weight": gate_up[:width], "up_proj.weight": gate_up[width:], "down_proj.weight": down}
        expert.load_state_dict(weights)
    hidden = torch.randn(TRIAL_TOKENS, 2 * width, generator=generator)
    index = torch.rand(TRIAL_TOKENS, count, generator=generator).topk(min(2, count)).indices
    shares = torch.rand(index.shape, generator=generator)
    try:
        with torch.no_grad():
            expected, found = trial(hidden, index, shares), ours(hidden, index, shares)
    except Exception as error:  # anything a model's forward may raise
        return f"{type(module).__name__} cannot be run alone ({one_line(error)})"
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=1e-4, atol=1e-4):
        return f"{type(module).__name__} computes something else than down(act(gate(x)) * up(x))"
    return None


def _stored_names(checkpoint: Checkpoint, layer: str, parent: str, own: str) -> tuple[str, Names]:
    """What the checkpoint calls the experts' parent, inside the layer, and their matrices."""
    pattern = re.compile(rf"{re.escape(layer)}\.(?:(.+)\.)?{re.escape(own)}\.0\.([\w-]+)\.weight$")
    found: dict[str, set[str]] = {}
    for name in checkpoint.tensors:
        if match := pattern.match(name):
            found.setdefault(match.group(1) or "", set()).add(match.group(2))
    known = [Names(), Names("w1", "w3", "w2")]
    for stored in sorted(found, key=lambda it: it != parent):
        for names in known:
            if found[stored] == {names.gate, names.up, names.down}:
                return stored, names
    beside = [name.removeprefix(f"{layer}.") for name, info in checkpoint.tensors.items()
              if name.startswith(f"{layer}.") and len(info.shape) == 3]  # fmt: skip
    if beside and not found:
        raise QuantizeError(
            f"{layer}.{parent}.{own} are stored in one tensor under another name ({beside[0]}): not supported"
        )
    said = ", ".join(sorted(found[min(found)])) if found else "nothing"
    raise QuantizeError(
        f"{layer}.{parent}.{own}.0 has {said} in {checkpoint.folder}: experts are gate_proj, up_proj and down_proj, or "
        "w1, w3 and w2: get the complete model, under these names"
    )
