"""A corpus of texts that loop at their end and of texts that do not, made from seeds: 200 of each, all different."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator

WORDS = [
    "the",
    "a",
    "train",
    "station",
    "river",
    "garden",
    "number",
    "because",
    "therefore",
    "between",
    "small",
    "large",
    "answer",
    "question",
    "light",
    "before",
    "after",
    "house",
    "water",
    "window",
    "market",
    "count",
    "total",
    "each",
    "price",
    "sum",
    "left",
    "right",
    "again",
    "never",
    "often",
    "found",
    "given",
    "taken",
    "made",
    "shown",
]
JAPANESE = [
    "駅",
    "川",
    "庭",
    "数",
    "家",
    "水",
    "窓",
    "市場",
    "合計",
    "値段",
    "今日",
    "明日",
    "問題",
    "答え",
    "計算",
    "列車",
    "学生",
    "先生",
    "本",
    "花",
]
CHINESE = [
    "车站",
    "河流",
    "花园",
    "数字",
    "房子",
    "水",
    "窗户",
    "市场",
    "总数",
    "价格",
    "今天",
    "明天",
    "问题",
    "答案",
    "计算",
    "火车",
    "学生",
    "老师",
    "书",
    "花",
]
SCALE = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def prose(draw: random.Random, words: int) -> str:
    """Sentences of random words, English, Japanese or Chinese."""
    language = draw.randrange(3)
    if language == 0:
        said = [draw.choice(WORDS) + ("." if draw.random() < 0.08 else "") for _ in range(words)]
        return " ".join(said) + ". "
    known, join = (JAPANESE, "は") if language == 1 else (CHINESE, "的")
    return "".join(draw.choice(known) + draw.choice([join, "、", "", "。"]) for _ in range(words)) + "。"


def looping() -> Iterator[tuple[str, str]]:
    """(kind, text): a unit of 1 to 15,000 characters again and again, from anywhere in it, cut anywhere."""
    for seed in range(200):
        draw = random.Random(f"loop {seed}")
        kind = ("letter", "word", "sentence", "page", "thinking", "code", "rows", "long")[seed % 8]
        before = prose(draw, draw.randint(0, 400))
        unit = _unit(kind, draw)
        least = max(400, (5 if len(unit) <= 200 else 3) * len(unit))
        text = unit * (-(-least // len(unit)) + draw.randint(1, 4))
        yield kind, before + text[draw.randrange(len(unit)) :] + unit[: draw.randrange(len(unit))]


def _unit(kind: str, draw: random.Random) -> str:
    return {
        "letter": lambda: draw.choice("aх!—.の的\n") * draw.randint(1, 3),
        "word": lambda: draw.choice([*WORDS, *JAPANESE, *CHINESE]) + draw.choice([" ", "、", "\n"]),
        "sentence": lambda: prose(draw, draw.randint(4, 20)),
        "page": lambda: prose(draw, draw.randint(60, 600)),
        "thinking": lambda: f"Wait, let me check again. {prose(draw, draw.randint(10, 80))}\n\n",
        "code": lambda: "".join(
            f"    {draw.choice(WORDS)} = f({draw.randint(0, 99)})\n" for _ in range(draw.randint(2, 60))
        ),
        "rows": lambda: f"| {draw.choice(WORDS)} | {draw.randint(0, 99)} | no |\n",
        "long": lambda: prose(draw, draw.randint(1200, 3000)),
    }[kind]()


def not_looping() -> Iterator[tuple[str, str]]:
    """(kind, text): long tables, songs that count, digits, code, lists, records, prose with refrains."""
    makers = (_table, _song, _digits, _code, _steps, _records, _refrain, _base64, _words_song, _ended)
    for seed in range(200):
        draw = random.Random(f"none {seed}")
        maker = makers[seed % len(makers)]
        yield maker.__name__[1:], prose(draw, draw.randint(0, 60)) + maker(draw)


def _table(draw: random.Random) -> str:
    columns, step = draw.randint(2, 8), draw.randint(1, 9)
    return "\n".join(
        "| " + " | ".join(str(i * j * step) for j in range(1, columns + 1)) + " |"
        for i in range(1, draw.randint(80, 400))
    )


def _song(draw: random.Random) -> str:
    thing, place = draw.choice(WORDS), draw.choice(["on the wall", "in the bed", "on the bus"])
    return "".join(
        f"{n} {thing}s {place}, {n} {thing}s. Take one down, pass it around, {n - 1} {thing}s {place}.\n"
        for n in range(draw.randint(40, 120), 0, -1)
    )


def _words_song(draw: random.Random) -> str:
    thing = draw.choice(WORDS)
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    names = [f"{ten}-{one}" for ten in tens for one in SCALE[1:10]]
    lines = [
        f"{n} green {thing}s hanging on the wall, and if one green {thing} should fall,\n" for n in reversed(names)
    ]
    return "".join(lines[: draw.randint(40, 70)])


def _digits(draw: random.Random) -> str:
    kind = draw.randrange(3)
    if kind == 0:  # asked for: 1/7 to so many places
        denominator = draw.choice([3, 7, 9, 11, 13, 17, 19, 37])
        return f"\n0.{10 ** draw.randint(450, 1500) // denominator}"
    if kind == 1:
        return "".join(draw.choices("0123456789", k=draw.randint(500, 3000)))
    return "\n" + "0" * draw.randint(450, 2000)


def _code(draw: random.Random) -> str:
    return "\n".join(
        f'        case {i * 3}:\n            return "{draw.choice(WORDS)}_{i}";' for i in range(draw.randint(60, 200))
    )


def _steps(draw: random.Random) -> str:
    word = draw.choice(WORDS)
    return "\n".join(f"Step {i}: add {i} to the {word}, which gives {i * (i + 1) // 2}." for i in range(1, 150))


def _records(draw: random.Random) -> str:
    rows = [{"id": i, "name": draw.choice(WORDS), "left": draw.random() < 0.5} for i in range(draw.randint(60, 200))]
    return json.dumps(rows, indent=1)


def _refrain(draw: random.Random) -> str:
    chorus = prose(draw, 30)
    return "".join(f"{prose(draw, 25)}\n{chorus}\n" for _ in range(draw.randint(4, 12)))


def _base64(draw: random.Random) -> str:
    return base64.b64encode(draw.randbytes(draw.randint(500, 4000))).decode()


def _ended(draw: random.Random) -> str:
    """Repeated a while, and then not."""
    return prose(draw, 15) * draw.randint(2, 6) + prose(draw, draw.randint(300, 600))
