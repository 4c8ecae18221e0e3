"""Walks through a model that tell what single tiers do to its output, one layer in memory at a time.

The base is the original model, or a finished mix of tiers. On a wave through some layers, every variant of the base
(one group quantized to a tier) begins at its own layer and is carried through all that follow, so that each layer is
read once for all of them. Of a variant's states only the difference to the base's is kept, in bf16: what rounding does
to it is in proportion to the damage that is measured. Variants' weights are quantized on the original model's states,
untuned and one-sided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from quantizers.checkpoint import Checkpoint
from quantizers.experts import RouterCall, every_token, routed
from quantizers.head import filled_head, logits_of
from quantizers.hessian import hessians_of
from quantizers.layer import stages_of
from quantizers.mixed.bench import Bench
from quantizers.mixed.encode import Encoded, encoded
from quantizers.mixed.groups import Group, families, family_of
from quantizers.modeling import LayerCall, empty, fill, run_layer
from quantizers.recipe import KEPT
from quantizers.routed import experts_of, means_of, routed_in_parts

Variant = tuple[str, str]
"""A group's name and the tier that it has instead of what the base has."""


@dataclass
class Stream:
    """What enters a layer: the original model's states of the calibration, and the base's of what is looked at."""

    original: torch.Tensor
    """[N, L, D], float32, on the CPU."""
    added: torch.Tensor
    """What the base adds [n, L, D], float32, where layers run: nothing, where it is the original model."""


@dataclass
class Found:
    """Mean KL to the original model, in nats a token, of each sequence that is looked at."""

    base: list[float]
    variants: dict[Variant, list[float]]


