"""Scripts of a text (Unicode Standard Annex #24), whether it is in the language asked for, and letters that do not
belong together.

A language is decided by its script alone, over whole sentences: Japanese has kana, Chinese has Han without kana,
English is written in Latin letters (so is French: a model that drifts there is not seen). No statistics of words are
needed, and a text too short to say anything is left undecided instead of guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import regex  # type: ignore[import-untyped]

from suites.readings.no_language import GRAMMAR, PARTICLES, is_name, without_code

Language = Literal["en", "ja", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "ja", "zh")

SCRIPTS = ("kana", "han", "latin", "hangul", "cyrillic", "arabic", "other")
"""Bins of a histogram. Greek is in `other`; letters that belong to no script (ℓ, 𝑥) are in none."""

SHARE = 2 / 3
"""Share of an answer's words that must be in the language asked for; the rest may be names and terms."""
LEAST = 1.5
"""Words of other languages below which nothing is decided: "Kita-dake" or 北岳 is a name, and names have none."""
KANA = 0.1
"""Kana among kana and Han from which on a sentence is Japanese; running text has more than a third."""
LONGEST_COMPOUND = 7
"""Han in a row that may be a Japanese compound (第二次世界大戦); a longer row without kana is a Chinese sentence."""
CHINESE = "是你您她们个么于乘很吧"
"""Characters that no short Japanese answer has, though Japanese character sets hold them."""

_OF_ONE_SCRIPT = {  # Unicode properties; && is "and", -- is "but not"
    "hiragana": r"\p{Hiragana}&&\p{L}",
    "katakana": r"[\p{Katakana}&&\p{L}]ーｰ",
    "han": r"\p{Han}",
    "latin": r"\p{Latin}&&\p{L}",
    "hangul": r"\p{Hangul}&&\p{L}",
    "cyrillic": r"\p{Cyrillic}&&\p{L}",
    "arabic": r"\p{Arabic}&&\p{L}",
    "greek": r"\p{Greek}&&\p{L}",
    "other": r"\p{L}--[\p{Hiragana}\p{Katakana}\p{Han}\p{Latin}\p{Hangul}\p{Cyrillic}\p{Arabic}\p{Greek}\p{Common}]",
}
_RUN = regex.compile("|".join(f"(?P<{name}>[{letters}]+)" for name, letters in _OF_ONE_SCRIPT.items()), regex.VERSION1)
_CALLED = regex.compile("[他我]叫|叫做")
"""His name is …, in Chinese: of characters that Japanese has too."""
_MARK = regex.compile(r"\p{M}+")
# Every alternative either closes, or ends at the text's end, or cannot pass its own opening character: linear time.
_NOT_PROSE = regex.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\$\$.*?(?:\$\$|\n\s*?\n|\Z)|\$[^$\n]+\$|\\\[.*?(?:\\\]|\n\s*?\n|\Z)"
    r"|\\\(.*?(?:\\\)|\n|\Z)|\\[A-Za-z]+|https?://\S+|</?[A-Za-z][^<>\n]*>"
    r"|(?<![\w.@-])[\w.+-]{1,64}@[\w.-]{1,200}|(?<![\w.-])(?:[A-Za-z0-9-]{1,63}\.){1,5}(?:com|org|net|io|dev|edu|gov|co\.jp|jp|cn)\b(?:/\S*)?",
    regex.DOTALL,
)
_QUOTED = regex.compile(
    r'"[^"\n]*"|“[^“”\n]*”|‘[^‘’\n]*’|「[^「」\n]*」|『[^『』\n]*』|《[^《》\n]*》|\([^()\n]*\)|（[^（）\n]*）|\[[^\[\]\n]*\]'
)
_SENTENCE_END = regex.compile(r"[。．！？!?\n]+|\.\s")
_JOINED = regex.compile(r"(?<=\p{Latin})[-'’](?=\p{Latin})")
_LATIN_IN_KATAKANA = regex.compile(r"(?<=[\p{Katakana}ー])[a-z]{1,2}(?=[\p{Katakana}ー])")
_KATAKANA_IN_LATIN = regex.compile(r"(?<=[a-z]{2})[\p{Katakana}--[ヵヶ]](?=[a-z])", regex.VERSION1)


def prose(text: str) -> str:
    """The text without what is in no language: code, formulas, commands of LaTeX, addresses and tags."""
    return without_code(str(_NOT_PROSE.sub(" ", text)))


def script_counts(text: str) -> dict[str, int]:
    """Letters of the text by bin of SCRIPTS; digits, punctuation and combining marks are no letters."""
    found = dict.fromkeys(SCRIPTS, 0)
    for script, letters, _ in _runs(text):
        found[_BIN.get(script, script)] += letters
    return found


def script_shares(text: str) -> dict[str, float]:
    """Shares of the letters of the text's prose by bin of SCRIPTS, with the sum 1; empty when it has no letters."""
    counts = script_counts(prose(text))
    total = sum(counts.values())
    return {script: count / total for script, count in counts.items()} if total else {}


def fits(text: str, asked: Language) -> bool | None:
    """Whether a text is in the language asked for; None when it is too short to tell (a number, a formula, a name).

    What stands in brackets or quotation marks does not count, unless there is nothing else. A name alone is never in a
    wrong language.
    """
    plain = prose(text)
    words = _words_by_language(_QUOTED.sub(" ", plain)) or _words_by_language(plain)
    either = words.pop("ja or zh", 0.0)
    if asked != "ja":  # a short row of Han is Chinese, or Japanese: for English it is wrong either way
        words["zh"] = words.get("zh", 0.0) + either
    total, right = sum(words.values()), words.get(asked, 0.0)
    if right > 0 and right >= SHARE * total:
        return True
    return None if total - right < LEAST or is_name(plain) else False


