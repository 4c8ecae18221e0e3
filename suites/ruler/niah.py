"""RULER's needle tasks: keys with values hidden in a haystack, some of them asked for.

Method: RULER (arXiv 2404.06654), section 3.1 and appendix B. Needles lie at depths drawn from forty that are evenly
spread. The tasks with a language in their name are ours: running text and needles in that language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.contract.chat import Messages
from suites.materials.fitting import user
from suites.materials.haystack import noise, of_sentences, running_text, topped_up
from suites.materials.needle_phrases import PHRASES, PhraseKind, draw_other
from suites.readings.scripts import Language
from suites.ruler.task import Made, Place

DEPTHS = tuple(i / 39 for i in range(40))


@dataclass(frozen=True)
class Niah:
    """One line of RULER's table of needle tasks."""

    haystack: Literal["noise", "text", "needles"]
    keys: PhraseKind = "word"
    values: PhraseKind = "number"
    n_keys: int = 1
    """Keys that have needles."""
    n_values: int = 1
    """Needles of each key."""
    n_queries: int = 1
    """Keys that are asked for."""
    language: Language = "en"


NIAH: dict[str, Niah] = {
    "niah_single_1": Niah("noise"),
    "niah_single_2": Niah("text"),
    "niah_single_3": Niah("text", values="uuid"),
    "niah_multikey_1": Niah("text", n_keys=4),
    "niah_multikey_2": Niah("needles"),
    "niah_multikey_3": Niah("needles", keys="uuid", values="uuid"),
    "niah_multivalue": Niah("text", n_values=4),
    "niah_multiquery": Niah("text", n_keys=4, n_queries=4),
}
LANGUAGES: tuple[Language, ...] = ("ja", "zh")
NIAH |= {f"niah_single_{language}": Niah("text", language=language) for language in LANGUAGES}
NIAH |= {f"niah_word_{language}": Niah("text", values="word", language=language) for language in LANGUAGES}
NIAH |= {f"niah_multikey_{language}": Niah("text", n_keys=4, language=language) for language in LANGUAGES}


def niah(place: Place) -> Made:
    """The task of the place's name.

    Raises:
        BadInput: QUANTGATE_DATA has a folder for the running text without text.
    """
    task, rng = NIAH[place.task], place.rng()
    phrases = PHRASES[task.language]
    haystack = running_text(task.language) if task.haystack == "text" else noise(task.language)
    names: set[str] = set()

    def fresh(kind: PhraseKind) -> str:
        names.add(name := draw_other(kind, rng, task.language, names, haystack.holds))
        return name

    values = {fresh(task.keys): [fresh(task.values) for _ in range(task.n_values)] for _ in range(task.n_keys)}
    thing = phrases.things[task.values]

    def needle(key: str, value: str) -> str:
        return phrases.needle[task.n_values > 1].format(thing=thing, key=key, value=value)

    needles = [needle(key, value) for key in values for value in values[key]]
    rng.shuffle(needles)
    hidden = list(zip(rng.sample(DEPTHS, len(needles)), needles, strict=True))
    asked = rng.sample(list(values), task.n_queries)
    references = [value for key in asked for value in values[key]]
    several = len(needles) > 1 or task.haystack == "needles"
    intro = phrases.intro[several].format(thing=thing)
    question = phrases.question[len(references) > 1].format(thing=thing, keys=phrases.listed(asked))
    data = {"haystack": haystack.name, "haystack_sha256": haystack.sha256} if task.haystack == "text" else {}
    if task.haystack == "needles":
        # A needle is more than ten tokens, so there are enough of them without repeating any.
        drawn = [(fresh(task.keys), fresh(task.values)) for _ in range(place.length // 10)]
        haystack = of_sentences("needles", [needle(key, value) for key, value in drawn], "\n")

    def build(units: int, extra: int = 0) -> Messages:
        text = topped_up(haystack.text(units, hidden), extra, task.language)
        return user(f"{intro}\n\n{text}\n\n{question}")

    return Made(build, references, data)
