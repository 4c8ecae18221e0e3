"""Names, formulas and code are of no language; sentences are, and a foreign name does not change theirs."""

import pytest

from suites.readings.no_language import is_name, without_code
from suites.readings.scripts import LANGUAGES, Language, fits

NEITHER = [
    "Wolfgang Amadeus Mozart",
    "New York",
    "Leonardo da Vinci",
    "Ludwig van Beethoven",
    "The Great Wall of China",
    "J. R. R. Tolkien",
    "日本国憲法第九条",
    "Лев Толстой",
    "sin(x) + cos(x) = 1",
    "E = mc^2",
    "a^2 + b^2 = c^2",
    "f(x) = 2x + 3",
    "force = mass × acceleration",
    "def f(x):\n    return x + 1",
    "for i in range(10):\n    print(i)",
    "const x = 5;\nconsole.log(x);",
    "import numpy as np\nx = np.zeros(3)",
    "SELECT name FROM users WHERE id = 3",
    "#include <stdio.h>\nint main() {\n    return 0;\n}",
    "git commit -m 'fix'",
    "npm install --save-dev typescript",
    "cd /usr/local/bin && ls -la",
    '{"name": "Bob", "age": 5}',
    "Côte d'Ivoire",
    "user@example.com",
    "example.com",
    "- Tokyo\n- Osaka\n- Kyoto",
    "1016",
    "",
]
SENTENCES: list[tuple[str, Language]] = [
    ("The answer is Paris.", "en"),
    ("He was born in Salzburg.", "en"),
    ("It is 5.", "en"),
    ("for example, the train stops here", "en"),
    ("If x = 3, then the sum of both is 7.", "en"),
    ("Return the book to the library; it is late.", "en"),
    ('{"answer": "the capital of Japan is Tokyo"}', "en"),
    ("他叫 Wolfgang Amadeus Mozart。", "zh"),
    ("他住在 New York City。", "zh"),
    ("这首曲子是 Johann Sebastian Bach 写的。", "zh"),
    ("彼の名前は Wolfgang Amadeus Mozart です。", "ja"),
    ("作者は Gabriel García Márquez です。", "ja"),
    ("次のコードを使います。\ndef f(x):\n    return x + 1", "ja"),
]


@pytest.mark.parametrize("text", NEITHER)
def test_names_formulas_and_code_are_never_in_a_wrong_language(text: str) -> None:
    assert all(fits(text, asked) is not False for asked in LANGUAGES)


@pytest.mark.parametrize(("text", "language"), SENTENCES)
def test_sentences_keep_their_language(text: str, language: Language) -> None:
    assert fits(text, language) is not False
    assert all(fits(text, other) is not True for other in LANGUAGES if other != language)


def test_sentences_are_no_names() -> None:
    for text in (
        "It Is Here",
        "The answer is Paris",
        "Paris is big.",
        "答案是巴黎",
        "日本第二高峰即北岳山也",
        "北岳です",
    ):
        assert not is_name(text), text


def test_code_lines_alone_are_taken_out() -> None:
    assert without_code("Use this:\n\nx = f(3)\n\nIt works.").split() == ["Use", "this:", "It", "works."]
    prose = "A sentence (with brackets); another one = fine, since the words go on and on."
    assert without_code(prose) == prose
