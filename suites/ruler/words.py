"""RULER's tracing and aggregation tasks: variables, common words, frequent words.

Method: RULER (arXiv 2404.06654), sections 3.2 and 3.3 and appendix B, without its worked examples and answer prefixes:
a chat model answers in its own words.
"""

from __future__ import annotations

import math
import random
import string
from itertools import pairwise

from harness.contract.chat import Messages
from suites.materials.fitting import user
from suites.materials.haystack import noise, topped_up
from suites.materials.needle_phrases import draw_other, english
from suites.ruler.task import Made, Place

SHORT = 4096
"""Below this many tokens the word lists of cwe are thinned, since the full ones do not fit."""
LEAST_TOKENS = 10
"""Tokens that an uncommon word costs at least: three times with a number, a dot and a blank."""
HOPS = 4
COMMON = 10
ALPHA = 2.0
"""Exponent of the distribution of coded words; its zeta is pi^2 / 6."""
CODED_WORD = 6
LEAST_CODED = 100
"""Coded words of the shortest text in which the three frequent ones stand apart: ranks 4 and 5 occur 3 and 2 times."""


def vt(place: Place) -> Made:
    """Variable tracking: one chain of four hops; every name that holds the value is asked for."""
    rng = place.rng()
    names: list[str] = []
    while len(names) <= HOPS:
        name = "".join(rng.choices(string.ascii_uppercase, k=5))
        names += [name] if name not in names else []
    value = str(rng.randint(10_000, 99_999))
    chain = [f"VAR {names[0]} = {value}."]
    chain += [f"VAR {after} = VAR {before}." for before, after in pairwise(names)]
    hidden = list(zip(sorted(rng.random() for _ in chain), chain, strict=True))
    intro = "The text below assigns values to variables. Follow the assignments."
    question = f"Which variables hold the value {value}? There are five; list their names."

    def build(units: int, extra: int = 0) -> Messages:
        return user(f"{intro}\n\n{topped_up(noise().text(units, hidden), extra)}\n\n{question}")

    return Made(build, names, {})


def cwe(place: Place) -> Made:
    """Common words: ten words occur 30 times, all others 3 times; the ten are asked for.

    Where there are not enough words (beyond about 170,000 tokens) pairs of words are uncommon too.
    """
    rng = place.rng()
    often, seldom = (30, 3) if place.length >= SHORT else (10, 1)
    known = english("noun", "adjective", "verb")
    words = rng.sample(known, len(known))
    common, others = words[:COMMON], words[COMMON:]
    known_pairs: set[str] = set()
    while len(others) < place.length // LEAST_TOKENS:
        pair = draw_other("word", rng, "en", known_pairs)
        known_pairs.add(pair)
        others.append(pair)
    order = rng.random()

    def build(units: int, extra: int = 0) -> Messages:
        filling = [others[i % len(others)] for i in range(units) for _ in range(seldom)]
        listed = common * often + filling
        random.Random(order).shuffle(listed)
        numbered = " ".join(f"{i}. {word}" for i, word in enumerate(listed, start=1))
        intro = "Below is a numbered list of words. Some occur far more often than others."
        question = "Which ten words occur most often in the list? Answer with the ten words."
        return user(f"{intro}\n\n{topped_up(numbered, extra)}\n\n{question}")

    return Made(build, common, {})


def fwe(place: Place) -> Made:
    """Frequent words: coded words of a zeta distribution; dots are its first rank, the next three are asked for.

    Several ranks may gain a word at the same length, so that what is missing then is made up with more dots.
    """
    rng = place.rng()
    coded: list[str] = []
    seen: set[str] = set()
    while len(coded) < max(place.length // 50, 10):
        word = "".join(rng.choices(string.ascii_lowercase, k=CODED_WORD))
        coded += [word] if word not in seen else []
        seen.add(word)
    order = rng.random()

    def build(units: int, extra: int = 0) -> Messages:
        words = LEAST_CODED + units
        listed = ["..."] * extra
        for rank, word in enumerate(["...", *coded], start=1):
            times = int(words / (rank**ALPHA * math.pi**2 / 6))
            if not times:
                break
            listed += [word] * times
        random.Random(order).shuffle(listed)
        intro = "The text below is made of coded words. Count how often each of them occurs."
        question = (
            "Ignore the dots '...'. Which three coded words occur most often in the text? Answer with the three words."
        )
        return user(f"{intro}\n\n{' '.join(listed)}\n\n{question}")

    return Made(build, coded[:3], {})
