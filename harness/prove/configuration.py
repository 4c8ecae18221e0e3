"""Defects of config.json and generation_config.json: the weights are good, and what runs is another model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.prove.editing import edit_json, link_files
from harness.prove.entries import Doses, Entry, NotApplicable, always, fails, fixed, refused

CONFIG, GENERATION = "config.json", "generation_config.json"


def edited(source: Path, out: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """The good checkpoint with one changed JSON file."""
    link_files(source, out)
    edit_json(out, name, change)


def positioned(source: Path, out: Path, times: float, change: Callable[[dict[str, Any], float], None]) -> None:
    """The good checkpoint with other rotary positions."""
    edited(source, out, CONFIG, lambda config: change(config, times))


def _times(times: float, _: float) -> str:
    return f"{times:g} times"


def lower_theta(config: dict[str, Any], times: float) -> None:
    """Positions turn so many times as fast, as where a converter leaves rope_theta at its default."""
    inside = config.get("rope_parameters") or config
    if not isinstance(inside.get("rope_theta"), int | float):
        raise NotApplicable("config.json has no rope_theta")
    inside["rope_theta"] = inside["rope_theta"] / times


def stretch_far(config: dict[str, Any], times: float) -> None:
    """Rotations that take more than 256 positions, which tell far ones apart, are slowed down so many times; those of
    less than 128 stay."""
    inside = config.get("rope_parameters") or config
    if not isinstance(inside.get("rope_theta"), int | float) or inside.get("rope_type", "default") != "default":
        raise NotApplicable("config.json has no plain rope_theta")
    changed = {
        "rope_theta": inside["rope_theta"],
        "rope_type": "llama3",
        "factor": float(times),
        "low_freq_factor": 2.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    config["rope_parameters"] = changed


def unused_end(generation: dict[str, Any]) -> None:
    """The id that ends an answer is another token's."""
    generation["eos_token_id"] = 0 if generation.get("eos_token_id") != 0 else 1


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.update(values)


ENTRIES = (
    Entry(
        "rope-theta",
        "configuration",
        "rope_theta a tenth of what it was",
        fails("kl_mean"),
        doses=Doses(partial(positioned, change=lower_theta), fixed(1.2, 1.5, 2, 3, 5, 10, 20), always(10), _times),
        of_control=True,
    ),
    Entry(
        "far-positions",
        "configuration",
        "rotary scaling that changes far positions most",
        fails("accuracy"),
        doses=Doses(partial(positioned, change=stretch_far), fixed(2, 4, 8, 16, 32), always(32), _times),
        of_control=True,
    ),
    Entry(
        "max-new-tokens",
        "configuration",
        "generation_config caps every answer at 32 tokens",
        refused("generation_config.max_new_tokens"),
        partial(edited, name=GENERATION, change=_set(max_new_tokens=32)),
        of_control=True,
    ),
    Entry(
        "sampling-defaults",
        "configuration",
        "generation_config sets another temperature",
        refused("generation_config.temperature"),
        partial(edited, name=GENERATION, change=_set(temperature=0.31)),
        of_control=True,
    ),
    Entry(
        "eos-id",
        "configuration",
        "generation_config ends answers at another token",
        refused("generation_config.eos_token_id"),
        partial(edited, name=GENERATION, change=unused_end),
        of_control=True,
    ),
)
