"""What is hidden and asked for: names, values, and the sentences about them in English, Japanese and Chinese.

The kinds of keys and values are those of RULER (arXiv 2404.06654, appendix B): adjective-noun pairs, numbers of seven
digits and UUIDs. The wording is ours.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from wonderwords import RandomWord

from suites.readings.scripts import Language

PhraseKind = Literal["word", "number", "uuid"]


@dataclass(frozen=True)
class Phrases:
    """The sentences of one language; each is (about one value, about several)."""

    things: dict[PhraseKind, str]
    """What a value of each kind is called."""
    intro: tuple[str, str]
    needle: tuple[str, str]
    question: tuple[str, str]
    comma: str
    last_comma: str

    def listed(self, names: Sequence[str]) -> str:
        return self.comma.join(names[:-1]) + self.last_comma + names[-1] if len(names) > 1 else names[0]


PHRASES: dict[Language, Phrases] = {
    "en": Phrases(
        things={"number": "locker number", "uuid": "locker code", "word": "password"},
        intro=(
            "A {thing} is hidden in the text below. Remember it, you will be asked for it.",
            "Some {thing}s are hidden in the text below. Remember them, you will be asked about them.",
        ),
        needle=("The {thing} of {key} is {value}.", "One of the {thing}s of {key} is {value}."),
        question=(
            "What is the {thing} of {keys} given in the text? Answer with the {thing}.",
            "What are all the {thing}s of {keys} given in the text? Answer with all of these {thing}s.",
        ),
        comma=", ",
        last_comma=" and ",
    ),
    "ja": Phrases(
        things={"number": "ロッカー番号", "uuid": "ロッカーコード", "word": "合言葉"},
        intro=(
            "次の文章の中に{thing}が一つ隠されています。後で尋ねるので覚えておいてください。",
            "次の文章の中に{thing}がいくつか隠されています。後で尋ねるので覚えておいてください。",
        ),
        needle=("{key}の{thing}は「{value}」です。", "{key}の{thing}の一つは「{value}」です。"),
        question=(
            "文章に書かれている{keys}の{thing}は何ですか。{thing}を答えてください。",
            "文章に書かれている{keys}の{thing}をすべて答えてください。",
        ),
        comma="、",
        last_comma="と",
    ),
    "zh": Phrases(
        things={"number": "储物柜号码", "uuid": "储物柜代码", "word": "口令"},
        intro=(
            "下面的文字里藏着一个{thing}。请记住它，之后会问到。",
            "下面的文字里藏着一些{thing}。请记住它们，之后会问到。",
        ),
        needle=("{key}的{thing}是“{value}”。", "{key}的{thing}之一是“{value}”。"),
        question=(
            "文字中给出的{keys}的{thing}是什么？请回答这个{thing}。",
            "文字中给出的{keys}的所有{thing}是什么？请全部回答。",
        ),
        comma="、",
        last_comma="和",
    ),
}

ADJECTIVES: dict[Language, str] = {
    "ja": "赤い 青い 白い 黒い 黄色い 古い 新しい 大きな 小さな 丸い 四角い 静かな 明るい 暗い "
    "重い 軽い 長い 短い 深い 浅い 甘い 苦い 冷たい 温かい 速い 遅い 珍しい 若い 強い 細い",
    "zh": "红色的 蓝色的 白色的 黑色的 黄色的 古老的 崭新的 巨大的 小小的 圆圆的 方形的 安静的 明亮的 "
    "昏暗的 沉重的 轻巧的 长长的 短短的 深深的 清浅的 甜甜的 苦涩的 冰冷的 温暖的 飞快的 缓慢的 罕见的 年轻的 坚固的",
}
NOUNS: dict[Language, str] = {
    "ja": "灯台 帆船 風車 水車 太鼓 笛 鏡 傘 帽子 手袋 机 椅子 鉛筆 絵本 切手 時計 望遠鏡 磁石 提灯 風鈴 "
    "凧 積み木 人形 花瓶 鍵 鈴 橋 井戸 畑 果樹園 牧場 温泉 図書館 博物館 劇場 市場 駅舎 工房 倉庫 温室",
    "zh": "灯塔 帆船 风车 水车 大鼓 笛子 镜子 雨伞 帽子 手套 桌子 椅子 铅笔 画册 邮票 时钟 望远镜 磁铁 灯笼 "
    "风铃 风筝 积木 木偶 花瓶 钥匙 铃铛 小桥 水井 田地 果园 牧场 温泉 图书馆 博物馆 剧院 市场 车站 工坊 仓库 温室",
}


@cache
def english(*categories: str) -> tuple[str, ...]:
    """Plain lower-case English words that the package wonderwords ships, in a fixed order.

    ASCII alone: a model that writes jalapeno has found the jalapeño.
    """
    found = {word for name in categories for word in RandomWord().filter(include_categories=[name])}
    return tuple(sorted(w for w in found if w.isascii() and w.isalpha() and w.islower() and len(w) > 2))


def _word(rng: random.Random, language: Language) -> str:
    if language == "en":
        return f"{rng.choice(english('adjective'))}-{rng.choice(english('noun'))}"
    return rng.choice(ADJECTIVES[language].split()) + rng.choice(NOUNS[language].split())


def draw(kind: PhraseKind, rng: random.Random, language: Language = "en") -> str:
    """A key or value: a pair of words, a number of seven digits, or a UUID."""
    if kind == "word":
        return _word(rng, language)
    if kind == "number":
        return str(rng.randint(1_000_000, 9_999_999))
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def draw_other(
    kind: PhraseKind,
    rng: random.Random,
    language: Language,
    taken: Collection[str],
    refused: Callable[[str], bool] = lambda _: False,
) -> str:
    """A key or value that is not taken and not refused (because the haystack has it, say)."""
    while True:
        found = draw(kind, rng, language)
        if found not in taken and not refused(found):
            return found
