"""Thinking and answer of a text in which a server left the tags: over the whole text, however often they come."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

Tags = tuple[tuple[str, str], ...]
"""(opening, closing) texts."""

THINK, END_THINK = "<think>", "</think>"
TAGS: Tags = (
    (THINK, END_THINK),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
"""The families that are known; a policy names others (requests.thinking_tags)."""
NOT_ALONE = ("<|end|>",)
"""Closing tags that end other things too: without an opening one they say nothing."""
WRAPPERS = (
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "<|start|>assistant",
    "<|channel|>final<|message|>",
    "<|return|>",
)
"""What the same families write around the answer: no part of it."""


_FENCE = re.compile(r"^ {0,3}```", re.MULTILINE)


class Apart(NamedTuple):
    """A text taken apart."""

    thinking: str
    answer: str
    closed: bool | None
    """Whether thinking was closed where the text ends; None where it has no thinking tags."""


class Mark(NamedTuple):
    """A tag that counts: the characters from `start` to `end`, and whether thinking ends there or begins."""

    start: int
    end: int
    closes: bool


def split_thinking(text: str, opened: bool = False, more: Iterable[tuple[str, str]] = ()) -> Apart:
    """Take the thinking out of a text.

    `opened`: the chat template ends with the opening tag, so that the text begins inside the thinking. `more`: tags
    beside TAGS. Thinking that never closes is all thinking and no answer. What stands before a closing tag that was
    never opened is thinking too. A tag in backticks, or an opening tag that is spoken of within a line and never
    closed, is no tag.
    """
    wrappers = _patterns(tuple(more))[2]
    thinking: list[str] = []
    answer: list[str] = []
    inside, position, seen = opened, 0, opened
    for mark in thinking_marks(text, opened, more):
        before = text[position : mark.start]
        if mark.closes and not inside:
            thinking, answer = [*thinking, *answer, before], []
        else:
            (thinking if inside else answer).append(before)
        inside, position, seen = not mark.closes, mark.end, True
    (thinking if inside else answer).append(text[position:])
    if not seen:
        return Apart("", text, None)
    thought = "\n".join(part for part in map(str.strip, thinking) if part)
    return Apart(thought, wrappers.sub("", "".join(answer)).lstrip(), not inside)


def thinking_marks(text: str, opened: bool = False, more: Iterable[tuple[str, str]] = ()) -> Iterator[Mark]:
    """The tags of a text that open and close thinking, in their order; parameters as of `split_thinking`."""
    pattern, closings, _ = _patterns(tuple(more))
    inside, seen, since, fenced = opened, opened, 0, 0
    for tag in pattern.finditer(text):
        closes = tag[0].lower() in closings
        if tag.start() < fenced or _quoted(text, tag):
            continue
        if not closes and not inside:
            fenced = _end_of_fence(text, since, tag)
        if tag.start() < fenced or (not closes and not inside and not seen and _spoken_of(text, tag, closings)):
            continue
        if closes and not inside and tag[0] in NOT_ALONE:
            continue
        yield Mark(tag.start(), tag.end(), closes)
        inside, seen, since = not closes, True, tag.end()


@cache
def _patterns(more: Tags) -> tuple[re.Pattern[str], frozenset[str], re.Pattern[str]]:
    tags = (*TAGS, *more)
    longest_first = sorted({tag for pair in tags for tag in pair}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
    wrappers = re.compile("|".join(map(re.escape, WRAPPERS)))
    return pattern, frozenset(closing.lower() for _, closing in tags), wrappers


def _quoted(text: str, tag: re.Match[str]) -> bool:
    return text[max(0, tag.start() - 1) : tag.start()] == "`" == text[tag.end() : tag.end() + 1]


def _end_of_fence(text: str, since: int, tag: re.Match[str]) -> int:
    """Where the block of code ends in which an answer (from `since` on) shows an opening tag; 0 where it is in none."""
    fences = len(_FENCE.findall(text, since, tag.start()))
    end = _FENCE.search(text, tag.end()) if fences % 2 else None
    return end.start() if end else 0


def _spoken_of(text: str, tag: re.Match[str], closings: frozenset[str]) -> bool:
    """Whether an opening tag stands between words of one line, and nothing closes it."""
    line = text[text.rfind("\n", 0, tag.start()) + 1 : tag.start()]
    between = bool(line.strip()) and line.endswith(" ") and text[tag.end() : tag.end() + 1] == " "
    return between and not any(closing in text[tag.end() :].lower() for closing in closings)
