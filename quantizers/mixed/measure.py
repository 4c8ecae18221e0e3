"""The first step of a mix: the KL of the whole model when one group alone has a tier, for every group and tier."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantizers.errors import QuantizeError
from quantizers.layer import Progress
from quantizers.mixed.bench import SEQUENCES, Bench, open_bench
from quantizers.mixed.choice import Target
from quantizers.mixed.damage import Damage, GroupDamage, Kinds, by_group, read_damage, write_json
from quantizers.mixed.groups import Group
from quantizers.mixed.waves import in_waves
from quantizers.recipe import KEPT, Recipe
from quantizers.work_folder import open_work


def measure_tiers(
    model: Path,
    recipe: Recipe,
    out: Path,
    *,
    sequences: int = SEQUENCES,
    target: Target | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> Damage:
    """Write what each tier of the recipe's `mix` does to the model folder `model` into the JSON file `out`.

    `out` is used if it is of the same model and calibration and a recipe with the same groups, edited or not: tuning
    plays no part, and what is returned has this recipe. A `target` that no choice of these tiers can meet is named
    before anything is measured. Work goes on in `out`.partial, in waves: run the same call again after an interruption.
    `progress(stage, done, total)` is called with stage "layer" after each wave, and within it with "damage", "tiers" or
    "head".

    Raises:
        QuantizeError: the model or the recipe cannot be used, `out` is of another model, recipe or calibration, the
            target is out of reach.
    """
    report = progress or (lambda stage, done, total: None)
    bench = open_bench(model, recipe, sequences, report, device)
    if target is not None:
        zeros = {group.name: {tier: dict.fromkeys(bench.kinds, 0.0) for tier in group.nbytes} for group in bench.groups}
        target.budget(_content(bench, recipe, zeros))
    if out.is_file():
        damage = read_damage(out)
        require_same(bench, damage, str(out))
        return damage.model_copy(update={"recipe": portable(recipe)})
    variants = {group.name: [tier for tier in group.nbytes if tier != KEPT] for group in bench.groups}
    identity = {"model": bench.model, "recipe": recipe.digest(), "calibration": bench.calibration}
    width = int(bench.job.architecture.model.get_input_embeddings().weight.shape[1])
    with open_work(out, identity, 8 * bench.tokens.numel() * width) as work:
        found = in_waves(bench, None, variants, work.folder)
        measured = by_group(found.variants, bench.kinds)
        damage = _content(bench, recipe, {group.name: _damage(group, measured, bench.kinds) for group in bench.groups})
        write_json(out, damage.model_dump(mode="json"))
        shutil.rmtree(work.folder, ignore_errors=True)
    return damage


def _content(bench: Bench, recipe: Recipe, measured: Mapping[str, dict[str, Kinds]]) -> Damage:
    """The file for what was `measured`, by group and tier."""
    return Damage(
        model=bench.model,
        calibration=bench.calibration,
        recipe=portable(recipe),
        kinds=dict(Counter(bench.kinds)),
        length=bench.tokens.shape[1],
        other_bytes=bench.other_bytes,
        tiers=_bits(bench.groups),
        groups=tuple(
            GroupDamage(
                name=group.name,
                layer=group.layer,
                linears=group.linears,
                weights=group.weights,
                bytes=group.nbytes,
                damage=measured[group.name],
            )
            for group in bench.groups
        ),
    )


def _bits(groups: list[Group]) -> dict[str, float]:
    users = {
        tier: [g for g in groups if tier in g.nbytes] for tier in dict.fromkeys(t for g in groups for t in g.nbytes)
    }
    return {t: round(8 * sum(g.nbytes[t] for g in own) / sum(g.weights for g in own), 4) for t, own in users.items()}


def _damage(group: Group, measured: Mapping[str, dict[str, Kinds]], kinds: list[str]) -> dict[str, Kinds]:
    zeros = dict.fromkeys(kinds, 0.0)
    return {tier: measured[group.name][tier] if tier != KEPT else zeros for tier in group.nbytes}


def require_same(bench: Bench, damage: Damage, file: str = "the damage file") -> None:
    """Raises QuantizeError if the damage is of another model, of other texts, or of a recipe with other groups."""
    ours = {group.name: group for group in bench.groups}
    # Tiers may have been struck from it by hand.
    groups = all(_fits(group, ours.get(group.name)) for group in damage.groups)
    routed = not damage.recipe.get("moe_calibrate_all_experts", True)
    same = {
        "model": damage.model == bench.model,
        "calibration": damage.calibration == bench.calibration and damage.kinds == Counter(bench.kinds),
        "recipe": groups
        and len(ours) == len(damage.groups)
        and damage.recipe.get("damping") == bench.damping
        and routed != bench.job.recipe.moe_calibrate_all_experts,
    }
    if not all(same.values()):
        other = " and ".join(what for what, fits in same.items() if not fits)
        raise QuantizeError(f"{file} is of another {other}: remove it, or choose another file")


def _fits(damage: GroupDamage, group: Group | None) -> bool:
    if group is None or (damage.layer, damage.linears, damage.weights) != (group.layer, group.linears, group.weights):
        return False
    return damage.bytes.items() <= group.nbytes.items()


def portable(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings as they are written to files: what is default is left out, paths are absolute."""
    content: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    calibration = content.get("calibration", {})
    for place in (calibration, *calibration.get("sources", ())):
        if place.get("traces"):
            place.pop("file", None)  # the file is made for them, or found again
        elif place.get("file"):
            place["file"] = str(Path(place["file"]).resolve())
    return content
