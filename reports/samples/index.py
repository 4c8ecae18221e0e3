"""The index of all pairs, as the page's script has it: a row each, and the ways to narrow the list down."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from harness.contract.samples import PairKey, Sample
from reports.samples.pairs import ANSWER_LIMIT, KINDS, PairKind, StoredPair, by_interest
from reports.text import one_line, shorten, visible

NAME_LIMIT, SCORES_LIMIT = 120, 60

CUT, UNENDED, LIMITED = (1, 2), (4, 8), (16, 32)
"""Bits of an index row's flags, (reference, candidate): hit the token cap; looped, or thinking that was not closed; an
agent that a limit of steps, time or cost ended."""

LANGUAGES = "ar|bn|cs|da|de|el|en|es|fa|fi|fr|hu|ja|ko|nl|pl|pt|ro|ru|sv|sw|ta|te|th|tr|uk|ur|vi|zh"
"""Codes that the end of a task's name may be (mgsm_ja, niah_single_zh@4096). Those that are English words are not
among them, so that "fetch-it" is not Italian."""

_HASH = re.compile(r"[0-9a-f]{64}")
_LANGUAGE = re.compile(rf"(?:.*[-_])({LANGUAGES})(?:@[0-9]+)?")


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
    change: float | None
    """Score of the candidate minus score of the reference."""
    kl: float | None
    """Nats a position, where distributions were compared."""


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
    shown = [tuple(shown_name(name) for name in pair.key[:3]) for pair in ordered]
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
            pair.key[3],
            kind_place[pair.kind],
            _flags(pair),
            language_place[language],
            _scores(pair),
            (_short_answer(pair.reference), _short_answer(pair.candidate)),
            tuple(None if s is None else s.completion_tokens for s in (pair.reference, pair.candidate)),  # type: ignore[arg-type]
            _rounded(pair.difference),
            _rounded(pair.kl),
        )
        for pair, (suite, task, item), language in zip(ordered, shown, spoken, strict=True)
    ]
    return PairsView([pair.key for pair in ordered], rows, tasks, languages, _choices(rows))


def path_of(key: PairKey) -> str:
    """What follows # in a permalink: the same in every report of this item, and in samples.js."""
    *names, repeat = key
    return "/".join([*(quote(shown_name(name), safe="!*'()@") for name in names), str(repeat)])


def shown_name(name: str) -> str:
    """A name of a suite, task or item as the page has it."""
    return visible(shorten(name, NAME_LIMIT))


def _rounded(value: float | None) -> float | None:
    """To six digits after the point, so that many rows stay small; None also for what is no number in JSON."""
    return round(value, 6) + 0.0 if value is not None and math.isfinite(value) else None


def _language(task: str) -> str:
    """The language that a task's name ends with (chat-ja), or nothing."""
    found = _LANGUAGE.fullmatch(task)
    return found[1] if found else ""


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

    def kinds(label: str, *wanted: PairKind) -> Choice:
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
