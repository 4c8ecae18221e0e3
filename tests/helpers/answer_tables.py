"""Answers with the score that a careful person gives, made by tables: statement forms × values for each task of cot.

Each case is (text, gold, right): 1 right, 0 wrong, None where nothing is answered.
"""

from __future__ import annotations

from collections.abc import Iterator

Case = tuple[str, str, float | None]

VALUES = [
    # (written, gold, whether it is the gold)
    ("42", "42", 1),
    ("42.0", "42", 1),
    ("４２", "42", 1),
    ("1,250", "1250", 1),
    ("1 250", "1250", 1),
    ("1\u202f250", "1250", 1),
    ("2.5 thousand", "2500", 1),
    ("3.5k", "3500", 1),
    (r"\frac{84}{2}", "42", 1),
    ("4.2e1", "42", 1),
    (r"4.2 \times 10^1", "42", 1),
    ("−42", "-42", 1),
    ("42/5", "42", 0),
    (r"\frac{42}{5}", "42", 0),
    ("42 × 10^2", "42", 0),
    ("42 million", "42", 0),
    ("42k", "42", 0),
    ("–42", "42", 0),
    ("42 000", "42", 0),
    ("42,500", "42", 0),
    ("42.5", "42", 0),
    ("42万", "42", 0),
    ("42^2", "42", 0),
    ("142", "42", 0),
]
FORMS = {
    "en": [
        "The answer is {}.",
        "**Answer:** {}",
        "Each costs 7, so the final answer is {}.",
        "### Answer\n\n{}",
        r"Hence \boxed{{{}}}.",
        "6 + 8 = 14 first.\n#### {}",
    ],
    "ja": [
        "答えは{}です。",
        "答え：{}",
        "したがって、正解は{}になります。",
        "### 答え\n**{}**\n（6本 × 7）",
        "【答え】{}",
        r"\boxed{{{}}}",
    ],
    "zh": [
        "答案是{}。",
        "**答案**：{}",
        "因此，最终答案应为{}。",
        "答案就是{}。",
        "答案等于{}，即6乘7。",
        r"\boxed{{{}}}",
    ],
}
BESIDE: dict[str, list[Case]] = {
    "en": [
        ("The answer is 42 (= 6 × 7).", "42", 1),
        ("The answer is 42, since half of it is 21.", "42", 1),
        ("The answer is 42 pens for 6 children.", "42", 1),
        ("The answer is 6 × 7 = 42.", "42", 1),
        (r"\boxed{42 = 6 \times 7}", "42", 1),
        ("So 42 is the answer.", "42", 1),
        ("The answer is 40. Wait, that is wrong. The answer is 42.", "42", 1),
        ("The answer is not 40 but 42.", "42", 1),
        ("It is 42.\n\n#### Step 2: Check\nFine.", "42", 1),
        ("The answer is 42.\n\nQuestion: and 5 boxes of 7?\nThe answer is 35.", "42", 1),
        ("The answer is 42.\n\nQuestion: and 5 boxes of 7?\nThe answer is 35.", "35", 0),
        ("The answer is 42 or 43.", "42", None),
        ("I do not know.", "42", None),
        ("", "42", None),
    ],
    "ja": [
        ("答えが42ドルになります。", "42", 1),
        ("答えは6本で42ドルです。", "42", 1),
        ("答えは42円（税込46円）です。", "42", 1),
        ("42個が答えです。", "42", 1),
        ("答えは40ではなく42です。", "42", 1),
        ("答えは四十二です。", "42", 1),
        ("答えは42です。\n\n問題：次は？\n答えは35です。", "42", 1),
        ("合計は42ドルです。", "42", 1),
        ("答えは1日あたり42ドルです。", "42", 1),
        ("わかりません。", "42", None),
    ],
    "zh": [
        ("答案应该是42元，即6支笔，每支7元。", "42", 1),
        ("答：6支笔一共42元。", "42", 1),
        ("答案應為42元（6乘7）。", "42", 1),
        ("42就是答案。", "42", 1),
        ("答案是四十二。", "42", 1),
        ("答案是42。\n\n问题：再来一题\n答案是35。", "42", 1),
        ("所以一共是42美元。", "42", 1),
        ("答案是42元，因为6乘7等于42。", "42", 1),
        ("我不知道。", "42", None),
    ],
}


def number_cases(language: str) -> Iterator[Case]:
    """Of a task whose answer is one number, in a language."""
    forms = FORMS[language]
    for index, (written, gold, right) in enumerate(VALUES):
        for form in (forms[index % len(forms)], forms[(index + 1) % len(forms)], forms[(index + 3) % len(forms)]):
            if language == "en" or not any(word in written for word in ("million", "thousand")):
                yield form.format(written), gold, right
    yield from BESIDE[language]


LETTER_FORMS = [
    "The answer is ({}).",
    "The answer is {}.",
    "**Answer: {}**",
    "The correct option is ({}).",
    "It must be ({}).",
    "({}) is the correct answer.",
    r"The answer is \({}\).",
    "The answer is `{}`.",
    "故选：{}",
    "答案是{}。",
    "正解は{}です。",
    "<answer>{}</answer>",
    r"\boxed{{\text{{{}}}}}",
    "I would choose {}.",
    "The answer is ({}) because A and E fail.",
    "Weighing B cells and H-bonds, the answer is ({}).",
    "The answer is (A). Hmm, that is wrong: the correct option is ({}).",
    "Take F = 5 m.\n\n**{}**",
]
NO_LETTER = [
    "The answer is D-glucose.",
    "The answer is B cells.",
    "The answer is D = 5 m.",
    "It is (B) or (C).",
    "The answer is either C or D.",
    "The answer is C and D.",
    "None of the above.",
    "I don't know.",
    "The answer is not (C).",
    "A. Wrong, too small.\nB. Wrong too.\nC. Also wrong, since",
    "The answer is (C). Wait, that is wrong.",
    "",
]


