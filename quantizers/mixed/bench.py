"""A model on which mixes of tiers are measured: its groups, its calibration, and the sequences that are looked at."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from quantizers.calibration import calibration_sequences, own_tokenizer
from quantizers.checkpoint import fingerprint
from quantizers.errors import QuantizeError
from quantizers.layer import Progress
from quantizers.mixed.groups import Group, groups_of
from quantizers.modeling import LayerCall, build, require_embeddings
from quantizers.pipeline import Conversion, batch_size, enter
from quantizers.plan import make_plan
from quantizers.recipe import KEPT, Recipe, Source
from quantizers.soundness import require_sound
from quantizers.sources import open_source

SEQUENCES = 8
"""Of the calibration, on which KL is measured."""


@dataclass(frozen=True)
class Bench:
    """What stays the same from one walk through the model to the next."""

    job: Conversion
    groups: list[Group]
    other_bytes: int
    """Of all tensors that are in no group, the tables of all tiers among them."""
    tokens: torch.Tensor
    """The calibration [N, L]."""
    looked_at: list[int]
    """Its sequences on which KL is measured."""
    kinds: list[str]
    """Of each of those."""
    model: str
    """Fingerprint."""

    @property
    def damping(self) -> float | None:
        """What the recipe says of it."""
        return self.job.recipe.damping

    @property
    def calibration(self) -> str:
        """A sha256 over the tokens, and which of them are looked at."""
        return hashlib.sha256(self.tokens.numpy().tobytes() + repr(self.looked_at).encode()).hexdigest()

    def enter(self, *, states: bool) -> tuple[torch.Tensor | None, list[LayerCall]]:
        """The states [N, L, D] that enter the first layer, if asked for, and what each layer is called with."""
        return enter(self.job, self.tokens, all_batches=states)


def open_bench(model: Path, recipe: Recipe, sequences: int, report: Progress, device: str | None) -> Bench:
    """The bench for a model folder and a recipe with a `mix`; `sequences` are looked at, evenly over the kinds.

    Raises:
        QuantizeError: what `quantizers.pipeline.quantize` refuses, a recipe without a mix.
    """
    if not recipe.mix:
        raise QuantizeError(
            f"recipe {recipe.name} leaves no tier open: give it a `mix`, or name the tiers to choose from"
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    report("load", 0, 1)
    checkpoint = open_source(model)
    architecture = build(checkpoint)
    groups, others = groups_of(checkpoint, architecture, recipe)
    settled = recipe.model_copy(update={"mix": (), "tier": next(tier for tier in recipe.mix if tier != KEPT)})
    plan = make_plan(checkpoint, architecture, settled)
    tokens, sources = calibration_sequences(own_tokenizer(model), recipe.calibration)
    require_embeddings(architecture, tokens)
    require_sound(checkpoint, lambda done, total: report("load", done, total))
    kinds = [kind_of(source) for source in sources]
    looked_at = evenly(kinds, sequences)
    schemes = {scheme.tier: scheme for group in groups for own in group.schemes.values() for scheme in own.values()}
    widths = [checkpoint.tensors[f"{linear}.weight"].shape[1] for group in groups for linear in group.linears]
    tables = {name: table for scheme in schemes.values() for name, table in scheme.tables(widths).items()}
    job = Conversion(
        checkpoint, architecture, plan, settled, report, device, torch.float32, batch_size(*tokens.shape), None
    )
    return Bench(
        job,
        groups,
        others + sum(table.nbytes for table in tables.values()),
        tokens,
        looked_at,
        [kinds[index] for index in looked_at],
        fingerprint(checkpoint),
    )


def kind_of(source: Source) -> str:
    """What a sequence's damage is filed under: its kind and language, or else the name of its text."""
    if source.shipped is not None:
        return source.shipped
    if said := "-".join(filter(None, (source.kind, source.language))):
        return said
    if source.traces is not None:
        return "traces"
    return source.file.stem if source.file else str(source.dataset)


def evenly(kinds: list[str], count: int) -> list[int]:
    """Indices of `count` sequences (all, if there are no more), the first ones of each kind in turn."""
    before: Counter[str] = Counter()
    turns = []
    for index, kind in enumerate(kinds):
        turns.append((before[kind], index))
        before[kind] += 1
    return sorted(index for _, index in sorted(turns)[:count])
