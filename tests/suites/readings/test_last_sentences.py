"""Answers that never say "the answer is": the result of the last sentence, not what stands beside it."""

import json
import os
import re
from pathlib import Path

import pytest

from suites.readings.final_letters import final_letter
from suites.readings.final_numbers import final_number

SHARED = Path(__file__).parents[4] / "shared" / "data"
GSM8K = Path(os.environ.get("QUANTGATE_DATA") or SHARED) / "gsm8k" / "test.jsonl"
TWENTY = [
    "If she buys 4 boxes at $5 each, she pays 4 x 5 = $20.",
    "There are 4 boxes with 5 pens each, so there are 20 pens.",
    "There are 4 boxes with 5 pens each, which means there are 20 pens in total.",
    "4 boxes of 5 pens each is 20 pens.",
    "4 boxes at 5 dollars each comes to 20 dollars",
    "Adding 12 and 8 gives us a total of 20 apples for the 4 children.",
    "Thus she earned $20 more than her brother, who earned $35.",
    "Hence it took 20 minutes for the 5 friends to clean 3 rooms.",
    "He had 50 at first and gave away 30, leaving him with 20.",
    "He had 50 at first and gave away 30, so he was left with 20 marbles, which is 10 more than Ben.",
    "Of the 50 students, 30 do not play, so 50 - 30 = 20 do.",
    "It will take her 20 days to save $400 at $20 a day.",
    "It takes 459 / 22.95 = 20 minutes for the lighthouse to blink 459 times.",
    "At 8 slices per tomato, Thelma will need 160/8=20 tomatoes to feed a family of 8.",
    "Her profit is $50 − $30 = $20, i.e. 40% of the revenue.",
    "He has 20 apples left after giving 5 to his sister.",
    "They need 20 cars because each car holds 5 people.",
    "Each of the 5 friends gets 20 stickers, with 0 left over.",
    "The share is 19.6 %, which rounds up to 20 %.",
    "She has 20 left.\n\nDoes that make sense? Would you like to try 3 more?",
    "It was 25 at first.\n#### x = 20",
    "( 4 * ( 10 / 2 ) )",
    "There will be twenty.",
    "Step-by-Step Answer: He started with 5 balls. 3 cans of 5 balls each are 15 balls. 5 + 15 = 20.",
    "Answer: He has 5 toys. He got 7 from mom and 8 from dad, so in total he has 5 + 7 + 8 = 20 toys.",
    "ステップごとの答え：彼は5個おもちゃを持っています。母から15個もらい、5+15=20個あります。",
    "逐步解答：他有 5 个玩具。妈妈给他 15 个，所以他一共有 5 + 15 = 20 个玩具。",
    "Answer: 20 toys. He had 5 and got 15, 5 + 15 = 20, of which 6 - 1 = 5 are red.",
    "1箱に5本のペンが4箱あるので、全部で20本です。",
    "总共需要20分钟才能走完5公里。",
    "所以，她需要花费20美元购买4个盒子。",
]


@pytest.mark.parametrize("text", TWENTY)
def test_the_result_of_a_sentence_is_read(text: str) -> None:
    assert final_number(text) == "20"


CUT = ["Let's compute: 16 - 3 = 13, then 13 -", "6 boxes of 3 are 18, so 18 =", r"Thus \boxed{1"]


@pytest.mark.parametrize("text", [*CUT, "I have one of them in mind.", "No idea, two people asked.", "Which of the 5?"])
def test_what_is_no_result_is_none(text: str) -> None:
    assert final_number(text) == ""


@pytest.mark.skipif(not GSM8K.exists(), reason="no gsm8k in QUANTGATE_DATA")
def test_worked_solutions_end_with_their_result() -> None:
    rows = [json.loads(line) for line in GSM8K.read_text("utf-8").splitlines()[:300]]
    wrong = []
    for row in rows:
        solution, _, result = re.sub(r"<<[^>]*>>", "", row["answer"]).partition("####")
        if final_number(solution) != result.strip().replace(",", ""):
            wrong.append(solution.splitlines()[-1])
    assert len(wrong) <= 3, wrong


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ('{"answer": "D", "confidence": 0.9}', "D"),
        ('```json\n{"choice": "D"}\n```', "D"),
        ("Selected option: D", "D"),
        ("The answer is ‘D’.", "D"),
        ("Eliminating A, B and C leaves D.", "D"),
        ("None of them is exactly right, but D is the closest.", "D"),
        ("The most accurate choice is D.", "D"),
        ("It's clear that A, B and C are wrong. D.", "D"),
        ("よって、Dが正しい。", "D"),
        ("正解はDの「光合成」です。", "D"),
        ("A: Too small, incorrect.\nB: Incorrect.\nC: Incorrect.\nD: This matches, correct.", "D"),
        ("d) Photosynthesis", "D"),
        ("D it is.", "D"),
        ("My choice would be option D.", "D"),
        ("The answer is not C, it is D.", "D"),
        ("The answer is (C)? No. It is (D).", "D"),
        ("It's not C. The answer? D.", "D"),
        ("Is it D?", ""),
        ("A: D", "D"),
        ("A: 25 m/s", "A"),
        ("A: Let's think step by step. The focal length is 20 cm, so the other must be 80 cm.", ""),
        ("Consumption (C) counts, I", ""),
        ("(a) The reactant is nitrogen-14. (b) The product", ""),
        ("Statement I is true because it needs more steps. Sta", ""),
        ("(A) is a statement.\n(B) is a statement.\n(C) is a statement.\n(D", ""),
        ("1. A := B + C\n2. D :=", ""),
        ("Each gets 6% interest. Mr. G", ""),
        ("The cover touches every edge. I", ""),
        ("The stress is T/(A), where A is the area", ""),
        (r"We choose $C \in \mathbb{R}$ such that this holds for all t.", ""),
        ("C(graphite) + O_2(g) gives CO_2(g)", ""),  # the state of a gas
        ("a[i] == max || !(max != a[i])", ""),  # an index
        ("Point A lies on the line, so f(A) = 0.", ""),
        ("The rate of change is (a) 5 / 3 and it goes on", ""),  # a part of the question
        ("(a) The rate of change is this: " + "we compute more and more, then " * 20, ""),
    ],
)
def test_letters_without_a_statement(text: str, letter: str) -> None:
    assert final_letter(text) == letter
