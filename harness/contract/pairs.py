"""Pairs: the two samples of one item, matched; and the order in which they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.contract.errors import BadInput
from harness.contract.samples import PairKey, Role, Sample


class Pair(NamedTuple):
    """The two samples of one item: the reference's, and the one compared with it (the candidate's, or of `noise`)."""

    reference: Sample
    candidate: Sample


Unusable = Literal["missing", "errored", "unequal"]
"""missing: one role has no sample. errored: one has `error`. unequal: the prompts differ, or are not those planned."""


class Gap(NamedTuple):
    """What is known of a pair that cannot be used: samples that are there, without an error and of the prompt that was
    planned (where none was: of the one prompt there is)."""

    reference: Sample | None = None
    candidate: Sample | None = None


@dataclass
class Pairing:
    """Pairs that can be judged, and those that cannot, by reason. Nothing is dropped without being counted."""

    pairs: dict[PairKey, Pair] = field(default_factory=dict)
    unusable: dict[PairKey, Unusable] = field(default_factory=dict)
    foreign: int = 0
    """Samples that nobody planned: of another run, or edited in."""
    gaps: dict[PairKey, Gap] = field(default_factory=dict)
    """Of those that cannot be used: what is known, where anything is."""

    def count(self, reason: Unusable) -> int:
        return sum(found == reason for found in self.unusable.values())

    @property
    def total(self) -> int:
        return len(self.pairs) + len(self.unusable)

    def part(self, belongs: Callable[[PairKey], bool], foreign: int = 0) -> Pairing:
        """Only the pairs that belong to something."""
        return Pairing(
            {key: pair for key, pair in self.pairs.items() if belongs(key)},
            {key: reason for key, reason in self.unusable.items() if belongs(key)},
            foreign,
            {key: gap for key, gap in self.gaps.items() if belongs(key)},
        )


def pair_samples(
    samples: Iterable[Sample], planned: Mapping[PairKey, str | None] | None = None, role: Role = "candidate"
) -> Pairing:
    """Match the reference's samples with those of `role` by key and equal prompt_sha256.

    `planned` names every pair that was to be made and the sha256 of its prompt (None: not known). Without it the
    samples themselves are the plan.

    Raises:
        BadInput: a key that is there twice.
    """
    by_pair: dict[PairKey, dict[str, Sample]] = {key: {} for key in planned or ()}
    result = Pairing()
    for sample in samples:
        if sample.role not in ("reference", role):
            continue
        if planned is not None and sample.key.pair not in planned:
            result.foreign += 1
            continue
        roles = by_pair.setdefault(sample.key.pair, {})
        if sample.role in roles:
            raise BadInput(f"sample key {'/'.join(map(str, sample.key))} is there twice")
        roles[sample.role] = sample
    for key, roles in by_pair.items():
        prompts = {sample.prompt_sha256 for sample in roles.values()}
        wanted = (planned or {}).get(key) or (prompts.pop() if len(prompts) == 1 else None)
        known = Gap(*(_usable(roles.get(of), wanted) for of in ("reference", role)))
        if known.reference and known.candidate:
            result.pairs[key] = Pair(known.reference, known.candidate)
            continue
        if len(roles) < 2:
            result.unusable[key] = "missing"
        else:
            result.unusable[key] = "errored" if any(s.error for s in roles.values()) else "unequal"
        if known.reference or known.candidate:
            result.gaps[key] = known
    return result


def _usable(sample: Sample | None, prompt_sha256: str | None) -> Sample | None:
    return sample if sample and not sample.error and sample.prompt_sha256 == prompt_sha256 else None


def noise_keys(keys: Iterable[PairKey], seal: str, items: int) -> set[PairKey]:
    """The pairs that the noise role is asked: the first `items` items of each task in the sealed order."""
    drawn: dict[tuple[str, str], list[str]] = {}
    ordered = sealed_order(keys, seal)
    for suite, task, item, _ in ordered:
        names = drawn.setdefault((suite, task), [])
        if item not in names and len(names) < items:
            names.append(item)
    return {key for key in ordered if key[2] in drawn[key[:2]]}


def sealed_order(keys: Iterable[PairKey], seal: str) -> list[PairKey]:
    """A random order fixed before the first request: by hash of the sealed policy's sha256 and the item's name.

    Repeats of an item stay together: the item is what is drawn.
    """
    return sorted(keys, key=lambda key: (hashlib.sha256(f"{seal} {'/'.join(key[:3])}".encode()).digest(), key))
