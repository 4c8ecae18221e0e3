"""Scripts: histograms are exact, languages are decided or left open, letters of two scripts in one word are found."""

import unicodedata

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st
from language_cases import HOSTILE

from suites.readings.scripts import (
    LANGUAGES,
    SCRIPTS,
    Language,
    broken_characters,
    fits,
    mixed_words,
    prose,
    script_counts,
    script_shares,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
"""Lone surrogates too."""

# -- histograms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("1016 = 127 × 8 …!?", {}),
        ("𝑥 + ℓ", {}),  # letters of no script
        ("Tシャツ", {"latin": 1, "kana": 3}),
        ("スーパー", {"kana": 4}),
        ("ｽｰﾊﾟｰ", {"kana": 4}),  # half-width, its mark is no letter here
        ("ＡＢＣ", {"latin": 3}),
        ("人々の〇", {"han": 3, "kana": 1}),
        ("e\u0301cole", {"latin": 5}),  # a combining accent is no letter
        ("が", {"kana": 1}),
        ("か\u3099", {"kana": 1}),
        ("北京 北岳", {"han": 4}),
        ("한국어", {"hangul": 3}),
        ("слово", {"cyrillic": 5}),
        ("كتاب", {"arabic": 4}),
        ("λόγος ไทย", {"other": 8}),
    ],
)
def test_letters_are_counted_by_script(text: str, expected: dict[str, int]) -> None:
    assert {script: n for script, n in script_counts(text).items() if n} == expected
    assert tuple(script_counts(text)) == SCRIPTS


NAMES = {"HIRAGANA": "kana", "KATAKANA": "kana", "CJK": "han", "LATIN": "latin", "HANGUL": "hangul"}
NAMES |= {"CYRILLIC": "cyrillic", "ARABIC": "arabic"}
BLOCKS = [(0x41, 0x5A), (0xC0, 0x17F), (0x388, 0x3FF), (0x400, 0x52F), (0x5D0, 0x5EA), (0x641, 0x6D3), (0xE01, 0xE3A)]
BLOCKS += [(0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)]


def by_name(text: str) -> dict[str, int]:
    """Letters by script, as the characters' names say."""
    found = dict.fromkeys(SCRIPTS, 0)
    for character in text:
        if unicodedata.category(character).startswith("L"):
            words = unicodedata.name(character).replace("-", " ").split()
            found[next((NAMES[word] for word in words if word in NAMES), "other")] += 1
    return found


def test_the_names_of_single_characters_say_the_same() -> None:
    for low, high in BLOCKS:
        for character in map(chr, range(low, high + 1)):
            assert script_counts(character) == by_name(character), hex(ord(character))


@given(st.text(st.one_of(*(st.characters(min_codepoint=low, max_codepoint=high) for low, high in BLOCKS))))
def test_the_names_of_the_characters_say_the_same(text: str) -> None:
    assert script_counts(text) == by_name(text)


@given(ANY_TEXT)
def test_shares_are_of_one_whole(text: str) -> None:
    shares = script_shares(text)
    assert not shares or sum(shares.values()) == pytest.approx(1)
    assert bool(shares) == any(script_counts(prose(text)).values())


def test_code_and_formulas_are_in_no_language() -> None:
    text = "答えは$x = 3$です。\n```python\nprint(answer)\n```\n`len` \\(a+b\\) \\boxed{5} https://example.org/abc <b>"
    assert script_shares(text) == dict.fromkeys(SCRIPTS, 0.0) | {"kana": 0.8, "han": 0.2}


# -- languages -----------------------------------------------------------------------------------------------

JAPANESE = [
    "日本で二番目に高い山は北岳です。",
    "127×8は1016です。",
    "北岳は、日本第二位の高峰である。",
    "パリです",
    "PythonのlenはO(1)です。",
    "PyTorchとTensorFlowを比較",
    "答え:\n\n$127 \\times 8 = 1016$ です。\n\n北岳",
    "「the second-tallest mountain in Japan」は北岳です。",
    "ドラえもんの作者は Fujiko F. Fujio です。",
    "ﾊﾟﾘです。",
    "次のコードを使います。\n```python\nfor item in items: print(item)\nwhile True: break\n```",
]
CHINESE = [
    "日本第二高的山是北岳。",
    "日本第二高的山是北岳（きただけ）。",
    "127乘以8等于1016。",
    "答案是1016。",
    "法国的首都是巴黎（Paris）。",
    "日語的「ありがとう」是謝謝的意思。",
    "我们用 Python 的 len 来计算。",
    "《ドラえもん》的作者是藤子不二雄。",
    "這個問題的答案是一千零一十六。",
]
ENGLISH = [
    "The second-tallest mountain in Japan is Kita-dake (北岳).",
    "It is 1016.",
    "The Japanese word for it is 北岳.",
    "“北岳” is the answer.",
    'The question "日本で二番目に高い山は何ですか" asks for Kita-dake.',
    "The capital is サンフランシスコ.",
    "Paris",
]
OTHER = ["Ответ: тысяча шестнадцать.", "정답은 천십육입니다.", "الجواب هو ألف وستة عشر", "คำตอบคือ หนึ่งพัน ครับผม"]


