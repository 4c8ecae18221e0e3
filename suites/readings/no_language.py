"""What is of no language: code without a fence, formulas without dollars, and names."""

from __future__ import annotations

import re

import regex  # type: ignore[import-untyped]

LONGEST_LINE = 400
"""Longer lines are prose."""
MOST_NAME_WORDS = 8
MOST_NAMES = 20
LONGEST_HAN_NAME = 12

_NAME = r"[A-Za-z_$][\w$]*"
_CODE = (
    r"(?:async\s+)?(?:def|class)\s+\w+\s*[(:{].*",
    r"(?:from\s+[\w.]+\s+)?import\s+(?:[\w.*]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*|\{.*)(?:\s+from\s+['\"].*)?;?",
    r"(?:if|elif|while|else\s+if|switch)\b.*[=<>()\[\]!'\"].*(?:[:{]|\{.*\})|(?:if|elif|while)\s+(?:not\s+)?\w+:",
    rf"for\s+{_NAME}(?:\s*,\s*{_NAME})*\s+in\s+.+:(?:\s*\w+\(.*\))?|for\s*\(.*|with\s+.+\s+as\s+\w+:|(?:try|else|finally)\s*[:{{]|except\b.*:",
    r"(?:\}\s*)?(?:else|catch)\b.*\{",
    r"(?:const|let|var|int|long|float|double|char|bool|string|auto|void|public|private|static|func|fn|function|struct|enum|interface|"
    r"package|using|namespace|export|type)\b.*[;{(=].*",
    r"#\s*(?:include|define|pragma|ifdef|endif)\b.*",
    r"(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE\s+TABLE|FROM|WHERE|GROUP\s+BY|ORDER\s+BY)\b.*",
    r"(?://|/\*|\*/).*|(?:\$|>>>|\.\.\.)\s.*|@\w+(?:\(.*\))?",
)
_PERHAPS_CODE = (
    rf"{_NAME}(?:[.\[][\w.\[\]'\"]*)?\s*(?:[-+*/|&:]?=)(?!=)\s*\S.*",
    rf"{_NAME}(?:\.{_NAME})*\(.*\)\s*;?",
    r"[{}\[\]();,]+",
    r".*[\w)\]}'\"]\s*(?:;|\{)",
)
"""Lines of sentences look like these too; code has no four words in a row outside of its texts."""
_COMMAND = re.compile(
    r"[ \t]*(?:[$#] )?(?:sudo |git |npm |npx |yarn |pip3? |docker |kubectl |curl |wget "
    r"|apt(?:-get)? |brew |conda |ssh |chmod |mkdir "
    r"|cd [\w./~-]+|ls -|python3? -?[\w./]+|(?:echo|puts|print) [$\"'])[^\n]*",
)
_DATA = re.compile(r"\s*(?:[{\[].*[\"\d].*[}\]]|\"[^\"]{1,40}\"\s*:\s*.+),?\s*")
"""A line of JSON; a sentence within it is one."""
_CODE_LINE = re.compile(rf"\s*(?:{'|'.join(_CODE)})\s*", re.ASCII)
_PERHAPS_CODE_LINE = re.compile(rf"\s*(?:{'|'.join(_PERHAPS_CODE)})\s*", re.ASCII)
_INDENTED = re.compile(r"(?: {2,}|\t)\s*(?:return|yield|raise|await|pass|break|continue|print)?(?:\b|#|//).*")
_OPENS = re.compile(r".*[:{(\[,]\s*")
_FOUR_WORDS = regex.compile(r"(?:\p{L}{2,}[ ,]+){3}\p{L}{2,}")
_OPERATOR = re.compile(r"[=^≤≥≠≈×÷√∑∫±→]|\s[-+*/<>]\s|\d[-+*/]\d")
_TWO_WORDS = regex.compile(r"\p{L}{2,}[ ,]+\p{L}{2,}|\p{Hiragana}|\p{Han}{5,}")
_FUNCTIONS = re.compile(
    r"\b(?:sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|lg|exp|lim|max|min|mod|gcd|lcm|sqrt|det|dim|inf|sup|arg|"
    r"cm|mm|km|kg|mg|ml|kPa|Hz|mol|dx|dy|dt|if|or|and|for|all)\b"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PARTICLES = _words(
    "of the and da de del della der den di do dos du el la le les las los van von vom zu zur af av bin "
    "ibn al ben am im an upon sur y e ter ten in on at with for to a an"
)
_SPEAKS = _words(
    "is are was were be been it its this that these those there here i you we they he she my your our "
    "has have had do does did not no yes can will would should answer because so what which who how "
    "please sorry let if"
)
_VERBS = {"equals", "makes", "gives", "make", "give", "equal", "the", "of", "minus", "plus", "times"}
_WORD = regex.compile(r"[\p{Latin}\p{Cyrillic}\p{Greek}][\p{L}\p{M}'’.\-]*")
_BULLET = re.compile(r"\s*(?:[-*•・]|\d{1,2}[.)])\s+")
_ELIDED = re.compile(r"^[a-z]{1,2}['’]")
_CAPITAL = regex.compile(r"\p{Lu}")
_OTHER_LETTERS = regex.compile(r"[\p{L}--[\p{Latin}\p{Cyrillic}\p{Greek}]]", regex.VERSION1)
_SENTENCE = re.compile(r"[。！？!?;；]|(?<=[a-z]{3})\.\s*$")
_HAN_NAME = regex.compile(rf"[\p{{Han}}々〇ヶヵ\p{{Katakana}}ー・\s\d]{{1,{4 * LONGEST_HAN_NAME}}}")
_HAN = regex.compile(r"\p{Han}")
GRAMMAR = frozenset("的了是他她它我你您们們这這那哪叫吗嗎呢吧么麼什很把被从從即也就乘于於")
"""Characters of Chinese sentences, which names seldom have."""


def without_code(text: str) -> str:
    """The text without lines of code and lines that are a formula and nothing else."""
    if not _may_be_code(text):
        return text
    kept, inside = [], False
    for line in text.split("\n"):
        code = (
            len(line) <= LONGEST_LINE
            and bool(line.strip())
            and (_is_code(line) or (inside and bool(_INDENTED.fullmatch(line))))
        )
        if code:
            inside = inside or bool(_OPENS.fullmatch(line))
        else:
            inside = inside and not line.strip()
            kept.append("" if _is_formula(line) else line)
    return "\n".join(kept)


def is_name(text: str) -> bool:
    """Whether a text is a name, or a list of them, and no sentence: capitals throughout, katakana, or a few Han."""
    lines = [_BULLET.sub("", line) for line in text.splitlines() if line.strip()]
    return 0 < len(lines) <= MOST_NAMES and all(map(_is_one_name, lines))


def _is_one_name(text: str) -> bool:
    text = text.strip().strip("*_\"'“”「」『』《》. ")
    if not text or len(text) > 200 or _SENTENCE.search(text):
        return False
    if _HAN_NAME.fullmatch(text):
        return len(_HAN.findall(text)) <= LONGEST_HAN_NAME and not GRAMMAR & set(text)
    words = _WORD.findall(text)
    if not words or len(words) > MOST_NAME_WORDS or _OTHER_LETTERS.search(text):
        return False
    capital = [word for word in words if _CAPITAL.search(_ELIDED.sub("", word))]  # d'Ivoire
    small = [word for word in words if word not in capital]
    spoken = {word.lower().strip(".'’") for word in words} & _SPEAKS
    return not spoken and len(capital) >= len(small) and all(word in PARTICLES for word in small)


def _may_be_code(text: str) -> bool:
    return any(mark in text for mark in '=(;{^<>×÷√#@/\n+*"$') or bool(_COMMAND.match(text))


def _is_code(line: str) -> bool:
    if _CODE_LINE.fullmatch(line):
        return True
    if _DATA.fullmatch(line):
        return not _FOUR_WORDS.search(line) and not _OTHER_LETTERS.search(line)
    perhaps = _PERHAPS_CODE_LINE.fullmatch(line) or _COMMAND.fullmatch(line)
    return bool(perhaps) and not _FOUR_WORDS.search(re.sub(r"(['\"]).*?\1|//.*", "", line))


def _is_formula(line: str) -> bool:
    if len(line) > LONGEST_LINE or not _OPERATOR.search(line):
        return False
    spoken = {word.lower() for word in _WORD.findall(line)} & (_SPEAKS | _VERBS)
    return not spoken and not _TWO_WORDS.search(_FUNCTIONS.sub("1", line))
