"""Haystacks: the text that hides needles. Repeated noise, or running text in English, Japanese or Chinese.

Running text comes from the files in $QUANTGATE_DATA/text_<language>, else from essays that this project ships. Text
starts over where a length asks for more than there is. A haystack is a row of pieces (sentences, words, or the
characters of a language without spaces), so that any length is reached, and needles stand between sentences.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from itertools import accumulate
from pathlib import Path

from harness.contract.errors import BadInput
from suites.readings.scripts import Language

NOISE: dict[Language, tuple[str, ...]] = {
    "en": (
        "The morning train is late.",
        "A gull sits on the wall.",
        "Rain falls over the harbour.",
        "The baker opens the door.",
        "Someone waters the plants.",
    ),
    "ja": (
        "朝の電車が遅れている。",
        "塀の上にかもめがいる。",
        "港に雨が降っている。",
        "パン屋が店を開ける。",
        "誰かが花に水をやる。",
    ),
    "zh": (
        "早上的火车晚点了。",
        "墙上停着一只海鸥。",
        "港口正在下雨。",
        "面包师打开了店门。",
        "有人在给花浇水。",
    ),
}
"""Sentences that are repeated."""

SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*$")
SENTENCE_END_WITHOUT_SPACES = re.compile(r"[。！？!?]+[」』”）]*|\n+")


@dataclass(frozen=True)
class Haystack:
    """Text in pieces, endless by repetition."""

    name: str
    """Where it is from."""
    pieces: tuple[str, ...]
    joiner: str
    """What stands between pieces."""
    starts: tuple[int, ...]
    """Pieces with which a sentence begins, ascending from 0: needles go before them."""
    sha256: str

    def text(self, units: int, needles: Sequence[tuple[float, str]] = ()) -> str:
        """The first `units` pieces with the needles among them.

        Args:
            needles: (depth, sentence); depth 0 is the beginning, 1 the end. The sentence goes to the beginning of the
                sentence that lies at its depth. Needles of one place keep their order.
        """
        body = (self.pieces * -(-units // len(self.pieces)))[:units]
        parts, done = [], 0
        for depth, needle in sorted(needles, key=lambda pair: pair[0]):
            at = self._sentence(int(depth * units))
            parts += [self.joiner.join(body[done:at]), needle]
            done = at
        parts.append(self.joiner.join(body[done:]))
        return self.joiner.join(part for part in parts if part)

    def _sentence(self, piece: int) -> int:
        """The piece with which the sentence of a piece begins."""
        times, rest = divmod(piece, len(self.pieces))
        return times * len(self.pieces) + self.starts[bisect.bisect_right(self.starts, rest) - 1]

    def holds(self, text: str) -> bool:
        """Whether a text occurs in the haystack: it could not be told from a needle."""
        return text in self._whole

    @cached_property
    def _whole(self) -> str:
        return self.joiner.join(self.pieces)


def of_sentences(name: str, sentences: Sequence[str], joiner: str) -> Haystack:
    """A haystack whose pieces are whole sentences."""
    sha256 = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    return Haystack(name, tuple(sentences), joiner, tuple(range(len(sentences))), sha256)


@cache
def noise(language: Language = "en") -> Haystack:
    """Five sentences again and again (RULER's "repeat" and "noise"); in English a piece each, else in characters."""
    if language == "en":
        return of_sentences("noise en", NOISE["en"], " ")
    return _of_text(f"noise {language}", "".join(NOISE[language]), language)


def topped_up(text: str, words: int, language: Language = "en") -> str:
    """The text and behind it so many words of noise: what fills a prompt where everything else is too coarse."""
    filler = noise(language) if language != "en" else _of_text("noise en", " ".join(NOISE["en"]), "en")
    return f"{text}\n{filler.text(words)}" if words else text


def running_text(language: Language) -> Haystack:
    """The text of a language: $QUANTGATE_DATA/text_<language>, else the essays of this project.

    Raises:
        BadInput: QUANTGATE_DATA has such a folder without usable text.
    """
    data = os.environ.get("QUANTGATE_DATA")
    folder = Path(data) / f"text_{language}" if data else None
    return _running_text(language, folder if folder and folder.is_dir() else None)


@cache
def _running_text(language: Language, folder: Path | None) -> Haystack:
    if folder:
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != "SOURCES.txt"]
        name, text = f"{folder.name}: {', '.join(path.name for path in files)}", "\n".join(map(_read, files))
    else:
        name = f"essay_{language}.txt"
        text = (resources.files("suites.data") / name).read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("=")]  # headings of a wiki
    text = re.sub(r" @([-,.])@ ", r"\1", "\n".join(lines))  # WikiText writes numbers and hyphens so
    haystack = _of_text(name, text, language)
    if len(haystack.starts) < 10:
        raise BadInput(f"{folder}: no text of at least ten sentences; put text there, or take the folder away")
    return haystack


def _of_text(name: str, text: str, language: Language) -> Haystack:
    """Words of English, characters of Japanese and Chinese."""
    pieces: tuple[str, ...]
    if language == "en":
        pieces, joiner = tuple(text.split()), " "
        ends = [i for i, word in enumerate(pieces, start=1) if SENTENCE_END.search(word)]
    else:
        sentences, joiner = SENTENCE_END_WITHOUT_SPACES.sub(r"\g<0>\0", text).replace("\n", "").split("\0"), ""
        pieces = tuple("".join(sentences))
        ends = list(accumulate(map(len, sentences)))
    starts = tuple(sorted({0, *ends} - {len(pieces)}))
    return Haystack(name, pieces, joiner, starts, hashlib.sha256(text.encode()).hexdigest())


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a text in UTF-8 ({error})") from error
