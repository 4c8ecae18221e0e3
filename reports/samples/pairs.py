"""Pairs of samples as a report shows them: what kind each is, and which are worth a look.

Which can be compared is decided by the contract. Their texts are not here: reports/samples/side_files.py reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from harness.contract.pairs import Pair, Unusable, pair_samples
from harness.contract.samples import ROLES, Item, Key, PairKey, Sample

PairKind = Literal[
    "worse", "better", "error", "unequal", "missing", "truncated", "limited", "diverging", "unscored", "same"
]
KINDS: dict[PairKind, str] = {
    "worse": "Worse with the candidate",
    "better": "Better with the candidate",
    "error": "Error",
    "unequal": "Prompts differ",
    "missing": "One answer missing",
    "truncated": "Hit the token cap",
    "limited": "Hit a step or time limit",
    "diverging": "Distributions compared",
    "unscored": "No score",
    "same": "Same score",
}
"""Kinds of pairs in the order in which they are worth a look, with the words a reader sees."""

_UNUSABLE: dict[Unusable, PairKind] = {"missing": "missing", "errored": "error", "unequal": "unequal"}
ANSWER_LIMIT = 80
_CODE = re.compile(r"[a-z]{2,3}")


class Planned(NamedTuple):
    """What is known of a pair that was to be made."""

    prompt_sha256: str | None
    """Of the prompt that was to be sent; None where that is not known."""
    language: str = ""
    """By the item's own data, or by the policy for all of the suite; empty where neither says."""


@dataclass(frozen=True)
class StoredPair:
    """The stored samples of one item. Of a text only the first letter is kept: whether there is one; of a score's
    answer the beginning."""

    key: PairKey
    reference: Sample | None = None
    candidate: Sample | None = None
    unusable: Unusable | None = None
    """Why the two cannot be compared."""
    language: str = ""
    """As the plan says it."""

    @property
    def suite(self) -> str:
        return self.key[0]

    @property
    def task(self) -> str:
        return self.key[1]

    @property
    def pair(self) -> Pair | None:
        """Both samples, when they can be compared."""
        if self.unusable or self.reference is None or self.candidate is None:
            return None
        return Pair(self.reference, self.candidate)

    @property
    def difference(self) -> float | None:
        """Score of the candidate minus score of the reference."""
        if self.reference is None or self.candidate is None:
            return None
        if self.reference.score is None or self.candidate.score is None:
            return None
        return self.candidate.score - self.reference.score

    @property
    def kl(self) -> float | None:
        """Nats a position of a divergence pair (the upper one)."""
        metrics = self.candidate.metrics if self.candidate else {}
        total, positions = metrics.get("kl_upper_sum", metrics.get("kl_lower_sum")), metrics.get("positions")
        return total / positions if total is not None and positions else None

    @property
    def kind(self) -> PairKind:
        if self.unusable:
            return _UNUSABLE[self.unusable]
        if self.difference:
            return "worse" if self.difference < 0 else "better"
        ended = [sample.finish_reason for sample in (self.reference, self.candidate) if sample is not None]
        if "length" in ended or "limit" in ended:
            return "truncated" if "length" in ended else "limited"
        if self.kl is not None:
            return "diverging"
        return "unscored" if self.difference is None else "same"


@dataclass
class StoredPairs:
    """Every pair of a run that has at least one sample."""

    pairs: list[StoredPair] = field(default_factory=list)
    duplicates: int = 0
    """Samples whose key was there before: passed over and told to the reader."""
    foreign: int = 0
    """Samples that nobody planned: passed over, as the verdict does."""
    noise: list[Sample] = field(default_factory=list)
    """Samples of the noise role, without their texts: never a pair's, and counted nowhere else."""
    noise_pairs: list[Pair] = field(default_factory=list)
    """The reference beside itself, where both samples can be compared."""


def planned_pairs(
    suites: Iterable[str],
    items: Callable[[str], Iterable[Item]],
    languages: Mapping[str, str] = MappingProxyType({}),
) -> dict[PairKey, Planned]:
    """Every pair that was to be made; suites without readable items have none. `languages`: of whole suites."""
    return {
        (suite, item.task, item.item, item.repeat): Planned(
            item.prompt_sha256, _code(item.data.get("language")) or _code(languages.get(suite))
        )
        for suite in suites
        for item in items(suite)
    }


def collect(samples: Iterable[Sample], planned: Mapping[PairKey, Planned] = MappingProxyType({})) -> StoredPairs:
    """Group samples by item without their texts, so that memory does not depend on how long answers are."""
    found = StoredPairs()
    kept: dict[Key, Sample] = {}
    known = {suite for suite, *_ in planned}
    for sample in samples:
        key = sample.key
        if key.suite in known and key.pair not in planned:
            found.foreign += sample.role != "noise"
        elif key in kept:
            found.duplicates += sample.role != "noise"
        else:
            answer = sample.answer[: ANSWER_LIMIT + 1] if sample.answer else sample.answer
            kept[key] = sample.without_texts(text=sample.text.strip()[:1], answer=answer)
    unplanned = Planned(None)
    plans = {key.pair: planned.get(key.pair, unplanned) for key in kept if key.role in ROLES}
    hashes = {name: plan.prompt_sha256 for name, plan in plans.items()}
    unusable = pair_samples(kept.values(), hashes).unusable
    for name, plan in plans.items():
        reference, candidate = (kept.get(Key(*name, role)) for role in ROLES)
        found.pairs.append(StoredPair(name, reference, candidate, unusable.get(name), plan.language))
    found.noise = [sample for sample in kept.values() if sample.role == "noise"]
    found.noise_pairs = list(pair_samples(kept.values(), hashes, "noise").pairs.values())
    return found


def by_interest(pairs: Iterable[StoredPair]) -> list[StoredPair]:
    """Pairs sorted by kind; within a kind the largest difference first, then the names."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(pairs, key=lambda p: (rank[p.kind], -abs(p.difference or 0.0), -(p.kl or 0.0), p.key))


def _code(value: object) -> str:
    """What an item or a policy calls its language, where that is a code."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""