@dataclass
class Wave:
    """A walk from layer `start` to the end, on which the variants of the layers before `stop` begin."""

    bench: Bench
    calls: Sequence[LayerCall]
    base: Checkpoint | None
    """A finished mix in plain weights; None: the original model."""
    variants: Mapping[str, Sequence[str]]
    """Tiers to try in the base, by the groups' names."""
    start: int
    stop: int
    held: dict[Variant, torch.Tensor] = field(default_factory=dict)
    """What each variant adds to the base [n, L, D], bf16; experts by their family."""
    shares: dict[Variant, list[float]] = field(default_factory=dict)
    """Of each expert in what its family adds, by sequence."""

    def walk(self, stream: Stream) -> tuple[Found, Stream | None]:
        """The KL of the base and of the variants, and what enters layer `stop`; `stream` enters `start` and is used up.

        Raises:
            QuantizeError: a layer or the head cannot be run, a Linear cannot be quantized.
        """
        job, after = self.bench.job, None
        total = len(job.architecture.layers)
        looked_at = stream.original[self.bench.looked_at].to(job.device)
        for index in range(self.start, total):
            if index == self.stop:
                after = Stream(stream.original.clone(), stream.added.clone())
            layer = job.architecture.layers[index]
            name = f"{job.architecture.prefix}.{index}"
            fill(job.architecture.model, layer, name, job.checkpoint, device=job.device, dtype=job.dtype)
            looked_at = self._through(index, layer, stream, looked_at)
            empty(layer)
            job.report("damage", index + 1 - self.start, total - self.start)
        with filled_head(job.architecture, job.checkpoint, device=job.device, dtype=job.dtype):
            return self._found(looked_at, stream.added), after

    def _through(self, index: int, layer: nn.Module, stream: Stream, looked_at: torch.Tensor) -> torch.Tensor:
        """Move all states through a filled layer; returns the original's of what is looked at [n, L, D]."""
        job, call = self.bench.job, self.calls[index]
        here = self.start <= index < self.stop
        groups = [group for group in self.bench.groups if here and group.layer == index]
        prefix = f"{job.architecture.prefix}.{index}"
        names = {full: full.removeprefix(f"{prefix}.") for group in groups for full in group.linears}
        original: dict[str, torch.Tensor] = {full: layer.get_parameter(f"{n}.weight").data for full, n in names.items()}
        weights = self._quantized(groups, layer, stream, call)
        if here:
            stream.original.copy_(self._run(layer, stream.original, call))
        leaving = self._run(layer, looked_at, call)
        entering, base = looked_at + stream.added, leaving
        if self.base is not None:
            fill(job.architecture.model, layer, prefix, self.base, device=job.device, dtype=job.dtype)
        with routed(layer) as calls:
            if self.base is not None or (here and any(group.family != group.name for group in groups)):
                base = self._run(layer, entering, call)
        for variant, difference in self.held.items():
            there = self._run(layer, entering + difference.to(entering), call)
            self.held[variant] = (there - base).to(torch.bfloat16)

        def give(group: Group, tier: str) -> dict[nn.Linear, torch.Tensor]:
            """Give a group's Linears another tier; returns the weights that they had."""
            before: dict[nn.Linear, torch.Tensor] = {}
            for full in group.linears:
                linear = layer.get_submodule(names[full])
                assert isinstance(linear, nn.Linear)
                before[linear] = linear.weight.data
                new = original[full] if tier == KEPT else weights[group.name, tier][full].weight(job.device)
                linear.weight.data = new.to(job.device, job.dtype)
            return before

        for family, members in families(groups).items():
            for tier in dict.fromkeys(t for group in members for t in self.variants.get(group.name, ())):
                moved = [group for group in members if tier in self.variants[group.name]]
                if family != members[0].name:
                    self.shares |= self._shares(layer, prefix, moved, tier, give, calls)
                before = [give(group, tier) for group in moved]
                self.held[family, tier] = (self._run(layer, entering, call) - base).to(torch.bfloat16)
                for linear, weight in (pair for each in before for pair in each.items()):
                    linear.weight.data = weight
        stream.added = base - leaving
        return leaving

    def _quantized(
        self, groups: Sequence[Group], layer: nn.Module, stream: Stream, call: LayerCall
    ) -> dict[Variant, dict[str, Encoded]]:
        """Weights by group and tier, of each Linear by its full name, quantized on what the original model gives."""
        wanted = {group.name: [t for t in self.variants.get(group.name, ()) if t != KEPT] for group in groups}
        linears: dict[str, nn.Linear] = {}
        for full in (full for group in groups if wanted[group.name] for full in group.linears):
            module = layer.get_submodule(full.removeprefix(f"{call.layer}."))
            assert isinstance(module, nn.Linear)
            linears[full] = module
        if not linears:
            return {}
        job = self.bench.job
        runs = [
            partial(run_layer, layer, part.to(job.device), call) for part in torch.split(stream.original, job.batch)
        ]
        inside = {full.removeprefix(f"{call.layer}."): linear for full, linear in linears.items()}
        of = {full: group for group in groups for full in group.linears}
        found: dict[Variant, dict[str, Encoded]] = {}

        def encode(hessians: Mapping[str, torch.Tensor]) -> None:
            """Quantize Linears by their Hessians, both by name inside the layer."""
            own = {f"{call.layer}.{name}": hessian for name, hessian in hessians.items()}
            schemes = {f: {t: of[f].schemes[t][f] for t in wanted[of[f].name]} for f in own}
            for (full, tier), made in encoded({f: linears[f].weight for f in own}, own, schemes).items():
                found.setdefault((of[full].name, tier), {})[full] = made

        with every_token(layer):
            stages = stages_of(layer, call.layer, inside, runs[0])
        for number, stage in enumerate(stages):
            with every_token(layer):
                hessians = hessians_of({names[0]: inside[names[0]] for names in stage}, runs)
            experts, left = ([], stage) if job.recipe.moe_calibrate_all_experts else experts_of(layer, stage)
            pooled = means_of(stage, hessians.values(), stream.original.shape[:2].numel())
            for part in routed_in_parts(layer, inside, experts, pooled, runs):
                encode(part)
            encode({name: pooled[name] for names in left for name in names})
            job.report("tiers", number, len(stages))
        return found

    def _shares(
        self,
        layer: nn.Module,
        prefix: str,
        groups: Sequence[Group],
        tier: str,
        give: Callable[[Group, str], dict[nn.Linear, torch.Tensor]],
        calls: Mapping[str, Sequence[RouterCall]],
    ) -> dict[Variant, list[float]]:
        """What share of a family's error each of its groups makes at this tier, by sequence.

        An error counts as it leaves the experts: on the tokens that the router gives to the expert, times its weight.
        """
        energies: dict[Variant, torch.Tensor] = {}
        for group in groups:
            expert_name = group.linears[0].rpartition(".")[0].removeprefix(f"{prefix}.")
            experts, _, number = expert_name.rpartition(".")
            expert = layer.get_submodule(expert_name)
            routed_here = [call.of(int(number)) for call in calls[experts]]
            with torch.no_grad():
                base = [expert(call.hidden[rows]) for call, (rows, _) in zip(calls[experts], routed_here, strict=True)]
                before = give(group, tier)
                energy = []
                for call, (rows, shares), plain in zip(calls[experts], routed_here, base, strict=True):
                    errors = ((expert(call.hidden[rows]) - plain) * shares[:, None]).square().sum(1)
                    length = self.bench.tokens.shape[1]
                    sequences = torch.zeros(len(call.hidden) // length, device=errors.device)
                    energy.append(sequences.index_add_(0, rows // length, errors))
            for linear, weight in before.items():
                linear.weight.data = weight
            energies[group.name, tier] = torch.cat(energy)
        total = torch.stack(list(energies.values())).sum(0).clamp_min(torch.finfo(torch.float32).tiny)
        return {variant: (energy / total).tolist() for variant, energy in energies.items()}

    def _run(self, layer: nn.Module, states: torch.Tensor, call: LayerCall) -> torch.Tensor:
        """States [.., L, D] through a layer, a batch at a time, to where they came from."""
        job = self.bench.job
        parts = torch.split(states, job.batch)
        out = [run_layer(layer, part.to(job.device), call.narrowed(len(part))).to(states.device) for part in parts]
        return torch.cat(out)

    def _found(self, looked_at: torch.Tensor, added: torch.Tensor) -> Found:
        base: list[float] = []
        variants: dict[Variant, list[float]] = {variant: [] for variant in self.held}
        job = self.bench.job
        for row, text in enumerate(self.bench.looked_at):
            logits = partial(self._logits, self.bench.tokens[text : text + 1])
            reference = logits(looked_at[row])
            entering = looked_at[row] + added[row]
            base.append(0.0 if self.base is None else divergence(reference, logits(entering)))
            for variant, difference in self.held.items():
                variants[variant].append(divergence(reference, logits(entering + difference[row].to(entering))))
            job.report("head", row + 1, len(self.bench.looked_at))
        for (group, tier), shares in self.shares.items():
            whole = variants[family_of(group), tier]
            variants[group, tier] = [b + (w - b) * share for b, w, share in zip(base, whole, shares, strict=True)]
        for family, tier in {(family_of(group), tier) for group, tier in self.shares}:
            del variants[family, tier]
        return Found(base, variants)

    def _logits(self, tokens: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [L, V] of one text."""
        job = self.bench.job
        with torch.no_grad():
            return logits_of(job.architecture, tokens.to(job.device), states[None].to(job.device))[0].log_softmax(-1)


def divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Mean KL in nats of log-probabilities [L, V] from reference ones, no less than 0."""
    return max(0.0, float((reference.exp() * (reference - other)).sum(-1).mean()))