def letter_cases() -> Iterator[Case]:
    """Of a task whose answer is the letter of an option."""
    for index, form in enumerate(LETTER_FORMS):
        for letter in ("C", "BDGH"[index % 4]):
            yield form.format(letter), letter, 1
            yield form.format(letter), "J", 0
    for text in NO_LETTER:
        yield text, "C", None
    yield "The answer is (d).", "D", 1
    yield "The answer is (B). No wait, actually it's (D).", "D", 1
    yield "The answer is (D). Wait, let me check again. Yes, it holds.", "D", 1
    yield "B and C fail, since 5 < 6. So D.", "D", 1
    yield "The answer is E. coli (D).", "D", 1
    yield "(A) No.\n(B) No.\n(C) No.\n(D) Correct, since 5 > 4.", "D", 1
    yield "The answer is C-reactive protein (D).", "D", 1


EQUAL = [
    ("50", r"50\%"),
    ("0.25", r"25\%"),
    ("60", r"60^\circ"),
    ("60", "60°"),
    ("17", "１７"),
    ("(4,5)", "（4，5）"),
    ("-8", "－8"),
    ("2345678", r"2\,345\,678"),
    ("20160", "20~160"),
    (r"\sqrt{3}", "√3"),
    ("9", r"\text{9 pears}"),
    ("9", r"9 \text{ m/s}"),
    ("9", "9個"),
    ("[3,7)", r"3 \le x < 7"),
    ("(-1,\\infty)", "x > -1"),
    ("1377_8", "1377_{8}"),
    (r"\frac{1}{4}", "0.25"),
    (r"\frac{3}{2}", "1½"),
    ("2\\sqrt{5}", r"\sqrt{20}"),
    (r"\{1,4\}", r"\{4,1\}"),
    ("5", "x = 5"),
    ("p+q", "q+p"),
    (r"\pi", "π"),
    ("10^{6}", "1000000"),
    ("1200", r"\$1,200"),
    ("C", r"\text{(C)}"),
    ("-\\frac{2}{3}", "−\\frac23"),
    ("7", "7.0"),
    ("12", r"12\text{ cm}^2"),
    ("2+3i", "3i+2"),
]
OTHER = [
    ("1377_8", "1377_{10}"),
    ("(4,5)", "4,5"),
    ("4,5", "(4,5)"),
    ("10^{-15}", "10^{-16}"),
    (r"\frac{1}{4}", "–\\frac14"),
    ("[3,7)", r"3 < x < 7"),
    ("5", "-5"),
    ("50", r"5\%"),
    ("(4,5)", "(5,4)"),
    (r"\sqrt{3}", "3"),
    ("9", "9^2"),
    ("9", r"9\pi"),
    ("4,5,6", "4,5"),
    ("p+q", "p-q"),
    ("C", "D"),
]
EXPRESSION_FORMS = [r"So \boxed{{{}}}", "The final answer is ${}$."]


def expression_cases() -> Iterator[Case]:
    """Of a task whose answer is an expression."""
    for pairs, right in ((EQUAL, 1), (OTHER, 0)):
        for gold, said in pairs:
            yield EXPRESSION_FORMS[0].format(said), gold, right
            if "$" not in said:
                yield EXPRESSION_FORMS[1].format(said), gold, right
    yield r"So \boxed{3}, \boxed{5} and \boxed{7}", "3,5,7", 1
    yield r"First \boxed{3}. Then we see that it is \boxed{5}", "5", 1
    yield "\\boxed{5}\n\nProblem: another one.\n\\boxed{6}", "5", 1
    yield "I do not know.", "5", None


def whole_number_cases() -> Iterator[Case]:
    """Of AIME: whole numbers from 0 to 999, in boxes and sentences."""
    for value in (7, 42, 204, 999):
        for form in (
            r"\boxed{{{}}}",
            r"\[ m+n = \boxed{{{}}} \]",
            "The answer is {}.",
            r"$\boxed{{\text{{{}}}}}$",
            r"\boxed{{{}.0}}",
        ):
            yield form.format(value), str(value), 1
            yield form.format(value + 1), str(value), 0
        for said in (
            rf"\boxed{{m+n={value}}}",
            rf"\boxed{{0{value}}}",
            f"Thus ${value}$.",
            rf"\boxed{{{value}}}^\circ",
        ):
            yield said, str(value), 1
        yield rf"\boxed{{-{value}}}", str(value), 0
        yield rf"\boxed{{{value}^2}}", str(value), 0
        yield "We cannot tell.", str(value), None


def cases_of(task: str) -> list[Case]:
    """The cases of a task of `cot`."""
    language = task.removeprefix("mgsm_") if task.startswith("mgsm_") else "en"
    made = {
        "mmlu_pro": letter_cases,
        "math500": expression_cases,
        "aime24": whole_number_cases,
        "aime25": whole_number_cases,
    }
    return list(made[task]() if task in made else number_cases(language))
