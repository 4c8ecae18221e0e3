"""Pairs of samples as a report shows them: their state, which are worth a look, and the index of all of them.

Their texts are not here: reports/samples/files.py reads them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple
from urllib.parse import quote

from harness.contract.pairs import Pair
from harness.contract.samples import Item, Sample
from reports.text import one_line, shorten, visible

Kind = Literal[
    "worse", "better", "error", "unequal", "missing", "truncated", "limited", "diverging", "unscored", "same"
]
KINDS: dict[Kind, str] = {
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

_UNUSABLE: dict[str, Kind] = {"missing": "missing", "errored": "error", "unequal": "unequal"}
ANSWER_LIMIT, NAME_LIMIT, SCORES_LIMIT = 80, 120, 60

CUT, UNENDED, LIMITED = (1, 2), (4, 8), (16, 32)
"""Bits of an index row's flags, (reference, candidate): hit the token cap; looped, or thinking that was not closed; an
agent that a limit of steps, time or cost ended."""

LANGUAGES = "ar|bn|cs|da|de|el|en|es|fa|fi|fr|hu|ja|ko|nl|pl|pt|ro|ru|sv|sw|ta|te|th|tr|uk|ur|vi|zh"
"""Codes that the end of a task's name may be (mgsm_ja, niah_single_zh@4096). Those that are English words are not
among them, so that "fetch-it" is not Italian."""

_HASH = re.compile(r"[0-9a-f]{64}")
_LANGUAGE = re.compile(rf"(?:.*[-_])({LANGUAGES})(?:@[0-9]+)?")
_CODE = re.compile(r"[a-z]{2,3}")


class Planned(NamedTuple):
    """What is known of a pair that was to be made."""

    prompt_sha256: str
    language: str = ""
    """By the item's own data, or by the policy for all of the suite; empty where neither says."""


class PairKey(NamedTuple):
    """What names a pair within a run."""

    suite: str
    task: str
    item: str
    repeat: int


@dataclass
class StoredPair:
    """The stored samples of one item. Of a text only the first letter is kept: whether there is one; of a score's
    answer the beginning."""

    key: PairKey
    reference: Sample | None = None
    candidate: Sample | None = None
    planned_sha256: str | None = None
    """Hash of the prompt that was to be sent; None where that is not known."""
    language: str = ""
    """As the plan says it."""

    @property
    def usable(self) -> bool:
        return self.state == "usable"

    @property
    def state(self) -> Literal["usable", "missing", "errored", "unequal"]:
        """The same words, in the same order, as harness.contract.samples.pair_samples."""
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


def planned_pairs(
    suites: Iterable[str],
    items: Callable[[str], Iterable[Item]],
    languages: Mapping[str, str] = MappingProxyType({}),
) -> dict[PairKey, Planned]:
    """Every pair that was to be made; suites without readable items have none. `languages`: of whole suites."""
    return {
        PairKey(suite, item.task, item.item, item.repeat): Planned(
            item.prompt_sha256, _code(item.data.get("language")) or _code(languages.get(suite))
        )
        for suite in suites
        for item in items(suite)
    }


def collect(samples: Iterable[Sample], planned: Mapping[PairKey, Planned] = MappingProxyType({})) -> StoredPairs:
    """Group samples by item without their texts, so that memory does not depend on how long answers are."""
    by_key: dict[PairKey, StoredPair] = {}
    found = StoredPairs()
    known = {key.suite for key in planned}
    for sample in samples:
        key = PairKey(*sample.key.pair)
        answer = sample.answer[: ANSWER_LIMIT + 1] if sample.answer else sample.answer
        stripped = sample.model_copy(update={"text": sample.text.strip()[:1], "reasoning": "", "answer": answer})
        if key.suite in known and key not in planned:
            found.foreign += sample.role != "noise"
            continue
        if sample.role == "noise":
            found.noise.setdefault(key, stripped)
            continue
        plan = planned.get(key)
        known_of = (None, "") if plan is None else plan
        pair = by_key.setdefault(key, StoredPair(key, planned_sha256=known_of[0], language=known_of[1]))
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


class PairRow(NamedTuple):
    """One pair in the page's index: a JSON array, so that 30,000 of them stay small."""

    task: int
    """Place in PairsView.tasks."""
    item: str
    repeat: int
    kind: int
    """Place in KINDS."""
    flags: int
    """CUT and UNENDED."""
    language: int
    """Place in PairsView.languages; -1 where it is not known."""
    scores: str
    answers: tuple[str | None, str | None]
    """What was taken from the answers of reference and candidate to be scored, cut short."""
    tokens: tuple[int | None, int | None]


@dataclass(frozen=True)
class Choice:
    """One way to narrow the list down."""

    value: str
    """"kinds:" and names of kinds, or "flags:MASK=BITS" (only MASK: any of its bits)."""
    label: str
    count: int


