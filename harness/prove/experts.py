"""Defects of a mixture of experts: routers, the shared expert, and experts whose scales are another's."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import torch

from harness.prove.editing import tensor_files
from harness.prove.entries import HARMLESS, Doses, Entry, NotApplicable, always, fails
from harness.prove.rounding import LAYER, ROUTER, is_linear, ladder, rescaled, rounded
from harness.prove.weights import COARSER, bits_in_words

EXPERT = re.compile(r"\blayers\.(\d+)\..*\bexperts\.(\d+)\.")
SHARED = re.compile(r"\bshared_experts?\.")
FOREIGN_SHARE = 1255 / 19200
"""The part of all (layer, expert) pairs whose scales were those of others in a checkpoint of that many."""

Pair = tuple[int, int]


def is_router(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor chooses the experts of a token."""
    return tensor.ndim == 2 and ROUTER.search(name) is not None and LAYER.search(name) is not None


def is_shared(name: str, tensor: torch.Tensor) -> bool:
    """Whether a tensor is a linear layer of an expert that every token uses."""
    return is_linear(name, tensor) and SHARED.search(name) is not None


def pairs_of(folder: Path) -> list[Pair]:
    """All (layer, expert) of a checkpoint, in order. Raises NotApplicable: it stores no expert by itself."""
    found = {pair for name in tensor_files(folder) if (pair := _pair(name))}
    if not found:
        raise NotApplicable("it stores no experts one by one")
    return sorted(found)


def _pair(name: str) -> Pair | None:
    found = EXPERT.search(name)
    return (int(found[1]), int(found[2])) if found else None


def foreign_experts(source: Path, out: Path, count: float, seed: int = 0) -> None:
    """8-bit linears; `count` (layer, expert) pairs, spread evenly over all, have the scales of the same expert half of
    the layers with experts away."""
    pairs = pairs_of(source)
    layers = sorted({layer for layer, _ in pairs})
    if len(layers) < 2:
        raise NotApplicable("only one of its layers has experts")
    away = len(layers) // 2
    other = dict(zip(layers, [*layers[away:], *layers[:away]], strict=True))
    every = len(pairs) / count
    hit = {pairs[(int((number + 0.5) * every) + seed) % len(pairs)] for number in range(int(count))}

    def owner(name: str) -> str | None:
        pair = _pair(name)
        return LAYER.sub(f"layers.{other[pair[0]]}.", name, count=1) if pair in hit and pair else None

    rescaled(source, out, owner)


def the_share(good: Path) -> int:
    """As many pairs of this model as 1,255 are of 19,200."""
    return max(1, round(FOREIGN_SHARE * len(pairs_of(good))))


def steps_of_pairs(good: Path) -> list[int]:
    """Numbers of pairs, up to all of them, with the stated one among them."""
    return sorted({*ladder(len(pairs_of(good))), the_share(good)})


def pairs_in_words(count: float, most: float) -> str:
    return f"{count:g} of {most:g} expert pairs"


ENTRIES = (
    Entry(
        "experts-int8",
        "experts",
        "a mixture's linears at 8 bits, rounded to nearest",
        HARMLESS,
        partial(rounded, bits=8, wanted=is_linear),
        good="mixture",
        control=True,
    ),
    Entry(
        "router-2bit",
        "experts",
        "router at 2 bits",
        fails("kl_mean"),
        doses=Doses(partial(rounded, wanted=is_router), COARSER, always(2), bits_in_words),
        good="mixture",
    ),
    Entry(
        "shared-expert-2bit",
        "experts",
        "shared expert at 2 bits",
        fails("tv_mean"),
        doses=Doses(partial(rounded, wanted=is_shared), COARSER, always(2), bits_in_words),
        good="mixture",
    ),
    Entry(
        "foreign-expert",
        "experts",
        "one expert has another's scales",
        fails("tv_mean"),
        partial(foreign_experts, count=1),
        good="mixture",
        seeded=True,
    ),
    Entry(
        "foreign-experts",
        "experts",
        "1,255 of 19,200 expert pairs (6.5 %) have others' scales",
        fails("tv_mean"),
        doses=Doses(foreign_experts, steps_of_pairs, the_share, pairs_in_words),
        good="mixture",
        seeded=True,
    ),
)
