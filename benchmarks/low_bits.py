"""KL against bits: one model in many tiers, judged on fixed panels of token ids.

    python -m benchmarks.low_bits MODEL NAME=TIER[,SETTING=VALUE...]... --calibration IDS.jsonl --panel IDS.jsonl...
        --out FILE [--device cuda]

Each spec is a recipe: `vq-2bit=vq2` is tuned by blocks with two-sided Hessians, `a=int4,tune=none,two_sided=false` is
not; `mixed=RECIPE.yaml` takes a file. A row of the calibration is a sequence. The result is written after each recipe,
and what it holds already is not made again. KL in nats as in benchmarks.kl_panel, float32, whole vocabulary.
"""

from __future__ import annotations

import argparse
import json
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
from quantizers.modeling import build
from quantizers.pipeline import quantize
from quantizers.plan import make_plan
from quantizers.recipe import Recipe, load_recipe


def recipe_of(spec: str) -> Recipe:
    """The recipe of NAME=TIER,... or NAME=FILE.yaml."""
    name, _, rest = spec.partition("=")
    tier, *settings = rest.split(",")
    if tier.endswith((".yaml", ".yml")):
        return load_recipe(tier).model_copy(update={"name": name})
    values = {"tune": "blocks", "two_sided": True} | dict(setting.split("=", 1) for setting in settings)
    return Recipe.model_validate({"name": name, "tier": tier, **values})


def bits_of(model: Path, recipe: Recipe) -> float:
    """Bits of a quantized weight on average, scales included."""
    checkpoint = open_checkpoint(model)
    plan = make_plan(checkpoint, build(checkpoint), recipe)
    shapes = {name: checkpoint.tensors[f"{name}.weight"].shape for name in plan.schemes}
    held = sum(plan.schemes[name].nbytes(*shape) for name, shape in shapes.items())
    return 8 * held / sum(rows * columns for rows, columns in shapes.values())


def judged(
    model: Path, reference: Any, recipe: Recipe, tokens: torch.Tensor, panels: list[Path], device: str
) -> dict[str, Any]:
    """Quantize by `recipe` and judge what a server would compute with."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        made = quantize(model, recipe, Path(folder) / "made", tokens=tokens, device=device)
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
        "recipe": recipe.model_dump(mode="json", exclude={"calibration", "ignore"}, exclude_defaults=True),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command; see the docstring of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.low_bits", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--panel", type=Path, nargs="+", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which none is begun")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    tokens = torch.tensor([json.loads(line)["ids"] for line in asked.calibration.read_text("utf-8").splitlines()])
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
        recipe = recipe_of(spec)
        if recipe.name in record["results"] or time.monotonic() - began > asked.until:
            continue
        try:
            found = judged(asked.model, reference, recipe, tokens, asked.panel, asked.device)
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
