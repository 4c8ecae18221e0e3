"""The third step of a mix: what the choice really costs, and one correction by what its neighbours cost inside of it.

KLs do not add up. All groups are quantized as chosen and the KL is measured; then each group alone moves one tier up or
down inside that mix, and a second choice is made among the measured moves. Of the two the one whose measured KL is
lower is kept: in an experiment the second was the worse one (docs/low-bits.md).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from quantizers.errors import QuantizeError
from quantizers.layer import Progress
from quantizers.mixed.bench import open_bench
from quantizers.mixed.choice import Target, choose_tiers
from quantizers.mixed.damage import Damage, GroupDamage, Kinds, average, by_kind, by_tier, read_model, write_json
from quantizers.mixed.knapsack import choose
from quantizers.mixed.measure import require_same
from quantizers.mixed.waves import in_waves
from quantizers.recipe import Recipe
from quantizers.work_folder import open_work

WAVES = 4
"""Fewer than where damages are measured: on each wave the mix is quantized again from its first layer on."""


class Choice(BaseModel):
    """A mix and what was measured of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tiers: dict[str, str]
    """By the groups' names."""
    kl: Kinds
    """Mean KL of the whole mix, untuned, in nats a token, by kind of text."""


class Correction(BaseModel):
    """What correcting a choice found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["quantgate correction 1"] = "quantgate correction 1"
    asked: str
    """A sha256 over the damages, the target and the weights of the kinds."""
    target: str
    weights: dict[str, float]
    """What each kind of text counted."""
    first: Choice
    neighbours: dict[str, dict[str, Kinds]]
    """KL of the first choice where one group (by name) has another tier instead, by tier."""
    second: Choice | None
    """None: no move inside the first choice promised anything."""
    kept: Literal["first", "second"]

    @property
    def mix(self) -> dict[str, str]:
        """The tiers that were kept."""
        return self.second.tiers if self.second is not None and self.kept == "second" else self.first.tiers


def correct(
    model: Path,
    recipe: Recipe,
    damage: Damage,
    target: Target,
    weights: Mapping[str, float],
    out: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
) -> Correction:
    """Choose, measure the choice on the model folder `model`, correct it once, measure that, and keep the better.

    What was found is written to the JSON file `out`, which is used again where the same is asked for. Work goes on in
    `out`.partial: run the same call again after an interruption. `progress` as for `measure_tiers`.

    Args:
        recipe: what the damages were measured with.
        weights: what each kind of text counts; 1 where nothing is said.

    Raises:
        QuantizeError: the damages or `out` are of another model, target or weights; no choice meets the target.
    """
    report = progress or (lambda stage, done, total: None)
    counted, asked = damage.weighted(weights), digest(damage, target, weights)
    if out.is_file():
        correction = read_correction(out)
        if correction.asked != asked:
            raise QuantizeError(
                f"{out} is of {correction.target}, or of other damages or weights: remove it and the recipe beside it, "
                "or choose another output"
            )
        return correction
    mix = choose_tiers(damage, target, weights)
    bench = open_bench(model, recipe, sum(damage.kinds.values()), report, device)
    require_same(bench, damage)
    width = int(bench.job.architecture.model.get_input_embeddings().weight.shape[1])
    with open_work(out, {"choice": asked}, 8 * bench.tokens.numel() * width) as work:
        (before := work.folder / "first").mkdir(exist_ok=True)
        (after := work.folder / "second").mkdir(exist_ok=True)
        sought = {group.name: _neighbours(group, mix[group.name]) for group in damage.groups}
        found = in_waves(bench, mix, sought, before, WAVES)
        first = Choice(tiers=mix, kl=by_kind(found.mix, bench.kinds))
        neighbours = {group.name: by_tier(found.variants, group.name, bench.kinds) for group in damage.groups}
        tiers = _second(damage, first, neighbours, counted, target.budget(damage))
        second = None
        if tiers != mix:
            second = Choice(tiers=tiers, kl=by_kind(in_waves(bench, tiers, {}, after, 1).mix, bench.kinds))
        better = second is not None and average(second.kl, counted) < average(first.kl, counted)
        correction = Correction(
            asked=asked,
            target=str(target),
            weights=counted,
            first=first,
            neighbours=neighbours,
            second=second,
            kept="second" if better else "first",
        )
        write_json(out, correction.model_dump(mode="json"))
        shutil.rmtree(work.folder, ignore_errors=True)
    return correction


def notes(correction: Correction) -> list[str]:
    """What a recipe's comments say of it."""

    def words(choice: Choice) -> str:
        kinds = ", ".join(f"{kind} {kl:.4g}" for kind, kl in choice.kl.items())
        return f"{average(choice.kl, correction.weights):.4g} nats ({kinds})"

    found = [f"Chosen for {correction.target}. Measured KL of the whole mix, untuned: {words(correction.first)}."]
    if correction.second is None:
        found.append("No move of one group to its next tier promised less.")
    else:
        which = "this is that one" if correction.kept == "second" else "this is the first one"
        found.append(f"Chosen again by what single moves cost inside of it: {words(correction.second)}; {which}.")
    return found


def read_correction(path: Path) -> Correction:
    """A correction from its file. Raises QuantizeError if it is none."""
    return read_model(Correction, path)


def _second(
    damage: Damage,
    first: Choice,
    neighbours: Mapping[str, Mapping[str, Kinds]],
    weights: Mapping[str, float],
    budget: int,
) -> dict[str, str]:
    """The choice among what was measured: each group stays, or moves to one of its neighbours."""
    stays = average(first.kl, weights)
    values = [
        {first.tiers[g.name]: stays} | {tier: average(kl, weights) for tier, kl in neighbours[g.name].items()}
        for g in damage.groups
    ]
    sizes = [{tier: group.bytes[tier] for tier in own} for group, own in zip(damage.groups, values, strict=True)]
    return dict(zip(first.tiers, choose(values, sizes, budget), strict=True))


def digest(damage: Damage, target: Target, weights: Mapping[str, float]) -> str:
    """What a correction was asked for."""
    content = [damage.model_dump(mode="json"), str(target), damage.weighted(weights)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _neighbours(group: GroupDamage, tier: str) -> list[str]:
    """The tiers of a group that are next to this one by size."""
    order = sorted(group.bytes, key=lambda name: group.bytes[name])
    place = order.index(tier)
    return order[max(0, place - 1) : place] + order[place + 1 : place + 2]
