"""Pairs of samples as a report shows them: their state, which are worth a look, and their texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from harness.samples import Item, Pair, Sample, sha256_of
from reports.text import number, shorten, visible

Kind = Literal["worse", "better", "error", "unequal", "missing", "truncated", "diverging", "unscored", "same"]
KINDS: dict[Kind, str] = {
    "worse": "Worse with the candidate",
    "better": "Better with the candidate",
    "error": "Error",
    "unequal": "Prompts differ",
    "missing": "One answer missing",
    "truncated": "Hit the token cap",
    "diverging": "Distributions compared",
    "unscored": "No score",
    "same": "Same score",
}
"""Kinds of pairs in the order in which they are worth a look, with the words a reader sees."""

_UNUSABLE: dict[str, Kind] = {"missing": "missing", "errored": "error", "unequal": "unequal"}
TEXT_LIMIT, REASONING_LIMIT, PROMPT_LIMIT, FIELD_LIMIT = 4000, 2000, 3000, 500


class PairKey(NamedTuple):
    """What names a pair within a run."""

    suite: str
    task: str
    item: str
    repeat: int


@dataclass
class StoredPair:
    """The stored samples of one item. Of a text only the first letter is kept: whether there is one."""

    key: PairKey
    reference: Sample | None = None
    candidate: Sample | None = None
    planned_sha256: str | None = None
    """Hash of the prompt that was to be sent; None where that is not known."""

    @property
    def usable(self) -> bool:
        return self.state == "usable"

    @property
    def state(self) -> Literal["usable", "missing", "errored", "unequal"]:
        """The same words, in the same order, as harness.samples.pair_samples."""
        if self.reference is None or self.candidate is None:
            return "missing"
        if self.reference.error or self.candidate.error:
            return "errored"
        wanted = self.planned_sha256 or self.reference.prompt_sha256
        return "usable" if self.reference.prompt_sha256 == self.candidate.prompt_sha256 == wanted else "unequal"

    @property
    def pair(self) -> Pair | None:
        """Both samples, when they can be compared."""
        usable = self.state == "usable" and self.reference is not None and self.candidate is not None
        return Pair(self.reference, self.candidate) if usable else None  # type: ignore[arg-type]

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
    def kind(self) -> Kind:
        if self.state != "usable":
            return _UNUSABLE[self.state]
        if self.difference:
            return "worse" if self.difference < 0 else "better"
        if any(sample is not None and sample.finish_reason == "length" for sample in (self.reference, self.candidate)):
            return "truncated"
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
    noise: dict[PairKey, Sample] = field(default_factory=dict)
    """Samples of the noise role, without their texts: never a pair's, and counted nowhere else."""

    @property
    def noise_pairs(self) -> list[Pair]:
        """The reference beside itself, where both samples can be compared."""
        of_role = [
            StoredPair(p.key, p.reference, self.noise[p.key], p.planned_sha256)
            for p in self.pairs
            if p.key in self.noise
        ]
        return [p.pair for p in of_role if p.pair]


def planned_prompts(suites: Iterable[str], items: Callable[[str], Iterable[Item]]) -> dict[PairKey, str]:
    """Every pair that was to be made, with the hash of its prompt; suites without readable items have none."""
    return {
        PairKey(suite, item.task, item.item, item.repeat): item.prompt_sha256
        for suite in suites
        for item in items(suite)
    }


def collect(samples: Iterable[Sample], planned: Mapping[PairKey, str] = MappingProxyType({})) -> StoredPairs:
    """Group samples by item without their texts, so that memory does not depend on how long answers are."""
    by_key: dict[PairKey, StoredPair] = {}
    found = StoredPairs()
    known = {key.suite for key in planned}
    for sample in samples:
        key = PairKey(*sample.key.pair)
        stripped = sample.model_copy(update={"text": sample.text.strip()[:1], "reasoning": "", "answer": None})
        if key.suite in known and key not in planned:
            found.foreign += sample.role != "noise"
            continue
        if sample.role == "noise":
            found.noise.setdefault(key, stripped)
            continue
        pair = by_key.setdefault(key, StoredPair(key, planned_sha256=planned.get(key)))
        if getattr(pair, sample.role) is not None:
            found.duplicates += 1
            continue
        setattr(pair, sample.role, stripped)
    found.pairs = list(by_key.values())
    return found


def by_interest(pairs: Iterable[StoredPair]) -> list[StoredPair]:
    """Pairs sorted by kind; within a kind the largest difference first, then the names."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(pairs, key=lambda p: (rank[p.kind], -abs(p.difference or 0.0), -(p.kl or 0.0), p.key))


@dataclass(frozen=True)
class AnswerView:
    """One role's answer as it is shown: shortened and visible."""

    text: str
    reasoning: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class PairView:
    """One pair as it is shown. `summary` is what a reader sees before opening it."""

    anchor: str
    kind: Kind
    label: str
    suite: str
    name: str
    scores: str
    prompt: str | None
    target: str | None
    facts: list[tuple[str, str]]
    reference: AnswerView | None
    candidate: AnswerView | None


