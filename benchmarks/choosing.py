"""How long it takes to choose the tiers of GLM-5.2's 57,600 matrices of experts, from what was measured to the recipe.

    python -m benchmarks.choosing --out benchmarks/results/choosing.json

Damages are made up: log-normal, a quarter for each tier more, for eight kinds of text. What is done with them is what
`quantgate measure-tiers` does once the last layer is through, `quantgate choose-tiers` (a process of its own, all of
it), and what `quantgate quantize` does to know the tier of each Linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kl_panel import machine
from quantizers.mixed.choice import choose_tiers, make_target
from quantizers.mixed.damage import Damage, GroupDamage, by_group, read_damage, write_json
from quantizers.recipe import Recipe, load_recipe
from quantizers.recipes import RECIPES
from quantizers.schemes import TIERS

RECIPE: dict[str, Any] = RECIPES["glm-5.2-mixed"]
LAYERS, DENSE, EXPERTS, HIDDEN, WIDTH = 78, 3, 256, 6144, 2048
PARTS = {"gate_proj+up_proj": (WIDTH, HIDDEN), "down_proj": (HIDDEN, WIDTH)}
"""Groups of an expert, and the [O, I] of each of their Linears."""
SETTLED = 6
"""Groups of a layer whose tier the recipe names: attention's and the shared expert's."""


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choosing", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", type=float, default=1.71)
    parser.add_argument("--layers", type=int, default=LAYERS, help="to try it with fewer")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), asked.bits, asked.layers)
    record = {
        "command": f"python -m benchmarks.choosing {' '.join(arguments or sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "results": found,
    }
    asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))
    return 0


def measured(folder: Path, bits: float, layers: int) -> dict[str, Any]:
    """Seconds of each step, and the sizes of what it makes in `folder`."""
    kinds = {source["shipped"]: 1 for source in RECIPE["calibration"]["sources"]}
    groups = [*_groups(layers)]
    generator = np.random.default_rng(0)
    variants = {
        (group["name"], tier): (
            generator.lognormal(-9, 2) * 4.0**-place * generator.uniform(0.5, 2, len(kinds))
        ).tolist()
        for group in groups
        for place, tier in enumerate(group["bytes"])
    }
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    start, used = time.monotonic(), _cpu()

    def ended(step: str) -> None:
        nonlocal start, used
        seconds[step], cpu[step] = round(time.monotonic() - start, 2), round(_cpu() - used, 2)
        start, used = time.monotonic(), _cpu()

    found = by_group(variants, [*kinds])
    made = tuple(GroupDamage(**group, damage=found[group["name"]]) for group in groups)
    damage = Damage(
        model="-", calibration="-", recipe=RECIPE, kinds=kinds, length=512, other_bytes=40_000_000_000,
        tiers=dict.fromkeys(RECIPE["mix"], 0.0), groups=made,
    )  # fmt: skip
    file, recipe = folder / "damage.json", folder / "recipe.yaml"
    write_json(file, damage.model_dump(mode="json"))
    ended("write damages")
    command = [sys.executable, "-m", "harness", "choose-tiers", str(file), "--bits", str(bits), "--out", str(recipe)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    ended("choose-tiers")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    damage = read_damage(file)
    ended("of it: read damages")
    mix = choose_tiers(damage, make_target(bits, None), {})
    ended("of it: choose")
    over = _over_the_bound(damage, mix, make_target(bits, None).budget(damage))
    ended("bound")
    settled = load_recipe(str(recipe))
    ended("read recipe")
    linears = [linear for group in groups for linear in group["linears"] if ".experts." in linear]
    tiers = [settled.tier_of(linear) for linear in linears]
    ended("tier of each Linear")
    return {
        "linears": len(linears), "groups": len(groups), "said": said, "seconds": seconds, "cpu_seconds": cpu,
        "choose_tiers_peak_mib": peak, "over_the_bound": over,
        "damages_mb": round(file.stat().st_size / 1e6, 1), "recipe_lines": recipe.read_text("utf-8").count("\n"),
        "tiers": {tier: tiers.count(tier) for tier in RECIPE["mix"]},
    }  # fmt: skip


def _over_the_bound(damage: Damage, mix: dict[str, str], budget: int) -> float:
    """By what share the sum of damages is above what no choice of this size can have (the dual of the knapsack)."""
    counted = damage.weighted({})
    costs = [group.cost(counted) for group in damage.groups]
    width = max(map(len, costs))
    value, size = np.full((len(costs), width), np.inf), np.zeros((len(costs), width))
    for row, (own, group) in enumerate(zip(costs, damage.groups, strict=True)):
        value[row, : len(own)], size[row, : len(own)] = [*own.values()], [group.bytes[tier] for tier in own]
    low, high = 0.0, 1.0
    for _ in range(200):  # the bound is concave in the price, and what is over the budget is its slope
        price = (low + high) / 2
        over = size[np.arange(len(costs)), (value + price * size).argmin(1)].sum() > budget
        low, high = (price, high) if over else (low, price)
    bound = float((value + high * size).min(1).sum() - high * budget)
    return (sum(own[mix[group.name]] for own, group in zip(costs, damage.groups, strict=True)) - bound) / bound


def _cpu() -> float:
    """Processor seconds of this process and of those that it waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _groups(layers: int) -> list[dict[str, Any]]:
    """All groups but for their damages."""
    schemes = {
        tier: TIERS[tier]({"in": HIDDEN, "out": WIDTH}, None, Recipe(name="r").damping_of(tier))
        for tier in RECIPE["mix"]
    }
    found: list[dict[str, Any]] = []
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for number in range(SETTLED):
            name = f"{prefix}.self_attn.part_{number}"
            found.append({"name": name, "layer": layer, "linears": (name,), "weights": 10**7, "bytes": {"int8": 10**7}})
        for expert in range(EXPERTS if layer >= min(DENSE, layers - 1) else 0):
            for part, (rows, columns) in PARTS.items():
                linears = tuple(f"{prefix}.mlp.experts.{expert}.{own}" for own in part.split("+"))
                sizes = {tier: len(linears) * scheme.nbytes(rows, columns) for tier, scheme in schemes.items()}
                found.append(
                    {
                        "name": f"{prefix}.mlp.experts.{expert}.{part}",
                        "layer": layer,
                        "linears": linears,
                        "weights": len(linears) * rows * columns,
                        "bytes": sizes,
                    }
                )
    return found


if __name__ == "__main__":
    sys.exit(main())
