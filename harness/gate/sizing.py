"""`quantgate plan`: a model planned from its config.json, and what is printed of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from harness.gate.mixing import Size
from harness.gate.recipes import bad_input

if TYPE_CHECKING:
    from quantizers.sizing.size_plan import SizePlan

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def plan_sizes(model: Path, size: Size, recipe: str | None, rest: int | None, context: int | None) -> SizePlan:
    """Plan `model`, a folder with a config.json or the file itself. Raises BadInput where it cannot be planned."""
    with bad_input():
        from quantizers.sizing.size_plan import plan_model

        return plan_model(model, size.bits, size.nbytes, recipe, rest, context)


def part_table(plan: SizePlan) -> Table:
    """A row for each part of the model, and their sum."""
    table = Table("part", "parameters", "share", "bf16", "bits", "size", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(part.parameters for part in plan.sizes.parts)
    for part in plan.sizes.parts:
        share = f"{100 * part.parameters / total:.1f} %"
        bf16 = in_bytes(2 * part.parameters)
        table.add_row(part.part, count(part.parameters), share, bf16, f"{part.bits:.3f}", in_bytes(part.nbytes))
    nbytes = plan.sizes.nbytes()
    table.add_row("checkpoint", count(total), "", in_bytes(2 * total), f"{8 * nbytes / total:.3f}", in_bytes(nbytes))
    return table


def card_table(plan: SizePlan) -> Table:
    """A row for each kind of card: how many are needed, and the longest context that some hold."""
    counts = list(plan.fits[0].contexts)
    draft = ["with draft"] if plan.model.draft_layers else []
    table = Table("GPU", "needed", *draft, *(f"context on {n}" for n in counts), box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for fit in plan.fits:
        needed = [fit.smallest, *([fit.with_draft] if draft else [])]
        contexts = (f"{tokens:,}" if tokens else "–" for tokens in fit.contexts.values())
        table.add_row(fit.card, *(str(n or "more than 8") for n in needed), *contexts)
    return table


def plan_lines(plan: SizePlan) -> Iterator[str]:
    """What stands above the tables: the whole, and what making it takes; rich markup is escaped."""
    if plan.model.quantized_by is not None:
        yield escape(f"quantized already ({plan.model.quantized_by}): what follows is of its original in 16 bits")
    original, whole = plan.original_bytes, plan.sizes.nbytes()
    draft = f" + {in_bytes(plan.draft_bytes)} of draft layers" if plan.draft_bytes else ""
    yield escape(
        f"{plan.model.architecture}: {count(plan.model.parameters())} parameters, {in_bytes(original)} in bf16{draft}"
    )
    tiers = ", ".join(f"{count(n)} {tier}" for tier, n in sorted(plan.sizes.tiers.items()))
    yield f"becomes {in_bytes(whole)} ({whole / 1024**3:,.1f} GiB), {plan.sizes.bits:.4g} bits a weight: {tiers}"
    made = plan.effort
    time = f"{hours(made.seconds)} (at the quickest settings {hours(made.floor_seconds)})"
    if made.mix_seconds is not None:
        time += f", before that {hours(sum(made.mix_seconds))} to choose its tiers"
    room = f"at least {in_bytes(made.memory_bytes)} of memory, {in_bytes(made.disk_bytes)} of disk"
    yield f"to make it, on one H200: {time}, {room}"
    yield f"to serve it: {in_bytes(plan.cache_bytes)} of cache for one sequence of {plan.context:,} tokens"


def to_json(plan: SizePlan) -> str:
    """The plan as one JSON object; sizes are bytes, times seconds."""
    sizes = plan.sizes
    content: dict[str, Any] = {
        "architecture": plan.model.architecture,
        "parameters": plan.model.parameters(),
        "draft_layers": plan.model.draft_layers,
        "bf16_bytes": plan.original_bytes,
        "draft_bytes": plan.draft_bytes,
        "bytes": sizes.nbytes(),
        "bits": sizes.bits,
        "tiers": sizes.tiers,
        "parts": [{"part": p.part, "parameters": p.parameters, "bits": p.bits, "bytes": p.nbytes} for p in sizes.parts],
        "seconds": plan.effort.seconds,
        "floor_seconds": plan.effort.floor_seconds,
        "mix_seconds": plan.effort.mix_seconds,
        "memory_bytes": plan.effort.memory_bytes,
        "disk_bytes": plan.effort.disk_bytes,
        "context": plan.context,
        "cache_bytes": plan.cache_bytes,
        "cards": [
            {"card": f.card, "needed": f.smallest, "needed_with_draft": f.with_draft, "contexts": f.contexts}
            for f in plan.fits
        ],
        "notes": plan.notes,
    }
    return json.dumps(content, indent=2)


def in_bytes(number: float) -> str:
    """1.49 TB."""
    return next((f"{number / unit:.3g} {name}" for unit, name in UNITS if number >= 0.9995 * unit), f"{number:.0f} B")


def count(number: int) -> str:
    """743.9 B parameters."""
    scales = ((1e9, "B"), (1e6, "M"))
    return next((f"{number / unit:.1f} {name}" for unit, name in scales if number >= 0.9995 * unit), f"{number:,}")


def hours(seconds: float | None) -> str:
    """About how long."""
    if seconds is None:
        return "never measured"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:,.0f} h"