@dataclass(frozen=True)
class PairsView:
    """The index of every pair that has a sample, those most worth a look first."""

    keys: list[PairKey] = field(default_factory=list)
    """As they are stored; rows hold them as they are shown."""
    rows: list[PairRow] = field(default_factory=list)
    tasks: list[tuple[str, str]] = field(default_factory=list)
    """(suite, task)."""
    languages: list[str] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    """Only those that some pair fits, and not every one."""

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def suites(self) -> list[str]:
        return sorted({suite for suite, _ in self.tasks})


def show_pairs(stored: Sequence[StoredPair]) -> PairsView:
    """The index of these pairs."""
    ordered = by_interest(stored)
    shown = [tuple(visible(shorten(name, NAME_LIMIT)) for name in pair.key[:3]) for pair in ordered]
    tasks = sorted({(suite, task) for suite, task, _ in shown})
    spoken = [pair.language or _language(task) for pair, (_, task, _) in zip(ordered, shown, strict=True)]
    languages = sorted({language for language in spoken if language})
    task_place = {task: place for place, task in enumerate(tasks)}
    language_place = {"": -1} | {language: place for place, language in enumerate(languages)}
    kind_place = {kind: place for place, kind in enumerate(KINDS)}
    rows = [
        PairRow(
            task_place[suite, task],
            item,
            pair.key.repeat,
            kind_place[pair.kind],
            _flags(pair),
            language_place[language],
            _scores(pair),
            (_short_answer(pair.reference), _short_answer(pair.candidate)),
            tuple(None if s is None else s.completion_tokens for s in (pair.reference, pair.candidate)),  # type: ignore[arg-type]
        )
        for pair, (suite, task, item), language in zip(ordered, shown, spoken, strict=True)
    ]
    return PairsView([pair.key for pair in ordered], rows, tasks, languages, _choices(rows))


def path_of(key: PairKey) -> str:
    """What follows # in a permalink: the same in every report of this item, and in samples.js."""
    *names, repeat = key
    return "/".join([*(quote(visible(shorten(name, NAME_LIMIT)), safe="!*'()@") for name in names), str(repeat)])


def _language(task: str) -> str:
    """The language that a task's name ends with (chat-ja), or nothing."""
    found = _LANGUAGE.fullmatch(task)
    return found[1] if found else ""


def _code(value: object) -> str:
    """What an item or a policy calls its language, where that is a code."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _flags(pair: StoredPair) -> int:
    flags = 0
    for place, sample in enumerate((pair.reference, pair.candidate)):
        if sample is not None:
            flags |= CUT[place] * (sample.finish_reason == "length")
            flags |= LIMITED[place] * (sample.finish_reason == "limit")
            flags |= UNENDED[place] * any(sample.metrics.get(name, 0.0) > 0 for name in ("unterminated", "looped"))
    return flags


def _short_answer(sample: Sample | None) -> str | None:
    """A hash of tokens, which some suites store, says nothing to a reader."""
    if sample is None or sample.answer is None or _HASH.fullmatch(sample.answer):
        return None
    return one_line(sample.answer, ANSWER_LIMIT)


def _scores(pair: StoredPair) -> str:
    if pair.difference is None and pair.kl is not None:
        return f"{pair.kl:.4f} nats"
    errors = [s.error for s in (pair.reference, pair.candidate) if s is not None and s.error]
    if errors:
        return one_line(errors[0], SCORES_LIMIT)
    parts = ["–" if s is None or s.score is None else f"{s.score:.3g}" for s in (pair.reference, pair.candidate)]
    return "–" if set(parts) == {"–"} else " → ".join(parts)


def _choices(rows: Sequence[PairRow]) -> list[Choice]:
    of_kind = Counter(row.kind for row in rows)
    of_flags = Counter(row.flags for row in rows)
    names = list(KINDS)

    def kinds(label: str, *wanted: Kind) -> Choice:
        return Choice(f"kinds:{','.join(wanted)}", label, sum(of_kind[names.index(kind)] for kind in wanted))

    def flags(label: str, bits: tuple[int, int], candidate_alone: bool = False) -> Choice:
        mask = bits[0] | bits[1]
        fit = [n for f, n in of_flags.items() if (f & mask == bits[1] if candidate_alone else f & mask)]
        return Choice(f"flags:{mask}={bits[1]}" if candidate_alone else f"flags:{mask}", label, sum(fit))

    cut, limited = KINDS["truncated"], KINDS["limited"]
    found = [
        kinds("Flips, either way", "worse", "better"),
        *(kinds(KINDS[kind], kind) for kind in ("worse", "better", "error", "missing", "unequal")),
        flags(f"{cut}, either answer", CUT),
        flags(f"{cut}, the candidate alone", CUT, candidate_alone=True),
        flags(f"{limited}, either answer", LIMITED),
        flags(f"{limited}, the candidate alone", LIMITED, candidate_alone=True),
        flags("Looped or thinking not closed", UNENDED),
        flags("Looped or thinking not closed, the candidate alone", UNENDED, candidate_alone=True),
        *(kinds(KINDS[kind], kind) for kind in ("unscored", "diverging", "same")),
    ]
    return [choice for choice in found if choice.count]
