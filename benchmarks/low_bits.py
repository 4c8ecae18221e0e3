"""KL against bits: one model in many tiers, judged on fixed panels of token ids.

    python -m benchmarks.low_bits MODEL NAME=TIER[,SETTING=VALUE...]... --calibration IDS.jsonl --panel IDS.jsonl...
        --out FILE [--device cuda]

Each spec is a recipe: `vq-2bit=vq2` is tuned by blocks with two-sided Hessians, `a=int4,tune=none,two_sided=false` is
not; `mine=RECIPE.yaml` takes a file. With `--bits`, `mixed=mix,mix=vq1+vq2` chooses a tier for each group of Linears,
and `mixed-random=mix,mix=vq1+vq2,choice=random` draws one of the same size. A row of the calibration is a sequence. The
result is written after each recipe, and what it holds already is not made again. KL in nats as in benchmarks.kl_panel,
float32, whole vocabulary.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.kl_panel import figures, load, machine, panel_rows
from benchmarks.memory import peak_memory
from quantizers.checkpoint import open_checkpoint
from quantizers.mixed.choice import make_target, recipe_text
from quantizers.mixed.correct import correct, notes
from quantizers.mixed.damage import Damage
from quantizers.mixed.measure import measure_tiers
from quantizers.modeling import build
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Calibration, Recipe, load_recipe


def recipe_of(spec: str, calibration: Calibration) -> Recipe:
    """The recipe of NAME=TIER,... or NAME=FILE.yaml."""
    name, _, rest = spec.partition("=")
    tier, *settings = rest.split(",")
    if tier.endswith((".yaml", ".yml")):
        return load_recipe(tier).model_copy(update={"name": name, "calibration": calibration})
    values: dict[str, Any] = {"name": name, "calibration": calibration, "tune": "blocks", "two_sided": True}
    values |= dict(setting.split("=", 1) for setting in settings if not setting.startswith("choice="))
    values |= {"mix": values["mix"].split("+")} if tier == "mix" else {"tier": tier}
    return Recipe.model_validate(values)


def settled(
    model: Path, recipe: Recipe, bits: float | None, drawn: bool, work: Path, device: str
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with every tier named, and what was measured of its mix; `drawn`: a mix of the same size by chance."""
    if not recipe.mix:
        return recipe, {}
    target, text = make_target(bits, None), work / f"{recipe.name}.yaml"
    damage = measure_tiers(model, recipe, work / "damage.json", device=device)
    if drawn:
        text.write_text(recipe_text(damage, drawn_mix(damage, target.budget(damage)), {}, ["Drawn."]), "utf-8")
        return load_recipe(text).model_copy(update={"name": recipe.name}), {}
    found = correct(model, recipe, damage, target, {}, work / f"{recipe.name}.correction.json", device=device)
    choices = {"first": found.first, "second": found.second}
    kept = choices[found.kept] or found.first
    text.write_text(recipe_text(damage, kept.tiers, {}, notes(found)), "utf-8")
    kls = {name: choice.kl for name, choice in choices.items() if choice}
    return load_recipe(text).model_copy(update={"name": recipe.name}), {"calibration_kl": kls, "kept": found.kept}


def drawn_mix(damage: Damage, budget: int, seed: int = 0) -> dict[str, str]:
    """A tier by chance for each group, then single steps by chance until 99.5 % of the budget are used."""
    generator, groups = random.Random(seed), {group.name: group for group in damage.groups}
    order = {name: sorted(group.bytes, key=lambda tier: group.bytes[tier]) for name, group in groups.items()}
    mix = {name: generator.choice(tiers) for name, tiers in order.items()}

    def size() -> int:
        return sum(groups[name].bytes[tier] for name, tier in mix.items())

    while not 0.995 * budget <= size() <= budget:
        name = generator.choice(list(mix))
        place = order[name].index(mix[name]) + (1 if size() < budget else -1)
        mix[name] = order[name][min(max(place, 0), len(order[name]) - 1)]
    return mix


def bits_of(model: Path, recipe: Recipe) -> float:
    """Bits of a quantized weight on average, scales included."""
    checkpoint = open_checkpoint(model)
    plan = make_plan(checkpoint, build(checkpoint), recipe)
    shapes = {name: checkpoint.tensors[f"{name}.weight"].shape for name in plan.schemes}
    held = sum(plan.schemes[name].nbytes(*shape) for name, shape in shapes.items())
    return 8 * held / sum(rows * columns for rows, columns in shapes.values())


def judged(model: Path, reference: Any, recipe: Recipe, panels: list[Path], device: str) -> dict[str, Any]:
    """Quantize by `recipe`, whose tiers are all named, and judge what a server would compute with."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        made = quantize(model, recipe, Path(folder) / "made", device=device)
        seconds = time.monotonic() - start
        peak = torch.cuda.max_memory_allocated() if device != "cpu" else peak_memory() * 2**20
        candidate = load(made, device)
        found = [figures(reference, candidate, panel_rows(panel)) for panel in panels]
    return {
        "bits": round(bits_of(model, recipe), 4),
        **found[0],
        "other_panels": found[1:],
        "seconds": round(seconds, 1),
        "peak_gib": round(peak / 2**30, 2),
        "recipe": recipe.model_dump(mode="json", exclude={"calibration", "ignore"}, exclude_none=True),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.low_bits", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--panel", type=Path, nargs="+", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bits", type=float, help="of a mix, on average")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which none is begun")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    rows = [json.loads(line)["ids"] for line in asked.calibration.read_text("utf-8").splitlines()]
    calibration = Calibration(file=asked.calibration, samples=len(rows), length=len(rows[0]))
    record = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {"results": {}}
    record |= {
        "command": f"python -m benchmarks.low_bits {' '.join(arguments or sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "reference": asked.model.name,
    }
    reference = load(asked.model, asked.device)
    for spec in asked.specs:
        recipe = recipe_of(spec, calibration)
        if recipe.name in record["results"] or time.monotonic() - began > asked.until:
            continue
        try:
            drawn = spec.endswith("choice=random")
            recipe, mixed = settled(asked.model, recipe, asked.bits, drawn, asked.out.parent, asked.device)
            found = judged(asked.model, reference, recipe, asked.panel, asked.device) | mixed
        except Exception as error:  # the others are still worth their time
            print(f"{recipe.name}: FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        record["results"][recipe.name] = found
        asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        others = [panel["kl_mean"] for panel in found["other_panels"]]
        print(
            f"{recipe.name}: {found['bits']} bits, {found['kl_mean']} {others} nats, {found['seconds']} s", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
