"""Words with which thinking turns around: wait, but, でも, 等等. A model that doubts itself more than its reference
writes more of them for each thousand tokens."""

from __future__ import annotations

import regex  # type: ignore[import-untyped]

from suites.readings.scripts import Language

MARKERS: dict[Language, tuple[str, ...]] = {
    "en": (
        r"wait",
        r"but",
        r"however",
        r"alternatively",
        r"h+m+",
        r"actually",
        r"hold\s{1,3}on",
        r"on\s{1,3}second\s{1,3}thought",
        r"(?:double|re)[\s-]?check",
        r"let\s{1,3}me\s{1,3}(?:verify|reconsider|rethink|think\s{1,3}again)",
        r"maybe",
    ),
    # Without spaces, a short word counts at the start of a clause alone: 何でも and はいや are others.
    "ja": (
        r"(?<!\p{L})でも(?!ない)",
        r"(?<!\p{L})いや(?![がなだでに])",
        r"しかし",
        r"だが(?=[、,])",
        r"待って(?!い|お|る|も|は)",
        r"待てよ",
        r"もう一度",
        r"もしかし(?:て|たら)",
        r"あるいは",
        r"念のため",
        r"考え直",
        r"(?<!\p{L})う[ーう]*ん",
    ),
    # Simplified and traditional. 苹果等等 is "and so on", 不对称 is "asymmetric".
    "zh": (
        r"(?<!\p{L})等等",
        r"等一下",
        r"但是",
        r"不[过過](?!\p{Han}?[是于於])",
        r"可是",
        r"然而",
        r"或[许許]",
        r"也[许許]",
        r"不[对對](?![称稱等应應齐齊])",
        r"重新",
        r"再(?:想想|[检檢][查验驗]|确认|確認|算一[遍次])",
        r"(?<!\p{L})嗯",
    ),
}
"""Regular expressions by language, letter case ignored; Latin words are whole words."""

_ENGLISH = rf"(?<![\p{{L}}\p{{N}}_])(?:{'|'.join(MARKERS['en'])})(?![\p{{L}}\p{{N}}_])"
_ANY = regex.compile("|".join((_ENGLISH, *MARKERS["ja"], *MARKERS["zh"])), regex.IGNORECASE)


def count_markers(text: str) -> int:
    """Markers of all three languages in a text, since thinking may be in another language than the question."""
    return len(_ANY.findall(text))
