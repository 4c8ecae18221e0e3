"""Tuning one decoder layer after (and while) it is quantized: codes stay, what stands beside them moves.

What is minimised is the difference between the layer's output on the quantized model's states and the original layer's
output on the original states, both divided by their RMS token by token: the first token of a text carries most of the
energy of the middle layers, and a plain squared error would be spent on it (measured: docs/low-bits.md).

While a layer is being quantized, the weights that are still whole learn to make up for those that are not (the idea:
QuIP#, arXiv 2402.04396, section 5); at the end scales, norms and biases are tuned alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from quantizers.modeling import LayerCall
from quantizers.schemes.base import Parts, Scheme

BETAS = (0.9, 0.95)
EPSILON = 1e-6
"""Added to the mean square of a token's states."""


@dataclass(frozen=True)
class TuningSteps:
    """Adam for a number of steps, rates falling along a cosine; a rate of 0 leaves its parameters alone."""

    steps: int
    sequences: int
    """Of the calibration in a batch."""
    scales: float
    """Rate of the logarithms of scales, and of biases."""
    norms: float
    weights: float = 0.0
    """Rate of the weights that are not quantized yet."""


@dataclass(frozen=True)
class Tuning:
    """What a layer is tuned with: `between` after each group of Linears but the last, `after` at the end."""

    between: TuningSteps | None
    after: TuningSteps
    model: TuningSteps | None = None
    """Of the whole model at last, towards the original's distribution (quantizers/model_tuning.py)."""


BETWEEN = TuningSteps(50, 4, scales=1e-3, norms=5e-4, weights=1e-4)
AFTER = TuningSteps(100, 8, scales=4e-3, norms=2e-3)

METHODS: dict[str, Tuning | None] = {
    "none": None,
    "fast": Tuning(None, TuningSteps(12, 2, scales=4e-3, norms=2e-3)),
    "blocks": Tuning(BETWEEN, AFTER),
    "model": Tuning(BETWEEN, AFTER, TuningSteps(100, 4, scales=1e-3, norms=5e-4)),
}
"""What a recipe's `tune` may name."""


@dataclass
class Layer:
    """A decoder layer while it is quantized."""

    module: nn.Module
    call: LayerCall
    schemes: Mapping[str, Scheme]
    """Of each Linear by its name inside the layer."""
    parts: dict[str, Parts]
    """Of the Linears that are quantized, by their name inside the layer."""
    whole: dict[str, torch.Tensor]
    """Weights [O, I] of the targets that are not quantized yet, in the basis of their schemes."""
    tuned: list[str]
    """Names inside the layer of parameters beside them that may be tuned: norms and biases."""


def tune(
    layer: Layer, steps: TuningSteps, states: torch.Tensor, targets: torch.Tensor, device: str, seed: int
) -> tuple[float, float]:
    """Tune the scales of `layer.parts`, its norms and biases and, with a rate for them, `layer.whole`, all in place.

    Args:
        states: what enters the layer [N, L, D] in the quantized model.
        targets: what leaves the original layer [N, L, D] in the original model.
        seed: of the order of the sequences.

    Returns: the loss of the first and of the last step.
    """
    parameters = dict(layer.module.named_parameters())
    units = {name: layer.schemes[name].units(parts) for name, parts in layer.parts.items()}
    logs = {name: parts["scales"].log().requires_grad_() for name, parts in layer.parts.items()}
    whole = {name: w.clone().requires_grad_() for name, w in layer.whole.items()} if steps.weights else {}
    small = {name: parameters[name].detach().float().clone().requires_grad_() for name in layer.tuned}
    biases = [tensor for name, tensor in small.items() if name.endswith("bias")]
    norms = [tensor for name, tensor in small.items() if not name.endswith("bias")]
    rates = [([*logs.values(), *biases], steps.scales), (norms, steps.norms), (list(whole.values()), steps.weights)]
    groups = [{"params": tensors, "lr": rate} for tensors, rate in rates if tensors and rate]
    optimizer = torch.optim.Adam(groups, betas=BETAS, eps=1e-10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps.steps)))
    # What the layer is called with was captured for so many sequences, and long ones come in small batches.
    size = min(steps.sequences, layer.call.sequences)
    call, losses = layer.call.narrowed(size), []
    states, targets = states.to(device), targets.to(device)
    for batch in (indices.to(device) for indices in batches(len(states), size, steps.steps, seed)):
        weights = {f"{name}.weight": layer.schemes[name].combine(units[name], log.exp()) for name, log in logs.items()}
        weights |= {f"{name}.weight": layer.schemes[name].turn_back(tensor) for name, tensor in whole.items()}
        inputs = states[batch]
        found = functional_call(layer.module, {**weights, **small}, (inputs, *call.args), call.kwargs)
        output = found[0] if isinstance(found, tuple) else found
        loss = (_normal(output) - _normal(targets[batch])).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    for name, log in logs.items():
        layer.parts[name]["scales"] = log.detach().exp()
    for name, tensor in whole.items():
        layer.whole[name] = tensor.detach()
    with torch.no_grad():
        for name, tensor in small.items():
            parameters[name].copy_(tensor)
    return losses[0].item(), losses[-1].item()


def small_parameters(module: nn.Module, linears: Mapping[str, nn.Linear]) -> list[str]:
    """Names of the vectors of a layer: weights of norms, and biases of the Linears that are quantized."""
    biases = {f"{name}.bias" for name in linears}
    return [n for n, p in module.named_parameters() if p.ndim == 1 and (n in biases or n.endswith("weight"))]


def _normal(states: torch.Tensor) -> torch.Tensor:
    return states * torch.rsqrt(states.square().mean(-1, keepdim=True) + EPSILON)


def batches(count: int, size: int, steps: int, seed: int) -> Sequence[torch.Tensor]:
    """Indices of the sequences of each step: every one once before any twice."""
    generator = torch.Generator().manual_seed(seed)
    found: list[torch.Tensor] = []
    while len(found) < steps:
        found += [b for b in torch.split(torch.randperm(count, generator=generator), size) if len(b) == size]
    return found[:steps]