@dataclass(frozen=True)
class PairsView:
    """The pairs that are shown, and how many of each kind there are."""

    shown: list[PairView]
    total: int
    counts: dict[Kind, int]
    """All pairs by kind, shown or not."""

    @property
    def left_out(self) -> int:
        return self.total - len(self.shown)

    @property
    def suites(self) -> list[str]:
        """Suites that have a pair on show."""
        return list(dict.fromkeys(pair.suite for pair in self.shown))


def show_pairs(
    stored: Sequence[StoredPair],
    samples: Iterable[Sample],
    items: Callable[[str], Iterable[Item]],
    limit: int = 300,
) -> PairsView:
    """Choose `limit` pairs by interest and read their texts: a second pass over samples, one over items."""
    chosen = {pair.key: pair for pair in by_interest(stored)[:limit]}
    answers: dict[tuple[PairKey, str], AnswerView] = {}
    for sample in samples:
        key = PairKey(*sample.key.pair)
        if key in chosen and (key, sample.role) not in answers:
            answers[key, sample.role] = _answer(sample)
    prompts: dict[PairKey, tuple[str, str | None]] = {}
    for suite in dict.fromkeys(key.suite for key in chosen):
        for item in items(suite):
            key = PairKey(suite, item.task, item.item, item.repeat)
            if key in chosen:
                prompts[key] = (_prompt(item), _target(item.target))
    shown = [
        PairView(
            anchor=_anchor(key),
            kind=pair.kind,
            label=KINDS[pair.kind],
            suite=key.suite,
            name=visible("/".join(shorten(str(part), 120) for part in key)),
            scores=_scores(pair),
            prompt=prompts[key][0] if key in prompts else None,
            target=prompts[key][1] if key in prompts else None,
            facts=[
                (name, f"{value:.6g}") for name, value in (pair.candidate.metrics if pair.candidate else {}).items()
            ],
            reference=answers.get((key, "reference")),
            candidate=answers.get((key, "candidate")),
        )
        for key, pair in chosen.items()
    ]
    counts = Counter(pair.kind for pair in stored)
    return PairsView(shown, len(stored), {kind: counts[kind] for kind in KINDS if counts[kind]})


def _anchor(key: PairKey) -> str:
    """A permalink that is the same in every report of this item."""
    return f"pair-{sha256_of(list(key))[:12]}"


def _answer(sample: Sample) -> AnswerView:
    facts = {
        "score": None if sample.score is None else f"{sample.score:g}",
        "answer": None if sample.answer is None else shorten(sample.answer, FIELD_LIMIT),
        "finish reason": sample.finish_reason,
        "tokens": None if sample.completion_tokens is None else number(sample.completion_tokens),
        "prompt tokens": None if sample.prompt_tokens is None else number(sample.prompt_tokens),
        "seconds": f"{sample.seconds:.1f}",
        "error": None if sample.error is None else shorten(sample.error, FIELD_LIMIT),
    }
    return AnswerView(
        text=visible(shorten(sample.text, TEXT_LIMIT)),
        reasoning=visible(shorten(sample.reasoning, REASONING_LIMIT)),
        facts=[(name, visible(shorten(value, FIELD_LIMIT + 60))) for name, value in facts.items() if value is not None],
    )


def _scores(pair: StoredPair) -> str:
    if pair.difference is None and pair.kl is not None:
        return f"{pair.kl:.4f} nats"
    errors = [s.error for s in (pair.reference, pair.candidate) if s is not None and s.error]
    if errors:
        return visible(shorten(errors[0], 60))
    parts = ["–" if s is None or s.score is None else f"{s.score:g}" for s in (pair.reference, pair.candidate)]
    return " → ".join(parts)


def _prompt(item: Item) -> str:
    """Chat messages as one text; parts that are not text are named by their type."""
    blocks = []
    for message in item.prompt:
        content = message.get("content", "")
        if isinstance(content, list):
            content = "\n".join(
                str(part.get("text", f"[{part.get('type', 'part')}]")) if isinstance(part, dict) else str(part)
                for part in content
            )
        blocks.append(f"[{message.get('role', '?')}]\n{content}")
    return visible(shorten("\n\n".join(blocks), PROMPT_LIMIT))


def _target(target: Any) -> str | None:
    if target is None:
        return None
    text = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False, default=str)
    return visible(shorten(text, FIELD_LIMIT))
