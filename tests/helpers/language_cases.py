"""Answers for the tests of termination and language."""

from harness.endpoint.answers import Completion

GOLD = {
    "en": ("The answer is {}.", "If we look at it closely, the right answer to this question is {} and nothing else."),
    "ja": ("答えは{}です。", "よく考えてみると、この質問の正しい答えは{}であり、ほかにはありません。"),
    "zh": ("答案是{}。", "仔细想一想就知道，这个问题的正确答案是{}，没有别的可能。"),
}
"""Sentences that give an answer, short and long."""

MANY = 200_000
HOSTILE = {
    "one letter": "a" * MANY,
    "kana and Latin": "あa" * (MANY // 2),
    "marks in the wrong order": "\u0301\u0316" * (MANY // 2),
    "marks between kana": "ﾞ\u0316" * (MANY // 2),
    "open formulas": "\\[" * (MANY // 2),
    "open code": "`a\n" * (MANY // 3),
    "dollars": "$" * (MANY + 1),
    "half a formula of blank lines": "$$" + " \n" * (MANY // 2),
    "open quotes": "“" * MANY,
    "open brackets": "([" * (MANY // 2),
    "open tags": "<a" * (MANY // 2),
    "hyphens": "a-" * (MANY // 2),
    "digits": "1" * MANY,
    "commas": "123," * (MANY // 4),
    "points": "1.1." * (MANY // 4),
    "markers": "wait " * (MANY // 5),
    "half markers": "hm" * (MANY // 2),
    "blanks in a marker": "hold   " * (MANY // 7),
    "groans": " うーー" * (MANY // 4),
    "replacements": "\ufffd" * MANY,
}


def completion(
    text: str = "", reasoning: str = "", finish: str = "stop", tokens: int = 100, null: bool = False
) -> Completion:
    return Completion(text, reasoning, finish, 7, tokens, [], [], 0.1, None, null=null)
