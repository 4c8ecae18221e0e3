"""Mixed bits: what tiers cost is measured, and a recipe is chosen for a size; both are files for people too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contract.errors import BadInput
from harness.contract.policy import Policy
from harness.contract.whole_files import write_whole
from harness.gate.recipes import bad_input, make_parent, shown, with_traces
from harness.runs.progress import Reporter

if TYPE_CHECKING:
    from quantizers.mixed.choice import Target
    from quantizers.mixed.damage import Damage
    from quantizers.recipe import Recipe


@dataclass(frozen=True)
class Size:
    """How large a mix may be, as the command line says it."""

    bits: float | None = None
    nbytes: str | None = None

    def words(self) -> list[str]:
        """What names of things say of it; nothing where nothing is asked for."""
        bits = [] if self.bits is None else [f"{self.bits:g}bit"]
        return bits + ([] if self.nbytes is None else [self.nbytes])

    def target(self) -> Target:
        """Raises BadInput where it is no size."""
        from quantizers.mixed.choice import make_target

        with bad_input():
            return make_target(self.bits, self.nbytes)


NO_SIZE = Size()


def require_fitting(recipe: Recipe, size: Size) -> None:
    """Raises BadInput where a recipe leaves tiers open and no size is given, or the other way round."""
    if recipe.mix:
        size.target()
    elif size.words():
        raise BadInput(f"recipe {recipe.name} leaves no tier open: --bits and --bytes are for recipes such as mixed")


def measure_model(
    model: Path,
    recipe_name: str,
    tiers: Sequence[str] | None,
    out: Path,
    sequences: int,
    reporter: Reporter,
    policy: Policy | None,
) -> None:
    """Write the damages of `tiers` (None: those that the recipe leaves open) to `out`.

    Raises:
        BadInput: the model, the recipe, a tier or `out` cannot be used.
    """
    from pydantic import ValidationError

    from quantizers.recipe import Recipe, first_fault, load_recipe

    with bad_input():
        recipe = load_recipe(recipe_name)
    if tiers is not None:
        try:
            recipe = Recipe.model_validate(recipe.model_dump() | {"mix": tiers})
        except ValidationError as error:
            raise BadInput(f"--tiers: {first_fault(error)}") from None
    make_parent(out)
    _measured(model, with_traces(recipe, model, policy, reporter), out, reporter, sequences)


def choose_recipe(
    damage_file: Path,
    size: Size,
    weights: Sequence[str],
    out: Path,
    model: Path | None,
    reporter: Reporter,
    policy: Policy | None,
) -> str:
    """Choose by a file of damages, correct the choice on `model` where one is given, and write the recipe `out`.

    Args:
        weights: "kind=number" for each kind of text that does not count 1.

    Returns: what was chosen, in one line.

    Raises:
        BadInput: a file that cannot be used, a size that no choice meets, `out` exists.
    """
    from quantizers.mixed.choice import choose_tiers, recipe_text, summary
    from quantizers.mixed.damage import read_damage

    target, counted = size.target(), _weights(weights)
    if out.suffix not in (".yaml", ".yml") or out.is_dir():
        raise BadInput(f"--out {out}: recipes are files that end in .yaml")
    if out.exists():
        raise BadInput(f"{out} exists already: remove it, or choose another file")
    with bad_input():
        damage = read_damage(damage_file)
    make_parent(out)
    if model is not None:
        return _corrected(model, damage, None, target, counted, out, reporter, policy)
    with bad_input():
        mix = choose_tiers(damage, target, counted)
    write_whole(out, recipe_text(damage, mix, counted, [f"Chosen for {target}. The KL of the whole was not measured."]))
    return summary(damage, mix)


def mixed_recipe(
    model: Path, recipe: Recipe, size: Size, out: Path, reporter: Reporter, device: str | None = None
) -> Recipe:
    """The recipe that a recipe with open tiers becomes for a size; its files are kept beside `out` and used again.

    OUT.damage.json, OUT.recipe.correction.json and OUT.recipe.yaml, which may be edited.

    Raises:
        BadInput: a file there is of something else, or no choice meets the size.
    """
    from quantizers.recipe import load_recipe

    target, chosen = size.target(), out.with_name(f"{out.name}.recipe.yaml")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists already: choose another folder or remove it")
    if chosen.exists() and not _beside(chosen).exists():
        raise BadInput(f"{chosen} exists, but not what it was chosen by: quantize with --recipe {chosen}, or remove it")
    make_parent(out)
    damage = _measured(model, recipe, out.with_name(f"{out.name}.damage.json"), reporter, None, target, device)
    reporter.say(_corrected(model, damage, recipe, target, {}, chosen, reporter, None, device))
    with bad_input():
        return load_recipe(chosen)


def _measured(
    model: Path,
    recipe: Recipe,
    out: Path,
    reporter: Reporter,
    sequences: int | None = None,
    target: Target | None = None,
    device: str | None = None,
) -> Damage:
    from quantizers.mixed.bench import SEQUENCES
    from quantizers.mixed.measure import measure_tiers

    with shown(reporter, "measure tiers") as show:
        return measure_tiers(
            model, recipe, out, sequences=sequences or SEQUENCES, target=target, progress=show, device=device
        )


def _corrected(
    model: Path,
    damage: Damage,
    recipe: Recipe | None,
    target: Target,
    weights: dict[str, float],
    out: Path,
    reporter: Reporter,
    policy: Policy | None,
    device: str | None = None,
) -> str:
    """Choose, correct, and write the recipe unless it is there; `recipe` (the damages') with its traces written."""
    from quantizers.mixed.choice import recipe_text, summary
    from quantizers.mixed.correct import correct, notes
    from quantizers.recipe import Recipe

    recipe = recipe or with_traces(Recipe.model_validate(damage.recipe), model, policy, reporter)
    with shown(reporter, "correct the choice") as show:
        correction = correct(model, recipe, damage, target, weights, _beside(out), progress=show, device=device)
    if out.exists():
        return f"{out} is used as it is"
    write_whole(out, recipe_text(damage, correction.mix, weights, notes(correction)))
    return f"{summary(damage, correction.mix)}; {' '.join(notes(correction))}"


def _beside(recipe: Path) -> Path:
    """Where a recipe's correction is kept."""
    return recipe.with_suffix(".correction.json")


def _weights(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for each in given:
        kind, _, number = each.rpartition("=")
        try:
            found[kind] = float(number)
        except ValueError:
            raise BadInput(f"--weight {each}: write a kind of text and a number, such as ja=2") from None
    return found
