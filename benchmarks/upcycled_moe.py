"""What a mix of tiers, usage and routed Hessians are worth where experts are real: those of benchmarks.upcycling.

    python -m benchmarks.upcycled_moe MOE --texts F.txt... --out FILE [--bits 1.835]

Experts alone are quantized, untuned, and judged as in benchmarks.kl_panel on the texts' beginnings; calibration is on
the shipped ones. `mixed` is chosen among four tiers at `--bits`, a mean over the experts' weights; `mixed-no-usage`
by the same damages, but that an expert's part of its layer's is its error on all tokens, whatever the router gives it.
`-routed` has the same tiers and `moe_calibrate_all_experts: false`. The result is written after each recipe, and what
it holds already is not made again. SmolLM2's 576 inputs have groups of 64, so that tiers have 0.125 bits more than
where 128 divide: 1.835 is 1.71 there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.kl_panel import load, machine, text_rows
from benchmarks.low_bits import judged
from benchmarks.upcycling import RECORD
from quantizers.experts import RouterCall
from quantizers.mixed.choice import Target, choose_tiers
from quantizers.mixed.correct import settled_recipe
from quantizers.mixed.damage import Damage
from quantizers.mixed.groups import family_of
from quantizers.mixed.measure import measure_tiers
from quantizers.mixed.walk import Variant, Wave
from quantizers.recipe import Calibration, Recipe
from quantizers.writing import write_text

MIX = ("vq1", "vq1.5", "vq2", "vq3")
UNIFORM = ("vq1.5", "vq2")
CALIBRATION = Calibration(samples=32, length=128)
ALL_BUT_EXPERTS = (r"re:(?!.*\.experts\.\d)",)


class Unrouted(RouterCall):
    """As if every token went through every expert, and whole."""

    def of(self, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(len(self.hidden)), torch.ones(len(self.hidden))


class Remembered:
    """A model that is asked the same things again and again."""

    def __init__(self, model: Any) -> None:
        self.lm_head, self.device, self._model = model.lm_head, model.device, model.model
        self._found: dict[bytes, Any] = {}

    def model(self, ids: torch.Tensor) -> Any:
        key = ids.numpy().tobytes()
        if key not in self._found:
            self._found[key] = self._model(ids)
        return self._found[key]


def damages(model: Path, recipe: Recipe, work: Path) -> tuple[Damage, Damage]:
    """The damages of experts with what the router gives them, and without."""
    shares: dict[Variant, list[float]] = {}
    plain = Wave._shares

    def both(wave: Wave, layer: Any, prefix: str, groups: Any, tier: str, give: Any, calls: Any) -> Any:
        unrouted = {
            name: [Unrouted(call.hidden, call.index, call.weights) for call in own] for name, own in calls.items()
        }
        shares.update(plain(wave, layer, prefix, groups, tier, give, unrouted))
        return plain(wave, layer, prefix, groups, tier, give, calls)

    file = work / "shares.json"
    with mock.patch.object(Wave, "_shares", both):
        damage = measure_tiers(model, recipe, work / "damage.json", device="cpu")
    if shares:
        write_text(file, json.dumps([[*variant, own] for variant, own in shares.items()]))
    shares = {(group, tier): own for group, tier, own in json.loads(file.read_text("utf-8"))}
    return damage, without_usage(damage, {variant: sum(own) / len(own) for variant, own in shares.items()})


def without_usage(damage: Damage, shares: Mapping[Variant, float]) -> Damage:
    """The same damage of each layer's experts together, parted by other shares of each."""
    totals: Counter[tuple[str, str, str]] = Counter()
    for group in damage.groups:
        for tier, kinds in group.damage.items():
            totals.update({(family_of(group.name), tier, kind): value for kind, value in kinds.items()})
    groups = [
        group.model_copy(
            update={
                "damage": {
                    tier: {k: totals[family_of(group.name), tier, k] * shares[group.name, tier] for k in kinds}
                    for tier, kinds in group.damage.items()
                }
            }
        )
        for group in damage.groups
    ]
    return damage.model_copy(update={"groups": tuple(groups)})


def on_the_line(bits: float, ends: Sequence[Mapping[str, float]]) -> float:
    """The KL at so many bits on the line of log KL between two results."""
    low, high = ends
    part = (bits - low["bits"]) / (high["bits"] - low["bits"])
    return math.exp((1 - part) * math.log(low["kl_mean"]) + part * math.log(high["kl_mean"]))


def recipes(model: Path, bits: float, work: Path) -> tuple[dict[str, Recipe], dict[str, dict[str, float]]]:
    """What is judged, by name, and what part of the experts' weights each tier has in each mix."""
    base = Recipe(name="base", mix=MIX, tune="none", calibration=CALIBRATION, ignore=ALL_BUT_EXPERTS)
    found = {tier: base.model_copy(update={"name": tier, "mix": (), "tier": tier}) for tier in UNIFORM}
    used: dict[str, dict[str, float]] = {}
    for name, damage in zip(("mixed", "mixed-no-usage"), damages(model, base, work), strict=True):
        tiers = choose_tiers(damage, Target(bits=bits), {})
        found[name] = settled_recipe(damage, tiers, CALIBRATION, work / f"{name}.yaml")
        counts: Counter[str] = Counter()
        for group in damage.groups:
            counts[tiers[group.name]] += group.weights
        used[name] = {tier: round(counts[tier] / counts.total(), 3) for tier in MIX}
    for name in ("mixed", *UNIFORM):
        found[f"{name}-routed"] = found[name].model_copy(update={"moe_calibrate_all_experts": False})
    return found, used


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upcycled_moe", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--positions", type=int, default=384, help="of each text")
    parser.add_argument("--bits", type=float, default=1.835, help="of a mix, on average")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    work = asked.out.with_suffix(".work")
    work.mkdir(exist_ok=True)
    record = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {"results": {}}
    record |= {
        "command": f"python -m benchmarks.upcycled_moe {' '.join(arguments or sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "model": json.loads((asked.model / RECORD).read_text("utf-8")),
    }
    panel = work / "panel.jsonl"
    rows = text_rows(asked.model, asked.texts, asked.positions)
    write_text(panel, "".join(json.dumps({"lang": kind, "ids": ids.tolist()}) + "\n" for kind, ids in rows))

    def keep(results: dict[str, Any]) -> None:
        ends = [results[tier] for tier in UNIFORM if tier in results]
        if len(ends) == 2 and "mixed" in results:
            record["line"] = round(on_the_line(results["mixed"]["bits"], ends), 5)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")

    began = time.monotonic()
    found, record["mixes"] = recipes(asked.model, asked.bits, work)
    record.setdefault("seconds_of_damages", round(time.monotonic() - began))
    reference = Remembered(load(asked.model))
    for name, recipe in found.items():
        if name in record["results"]:
            continue
        result = judged(asked.model, reference, recipe, [panel], "cpu")
        for key in ("other_panels", "recipe", "peak_gib"):
            del result[key]
        record["results"][name] = result
        keep(record["results"])
        print(f"{name}: {result['bits']} bits, {result['kl_mean']} nats, {result['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
