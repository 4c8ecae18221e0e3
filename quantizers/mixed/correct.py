"""The third step of a mix: what the choice really costs, and one correction by what its neighbours cost inside of it.

KLs do not add up. The model is quantized as chosen, tuned as the recipe says, and the KL of that is measured; inside of
it each group alone is given its own tier anew and those next to it, untuned all three, and a second choice is made by
what these differ. It is finished and measured too, and the one whose KL is lower is kept. What untuned mixes cost
says nothing: of five the best one tuned was the worst but one untuned (docs/mixed-bits.md).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from quantizers.checkpoint import Checkpoint, open_checkpoint
from quantizers.dequantize import dequantize
from quantizers.errors import QuantizeError
from quantizers.layer import Progress
from quantizers.mixed.bench import open_bench
from quantizers.mixed.choice import Target, choose_tiers, recipe_text
from quantizers.mixed.damage import Damage, GroupDamage, Kinds, average, by_group, by_kind, read_model, write_json
from quantizers.mixed.knapsack import choose
from quantizers.mixed.measure import require_same
from quantizers.mixed.walk import Found
from quantizers.mixed.waves import in_waves
from quantizers.pipeline import quantize
from quantizers.recipe import Calibration, Recipe, load_recipe
from quantizers.work_folder import open_work
from quantizers.writing import write_text


class Choice(BaseModel):
    """A mix and what was measured of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tiers: dict[str, str]
    """By the groups' names."""
    kl: Kinds
    """Mean KL of the finished mix in nats a token, by kind of text."""


class Correction(BaseModel):
    """What correcting a choice found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["quantgate correction 2"] = "quantgate correction 2"
    asked: str
    """A sha256 over the damages, the target and the weights of the kinds."""
    target: str
    weights: dict[str, float]
    """What each kind of text counted."""
    first: Choice
    moves: dict[str, dict[str, Kinds]]
    """KL of the finished first choice where one group (by name) is quantized anew, by tier: its own and those next."""
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
    # A finished mix, and the same in plain weights; less what an interrupted call has of them.
    sizes = damage.nbytes(mix) + damage.other_bytes + sum(2 * group.weights for group in damage.groups)
    there = sum(file.stat().st_size for file in out.with_name(f"{out.name}.partial").rglob("*") if file.is_file())
    needed = max(0, 8 * bench.tokens.numel() * width + sizes - there)
    with open_work(out, {"choice": asked}, needed) as work:

        def measured(name: str, tiers: dict[str, str], sought: Mapping[str, list[str]]) -> Found:
            settled = settled_recipe(damage, tiers, recipe.calibration, work.folder / f"{name}.yaml")
            (findings := work.folder / f"{name}.waves").mkdir(exist_ok=True)
            finished = partial(_finished, model, settled, work.folder / name, report, device)
            found = in_waves(bench, finished, sought, findings)
            shutil.rmtree(_plain(work.folder / name), ignore_errors=True)  # as large as the original
            return found

        found = measured("first", mix, {group.name: _near(group, mix[group.name]) for group in damage.groups})
        first = Choice(tiers=mix, kl=by_kind(found.base, bench.kinds))
        moves = by_group(found.variants, bench.kinds)
        moves = {group.name: moves[group.name] for group in damage.groups}
        tiers = _second(damage, mix, moves, counted, target.budget(damage))
        second = None
        if tiers != mix:
            second = Choice(tiers=tiers, kl=by_kind(measured("second", tiers, {}).base, bench.kinds))
        better = second is not None and average(second.kl, counted) < average(first.kl, counted)
        correction = Correction(
            asked=asked,
            target=str(target),
            weights=counted,
            first=first,
            moves=moves,
            second=second,
            kept="second" if better else "first",
        )
        write_json(out, correction.model_dump(mode="json"))
        shutil.rmtree(work.folder, ignore_errors=True)
    return correction


def settled_recipe(damage: Damage, tiers: Mapping[str, str], calibration: Calibration, file: Path) -> Recipe:
    """The recipe of a mix as a person would get it in `file`, which is written, with a calibration whose traces are."""
    write_text(file, recipe_text(damage, tiers, {}, []))
    return load_recipe(str(file)).model_copy(update={"calibration": calibration})


def _finished(model: Path, recipe: Recipe, out: Path, report: Progress, device: str | None) -> Checkpoint:
    """What a server would compute with, in plain weights; `out` is used if it is there."""
    plain = _plain(out)
    if not plain.exists():
        if not out.exists():
            quantize(model, recipe, out, progress=report, device=device)
        dequantize(out, plain)
        shutil.rmtree(out)
    return open_checkpoint(plain)


def _plain(out: Path) -> Path:
    """Where the plain weights of a finished mix lie."""
    return out.with_name(f"{out.name}.plain")


def notes(correction: Correction) -> list[str]:
    """What a recipe's comments say of it."""

    def words(choice: Choice) -> str:
        kinds = ", ".join(f"{kind} {kl:.4g}" for kind, kl in choice.kl.items())
        return f"{average(choice.kl, correction.weights):.4g} nats ({kinds})"

    found = [f"Chosen for {correction.target}. Measured KL of the finished mix: {words(correction.first)}."]
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
    mix: Mapping[str, str],
    moves: Mapping[str, Mapping[str, Kinds]],
    weights: Mapping[str, float],
    budget: int,
) -> dict[str, str]:
    """The choice among what was measured."""
    values = [{tier: average(kl, weights) for tier, kl in moves[group.name].items()} for group in damage.groups]
    sizes = [{tier: group.bytes[tier] for tier in own} for group, own in zip(damage.groups, values, strict=True)]
    return dict(zip(mix, choose(values, sizes, budget), strict=True))


def digest(damage: Damage, target: Target, weights: Mapping[str, float]) -> str:
    """What a correction was asked for."""
    content = [damage.model_dump(mode="json"), str(target), damage.weighted(weights)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _near(group: GroupDamage, tier: str) -> list[str]:
    """A tier of a group and those that are next to it by size."""
    order = sorted(group.bytes, key=lambda name: group.bytes[name])
    place = order.index(tier)
    return order[max(0, place - 1) : place + 2]
