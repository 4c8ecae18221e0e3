"""One decoder layer, from its weights and the states that enter it to what is stored of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from quantizers.curvature import Curvature, HessianError
from quantizers.each import quantize_each
from quantizers.errors import QuantizeError
from quantizers.experts import counted, every_token, places
from quantizers.gradients import OutputSide, token_weights
from quantizers.hessian import RunLayer, hessians_of, input_groups
from quantizers.modeling import LayerCall, run_layer
from quantizers.routed import experts_of, means_of, routed_in_parts
from quantizers.schemes import Parts, Scheme
from quantizers.tall import quantize_tall, turned_hessian
from quantizers.tuning import Layer, Tuning, small_parameters, tune
from quantizers.two_sided import quantize_two_sided
from quantizers.workers.tasks import HERE, Workers

Progress = Callable[[str, int, int], None]
BROKEN = "raise damping, or add it to ignore"


@dataclass(frozen=True)
class QuantizedLayer:
    """What became of a layer."""

    tensors: dict[str, torch.Tensor]
    """What is stored, by name inside the layer, tuned norms and biases among them."""
    usage: dict[str, list[int]]
    """How many tokens the router gave to each expert, by the name of the experts inside the layer."""


def quantize_layer(
    module: nn.Module,
    linears: Mapping[str, nn.Linear],
    call: LayerCall,
    schemes: Mapping[str, Scheme],
    tuning: Tuning | None,
    states: torch.Tensor,
    targets: torch.Tensor | None,
    sides: Mapping[str, OutputSide] | None,
    *,
    device: str,
    batch: int,
    seed: int,
    report: Progress,
    all_experts: bool = True,
    workers: Workers = HERE,
) -> QuantizedLayer:
    """Quantize `linears` (by name inside the layer) in place, group by group in the order in which they run.

    Each group is calibrated on what it receives when those before it are quantized, each expert on all tokens.

    Args:
        schemes: of each of `linears`.
        states: what enters the layer [N, L, D] in the quantized model.
        targets: what leaves the original layer [N, L, D] in the original model; needed where it is tuned.
        sides: of the outputs of each of `linears`, where errors are weighed by what they do to the model's loss.
        batch: sequences that run through the layer at once.
        seed: of the tuning.
        all_experts: whether each expert is calibrated on all tokens; else see quantizers/routed.py.
        workers: who encodes.

    Raises:
        QuantizeError: a Linear cannot be quantized, by name.
    """
    runs = [partial(run_layer, module, part.to(device), call) for part in torch.split(states, batch)]
    tuned = tuning if targets is not None else None
    # Weights that are tuned while they wait are held in the basis of their schemes; others are turned when they come.
    basis = linears if tuned and tuned.between else {}
    whole = {name: schemes[name].turn(linear.weight.detach().float()) for name, linear in basis.items()}
    layer = Layer(module, call, schemes, {}, whole, small_parameters(module, linears))
    encoder = _Encoder(layer, linears, workers, kept="cpu" if tuned is None else device)
    with every_token(module):
        stages = stages_of(module, call.layer, linears, runs[0])
    usage: dict[str, torch.Tensor] = {}
    for number, stage in enumerate(stages):
        first = [names[0] for names in stage]
        sided = sides is not None and all(name in sides for names in stage for name in names)
        weights = token_weights([sides[name] for name in stage[0]]) if sides and sided else None
        needed = {f"{call.layer}.{name}": linears[name] for name in first}
        with every_token(module), counted(module, device) as counts:
            hessians = hessians_of(needed, _counted(runs, report), weights)
        usage |= {name: count for name, count in counts.items() if bool(count.any())}
        tick = partial(report, "columns", number, len(stages))
        experts, left = ([], stage) if all_experts else experts_of(module, stage)
        means = means_of(stage, hessians.values(), states.shape[:2].numel()) if experts else {}
        for own in routed_in_parts(module, linears, experts, means, runs):
            encoder.experts(list(own), list(own.values()), tick)
        if len(left) > 1:
            encoder.experts(first, list(hessians.values()), tick)
        elif left:
            weighed = {name: sides[name].hessian for name in left[0]} if sides and sided else {}
            encoder.group(left[0], hessians[f"{call.layer}.{first[0]}"], weighed, tick)
        if tuned and targets is not None and tuned.between and layer.whole:
            report("tuning", number, len(stages))
            tune(layer, tuned.between, states, targets, device, seed + number)
            _apply(layer, linears)
    report("columns", len(stages), len(stages))
    tensors: dict[str, torch.Tensor] = {}
    if tuned and targets is not None:
        report("tuning", len(stages), len(stages))
        tune(layer, tuned.after, states, targets, device, seed)
        _apply(layer, linears)
        parameters = dict(module.named_parameters())
        tensors |= {name: parameters[name].detach().cpu() for name in layer.tuned}
    for name, parts in layer.parts.items():
        tensors |= {f"{name}.{key}": value for key, value in schemes[name].tensors(parts).items()}
    return QuantizedLayer(tensors, {name: count.tolist() for name, count in usage.items()})


def stages_of(module: nn.Module, layer: str, linears: Mapping[str, nn.Linear], run: RunLayer) -> list[list[list[str]]]:
    """Linears that share an input, and those groups that can be quantized at once, in the order in which they run.

    These are what leaves the experts of one layer: no expert waits for another.

    Args:
        layer: full name of the layer `module`.
        linears: by name inside the layer.
        run: runs the layer on a batch, every token through every expert.
    """
    place = places(module)
    stages: dict[tuple[str, ...], list[list[str]]] = {}
    for group in input_groups({f"{layer}.{name}": linear for name, linear in linears.items()}, run):
        names = [name.removeprefix(f"{layer}.") for name in group]
        stages.setdefault(place.get(names[0], tuple(names)), []).append(names)
    return list(stages.values())


@dataclass(frozen=True)
class _Encoder:
    """Encodes Linears of a layer, and gives each to the module as a server will have it."""

    layer: Layer
    linears: Mapping[str, nn.Linear]
    workers: Workers
    kept: str
    """Where parts wait: on the CPU, unless they are tuned."""

    def group(
        self, names: list[str], hessian: torch.Tensor, outputs: Mapping[str, torch.Tensor], tick: Callable[[], None]
    ) -> None:
        """Linears with one Hessian: those with one scheme are one tall weight, where rows do not know of each other.

        `outputs` are the Hessians [O, O] of their outputs, by name, where errors are weighed by what they do to the
        loss.
        """
        for scheme, members in self._by_scheme(names):
            own = [names[place] for place in members]
            weights, turned = self._weights(own)
            try:
                if outputs and scheme.tall and not scheme.data_free:
                    weights = weights if turned else [scheme.turn(weight.float()) for weight in weights]
                    curvature = Curvature(turned_hessian(scheme, hessian))
                    two = quantize_two_sided(scheme, weights, curvature, [outputs[name] for name in own], tick)
                    self._keep(own, iter(two))
                else:
                    self._keep(own, quantize_tall(scheme, weights, hessian, tick, self.workers, turned=turned))
            except HessianError as error:
                raise QuantizeError(f"{self.layer.call.layer}.{own[0]}: {error}: {BROKEN}") from None

    def experts(self, names: list[str], hessians: list[torch.Tensor], tick: Callable[[], None]) -> None:
        """Linears of one shape that do not wait for each other, each with its own Hessian; one scheme at a time."""
        for scheme, members in self._by_scheme(names):
            own = [names[place] for place in members]
            weights, turned = self._weights(own)
            needed = [hessians[place] for place in members]
            try:
                self._keep(own, quantize_each(scheme, weights, needed, tick, self.workers, turned=turned))
            except HessianError as error:
                raise QuantizeError(f"{self.layer.call.layer}.{own[error.number]}: {error}: {BROKEN}") from None

    def _by_scheme(self, names: list[str]) -> list[tuple[Scheme, list[int]]]:
        """Places of the names of each scheme."""
        schemes = [self.layer.schemes[name] for name in names]
        return [(each, [n for n, other in enumerate(schemes) if other == each]) for each in dict.fromkeys(schemes)]

    def _weights(self, names: list[str]) -> tuple[list[torch.Tensor], bool]:
        """Weights [O, I], and whether they are in the basis of their schemes."""
        if self.layer.whole:
            return [self.layer.whole.pop(name) for name in names], True
        return [self.linears[name].weight.detach() for name in names], False

    def _keep(self, names: list[str], found: Iterator[Parts]) -> None:
        for name, parts in zip(names, found, strict=True):
            weight, scheme = self.linears[name].weight, self.layer.schemes[name]
            weight.data.copy_(scheme.dequantize({key: part.to(weight.device) for key, part in parts.items()}))
            self.layer.parts[name] = {key: part.to(self.kept) for key, part in parts.items()}


def _apply(layer: Layer, linears: Mapping[str, nn.Linear]) -> None:
    """Give the module the weights as they are now: quantized ones as a server will have them."""
    for name, parts in layer.parts.items():
        linears[name].weight.data.copy_(layer.schemes[name].dequantize(parts))
    for name, weight in layer.whole.items():
        linears[name].weight.data.copy_(layer.schemes[name].turn_back(weight))


def _counted(runs: list[partial[torch.Tensor]], report: Progress) -> Iterator[RunLayer]:
    for number, run in enumerate(runs, start=1):
        yield run
        report("inputs", number, len(runs))