@pytest.mark.parametrize(("language", "texts"), [("ja", JAPANESE), ("zh", CHINESE), ("en", ENGLISH), (None, OTHER)])
def test_a_text_fits_its_own_language_and_no_other(language: str | None, texts: list[str]) -> None:
    for text in texts:
        for asked in LANGUAGES:
            expected = True if asked == language else None if text == "Paris" else False
            assert fits(text, asked) is expected, (text, asked)


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        # Too short to tell: numbers, formulas, names.
        ("", "en", None),
        ("1016", "ja", None),
        ("$127 \\times 8 = 1016$", "zh", None),
        ("\\boxed{1016}", "en", None),
        ("北岳", "ja", None),
        ("第二次世界大戦", "ja", True),
        ("第一次世界大会", "ja", None),
        ("徳川家康", "ja", True),  # 徳 is written so in Japan alone
        ("徳川家康", "zh", None),  # a name
        ("兵庫県神戸市中央区", "ja", True),  # 戸
        ("德川家康", "zh", True),
        ("德川家康", "ja", None),  # before the reform of the characters: a name
        ("Kita-dake", "ja", None),
        ("3193 m", "ja", None),
        ("北岳", "en", None),
        ("10 kg", "zh", None),
        ("127 × 8 is 1016.", "ja", None),
        ("127 × 8 is 1016.", "en", True),
        # Short Han fits Chinese, and a Chinese sentence is no Japanese one.
        ("北岳", "zh", True),
        ("巴黎", "zh", True),
        ("答案是巴黎", "ja", False),
        ("为什么", "ja", False),
        ("日本第二高峰即北岳山也", "ja", False),
        ("Mount Kita", "ja", None),  # a name
        ("He climbed Mount Kita", "ja", False),
        # Half the answer in another language is not enough, a third may be.
        ("答えは北岳です。答案是北岳,也就是日本第二高的山。", "ja", False),
        ("答えは北岳です。日本で二番目に高い山です。The height is known.", "ja", True),
        ("答えは北岳です。日本第二高的山是北岳。The height is known to us.", "ja", False),
        # What is quoted counts when there is nothing else.
        ("「答えは1016です。」", "ja", True),
        ("(The answer is one thousand.)", "zh", False),
    ],
)
def test_what_a_text_says_of_its_language(text: str, asked: Language, expected: bool | None) -> None:
    assert fits(text, asked) is expected


# -- letters that do not belong together ---------------------------------------------------------------------


NORMAL = [
    "Tシャツ",
    "Python3で",
    "xとyの値",
    "ビタミンC入り",
    "μm",
    "Δx",
    "角αは",
    "K팝",
    "大韓民國 한국",
    "naïve",
    "人々",
]
NORMAL += ["スーパー", "ＡＢＣ順", "AとB", "sinとcos", "Москва и Paris", "`pаper`", "1か月", "A4サイズ", "iPhoneケース"]
NORMAL += ["プランAプラン", "日本語のe\u0301cole", "https://example.org/pаper"]


@pytest.mark.parametrize("text", NORMAL)
def test_normal_words_are_not_mixed(text: str) -> None:
    assert mixed_words(text) == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The pаper is here.", 1),  # a Cyrillic а
        ("pаper and scоre", 2),
        ("приветhello", 1),
        ("プロgラム", 1),
        ("コンピxuータ", 1),
        ("helロo", 1),
        ("안녕は", 1),
        ("因为because所以", 0),
        ("我们считаем", 1),
        ("答えはنعم", 1),
        ("คำanswer", 1),
        ("p\u0301а", 1),  # an accent does not end a word
    ],
)
def test_letters_that_do_not_belong_together_are_found(text: str, count: int) -> None:
    assert mixed_words(text) == count


def test_broken_characters_are_counted() -> None:
    assert broken_characters("a\ufffdb\ufffd\ud800c\udfff?") == 4
    assert broken_characters("東京 🙂 café") == 0


# -- hostile texts -------------------------------------------------------------------------------------------


@given(ANY_TEXT)
def test_any_text_can_be_looked_at(text: str) -> None:
    assert all(fits(text, asked) in (True, False, None) for asked in LANGUAGES)
    assert mixed_words(text) >= 0 and sum(script_counts(text).values()) <= len(text)
    assert broken_characters(text) <= len(text)


@given(ANY_TEXT)
def test_a_text_is_never_in_two_languages(text: str) -> None:
    assert sum(fits(text, asked) is True for asked in LANGUAGES) <= 1


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_text_and_no_faster(name: str) -> None:
    with no_hang():
        fits(HOSTILE[name], "ja")
        mixed_words(HOSTILE[name])
        script_shares(HOSTILE[name])
        broken_characters(HOSTILE[name])