def mixed_words(text: str) -> int:
    """Words whose letters do not belong together.

    After Unicode Technical Standard #39, section 5.2 ("highly restrictive"): Latin, Han and kana may touch, and so may
    Latin, Han and Hangul; any other two scripts in one run of letters are mixed ("pаper" with a Cyrillic а). Greek is
    left out, since μm and Δx are normal. Japanese and Chinese set no spaces, so that a Latin letter beside kana is
    normal too (Tシャツ, Python3で, xとy, ビタミンC); what is not is one or two small letters between katakana
    (プロgラム) or one katakana inside a Latin word. A foreign word quoted without marks in Japanese counts, for both
    roles alike.
    """
    text = prose(text)
    mixed, word, last = 0, set[str](), -1
    for script, _, (start, end) in _runs(text):
        if start != last:
            mixed += not _belong_together(word)
            word = set()
        if script != "greek":
            word.add(_BIN.get(script, script))
        last = end
    mixed += not _belong_together(word)
    between = len(_LATIN_IN_KATAKANA.findall(text)) + len(_KATAKANA_IN_LATIN.findall(text))
    return mixed + between


def broken_characters(text: str) -> int:
    """U+FFFD (bytes that were no character) and lone surrogates, which JSON can carry."""
    return sum(character == "\ufffd" or "\ud800" <= character <= "\udfff" for character in text)


_BIN = {"hiragana": "kana", "katakana": "kana", "greek": "other"}
_SYSTEMS = ({"latin", "han", "kana"}, {"latin", "han", "hangul"})


def _belong_together(scripts: set[str]) -> bool:
    return len(scripts) < 2 or any(scripts <= system for system in _SYSTEMS)


def _runs(text: str) -> Iterator[tuple[str, int, tuple[int, int]]]:
    """(script, letters, (start, end)) of each run of letters of one script; combining marks are taken out before."""
    for match in _RUN.finditer(_MARK.sub("", text)):
        yield match.lastgroup, match.end() - match.start(), match.span()


def _words_by_language(text: str) -> dict[str, float]:
    """Words of each sentence, counted for the sentence's language; empty when there are none."""
    found: dict[str, float] = {}
    for sentence in _SENTENCE_END.split(_MARK.sub("", _JOINED.sub("", text))):
        if sentence and not sentence.isspace():
            language, words = _sentence(sentence)
            if words:
                found[language] = found.get(language, 0.0) + words
    return found


def _sentence(text: str) -> tuple[str, float]:
    """Language of one sentence ("ja or zh": a short row of Han) and its words.

    Of Han and hiragana two letters are taken for a word, single Latin letters (variables, units) for none.
    """
    hiragana = katakana = han = names = 0
    katakana_words = latin_words = capital_words = other_words = other_capitals = 0
    chinese = japanese = sentence = False
    for match in _RUN.finditer(text):
        script, letters = match.lastgroup, match.end() - match.start()
        if script == "hiragana":
            hiragana += letters
        elif script == "katakana":
            katakana, katakana_words = katakana + letters, katakana_words + 1
        elif script == "han":
            han += letters
            sentence = sentence or letters > LONGEST_COMPOUND
            chinese = chinese or any(map(_chinese_only, match[0]))
            japanese = japanese or any(map(_japanese_only, match[0]))
        elif script == "latin":
            latin_words += letters > 1
            capital_words += letters > 1 and (match[0][0].isupper() or match[0] in PARTICLES)
        else:
            other_words += 1
            other_capitals += match[0][0].isupper()
    if hiragana or (han and GRAMMAR & set(text)):  # a sentence of its own, in which capitals are foreign names
        latin_words, other_words = latin_words - capital_words, other_words - other_capitals
        begins = _RUN.search(text)
        names = capital_words if begins and begins.lastgroup != "latin" else 0  # they are words of the sentence
        chinese = chinese or bool(not hiragana and _CALLED.search(text))
    if katakana and not hiragana and chinese:
        katakana, names = 0, names + katakana_words
    asian_words = (hiragana + han) / 2 + (katakana_words if katakana else 0) + names
    total = asian_words + latin_words + other_words
    if asian_words < max(latin_words, other_words):  # of equals the kana or Han decides: it holds the sentence together
        return ("en" if latin_words >= other_words else "other"), total
    kana = hiragana + katakana
    if kana and kana >= KANA * (kana + han):
        return "ja", total
    if chinese or japanese:
        return ("zh" if chinese else "ja"), total
    return ("zh" if sentence else "ja or zh"), total


@cache
def _chinese_only(character: str) -> bool:
    """Whether modern Japanese does not write this Han character: JIS X 0208 with the common extensions lacks it."""
    return character in CHINESE or not _has("cp932", character)


@cache
def _japanese_only(character: str) -> bool:
    """Whether modern Chinese does not write this Han character: neither GB 2312 nor Big5 (Hong Kong) has it."""
    return not any(_has(charset, character) for charset in ("gb2312", "big5hkscs"))


def _has(charset: str, character: str) -> bool:
    try:
        character.encode(charset)
    except UnicodeEncodeError:
        return False
    return True
