"""The final answer of a text is found wherever models put it, and hostile text costs no time."""

from collections.abc import Callable

import pytest
from hangs import no_hang
from hypothesis import given
from hypothesis import strategies as st

from suites.readings import final_letters
from suites.readings.final_expressions import final_expression
from suites.readings.final_letters import final_letter
from suites.readings.final_numbers import final_number
from suites.readings.numerals import plain_number
from suites.readings.statements import LONGEST, STATEMENTS, TAIL, own_answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("First 7 + 11 = 18 pears.\nThe answer is 18.", "18"),
        ("The answer is **18**", "18"),
        ("**Answer:** 18 dollars a day for 5 days", "18"),
        ("The answer is 18. Check: 9 + 9 is that, and 20 is not.", "18"),
        ("The answer is 16 - 3 + 5 = 18 dollars", "18"),
        ("The answer is:\n\n18 dollars, of 20.", "18"),
        ("### Final Answer\n18\n\nI have 5 more remarks", "18"),
        ("The answer is 5. No, wait. The answer is 18.", "18"),
        ("The answer is near. It is 18", "18"),  # the statement has no number
        (r"So \boxed{18}. That took 3 steps.", "18"),
        (r"\boxed{18\text{ km}^2}", "18"),
        (r"\boxed{x = 18}", "18"),
        (r"\boxed{\$1{,}234.50}", "1234.5"),
        (r"$1\,234$", "1234"),
        ("Steps: 16-3=<<16-3=13>>13\n#### 13", "13"),
        ("It is $18.00 in all.", "18"),
        ("It is -$18", "-18"),
        ("It is $-18", "-18"),
        ("16-3", "13"),  # no sign, a difference
        ("(5)-3", "2"),
        ("- 18 pears", "18"),  # a bullet
        ("−7", "-7"),
        ("18 pears, of which 7 are green", "18"),
        ("1,2,3", "3"),
        ("That makes 1,234,567.", "1234567"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("-0", "0"),
        ("007", "7"),
        ("18%", "18"),
        ("US$18", "18"),
        ("18 km^2 in H2O", "18"),
        (r"The answer is $3\frac{1}{2}$.", "3.5"),
        ("The answer is negative five.", "-5"),
        ("The answer is one half.", "0.5"),
        ("The answer is two thirds of the cake.", "2/3"),
        ("答えは2分の1です。", "0.5"),
        ("答案是二分之一。", "0.5"),
        ("答案是百分之十八。", "18"),
        ("The answer is 18M.", "18000000"),
        ("The answer is 20 – no wait, 18.", "18"),
        ("The answer is not 20, it is 18.", "18"),
        ("I think the answer is 18, but it might be 20.", "18"),
        ("The answer might be 18 or 20.", ""),
        ("The answer is 20? No. It is 18.", "18"),
        ("Ten minus five is five.", "5"),
        ("答えは20個と思われましたが、正しくは18個です。", "18"),
        ("答えは１８です。", "18"),
        ("答えは、18ドルです。10個でした。", "18"),
        ("答え：１，２３４円", "1234"),
        ("合計は－５度", "-5"),
        ("答案是：18美元，共5天", "18"),
        ("**答案**：18", "18"),
        ("所以答案为 3万5000", "35000"),
        ("1.5万", "15000"),
        ("７万ドル", "70000"),
        ("最後に、18", "18"),
        ("I do not know.", ""),
        ("", ""),
        (r"\boxed{", ""),
        ("The answer is", ""),
    ],
)
def test_numbers(text: str, number: str) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (C).", "C"),
        ("the answer is C", "C"),
        ("The correct answer is: **C**", "C"),
        ("The answer is option C because of D", "C"),
        ("The answer is C. Postmodern ethics", "C"),
        ("Answer: C", "C"),
        ("Answer:\n\n(C) Postmodern ethics", "C"),
        (r"The answer is $\boxed{\text{(C)}}$", "C"),
        ("The answer is (A). No, sorry: the answer is (C).", "C"),
        ("The answer is Postmodern ethics, (C)", "C"),
        (r"So it is \boxed{C}.", "C"),
        (r"\boxed{\text{C. Postmodern ethics}}", "C"),
        (r"The answer is (C). \boxed{D}", "C"),
        ("It must be this:\n\nC", "C"),
        ("It must be this:\n\n**(C)**\n\nI hope that helps.", "C"),
        ("It must be this:\nC. Postmodern ethics", "C"),
        ("答案是 Ｃ", "C"),
        ("The answer is I", "I"),
        ("The answer is (A)", "A"),
        ("The answer is a matter of taste", ""),
        ("The answer is A matter of taste", ""),
        ("The answer is I think\n(B)", "B"),
        ("The answer is (K)", ""),
        ("The answer is DNA", ""),
        ("C is wrong, D is wrong", ""),
        ("A long line.\nI do not know.", ""),
        ("", ""),
    ],
)
def test_letters(text: str, letter: str) -> None:
    assert final_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (r"Hence \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{\boxed{2}}", "2"),
        (r"\boxed{5} goes into \boxed{}", "5"),
        (r"\boxed{5} and then \boxed{\frac{1}{", "5"),  # cut by the budget
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed5", "5"),
        (r"\\boxed{5}", "5"),
        (r"\\" + r"\boxed{5}", "5"),  # a line break before it
        (r"\boxed{5}. The answer is a prime.", "5"),
        (r"The final answer is $\frac{1}{2}$. I hope so.", r"\frac{1}{2}"),
        (r"The answer is $x = 2$ where $y = 3$", "x = 2"),
        ("The answer is p - q.", "p - q"),
        ("**Answer:** Evelyn", "Evelyn"),
        ("The answer is\n\\[\n  \\sqrt{2}\n\\]\nas $3 > 2$", r"\sqrt{2}"),
        ("The answer is\n\n$$\n\\sqrt{2}\n$$", r"\sqrt{2}"),
        (r"The answer is $\$32.50$", r"\$32.50"),
        (r"The answer is $3! \times 5! = 720$.", r"3! \times 5! = 720"),
        (r"Hence the sum is $3! \times 5! = 720 = x$ for $n = 3$.", "720"),
        (r"There are $\frac{5}{9} \times 18 = 10$ of the $18$ left.", "10"),
        (r"Of $9$ and $10$ we only need the last when divided by $9,$ which is $1.$", "1"),
        (r"The largest value of $x$ at which they meet is $x=6$.", "6"),
        (r"The equation of the plane is $5x - 7y + 4 = 0.$", "5x - 7y + 4 = 0"),
        ("We get\n\\begin{align*}\nx &= 2 + 3 \\\\\n&= 5\n\\end{align*}", "5"),
        (r"$x = 2 + 3 = 5$, so the answer is correct. Shall I show $n = 3$?", "5"),
        (r"so \(a\) is \(b+1\), as said", "b+1"),
        ("so $a$ is 7", "7"),
        ("Thus √2.", "√2"),
        ("The answer is 2√3 cm.", "2√3"),
        ("The answer is ~~4~~ 5.", "5"),
        ("no idea", ""),
        ("", ""),
    ],
)
def test_expressions(text: str, expression: str) -> None:
    assert final_expression(text) == expression


@given(st.integers(-(10**15), 10**15), st.sampled_from(["{:d}", "{:,d}", "{:d}.00", "{:,d}.0"]))
def test_every_integer_is_read_back(value: int, form: str) -> None:
    said = form.format(value)
    assert plain_number(said) == str(value)
    for text in (f"The answer is {said}.", f"3 and 4 make {said}", rf"\boxed{{{said}}}", f"答えは{said}です", said):
        assert final_number(text) == str(value)


@given(st.text())
def test_a_plain_number_is_a_number_and_nothing_else(text: str) -> None:
    number = plain_number(text)
    assert number == "" or (float(number) == float(number) and final_number(text) == number)


HOSTILE = [
    r"\boxed{" * 20_000,
    "{" * 100_000,
    r"\[" * 50_000,
    "$" * 100_000,
    "$a" * 50_000,
    "answer is " * 10_000,
    "The answer is " + "*" * 100_000,
    "####" * 25_000,
    "答えは" * 33_000,
    "9" * 100_000,
    "9," * 50_000,
    "9万" * 50_000,
    ("9" * 30 + "万") * 3_000,
    "-" * 100_000,
    " " * 100_000,
    "\n" * 100_000,
    "(A" * 50_000,
    "A" * 100_000,
    "\\" * 100_000,
    "\x00\ud800\uffff" * 30_000,
    "answer to the " * 8_000,
    "if 1, so 2 " * 9_000,
    "each 2. " * 12_000,
    "which is 18, " * 8_000,
    "user\n" * 20_000,
    "wait, no, " * 10_000,
]


@pytest.mark.parametrize("find", [final_number, final_letter, final_expression])
def test_hostile_text_is_read_in_no_time(find: Callable[[str], str]) -> None:
    for text in HOSTILE:
        with no_hang():
            found = find(text)
        assert len(found) <= TAIL


@given(st.text(alphabet="\\boxed{}$[]()answeris:#18.,-万 \n答えは", max_size=200))
def test_nothing_is_made_up(text: str) -> None:
    assert len(final_expression(text)) <= max(LONGEST, len(text))
    assert final_letter(text) in ("", *"ABCDEFGHIJ")
    number = final_number(text)
    assert number == plain_number(number)


def test_only_the_end_is_looked_at() -> None:
    far = r"\boxed{5}. The answer is (B) 5." + " word" * TAIL
    assert (final_number(far), final_letter(far), final_expression(far)) == ("", "", "")
    assert final_number("9 " * TAIL + "The answer is 5") == "5"


def test_a_long_sentence_is_not_read_again_from_each_of_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    letter_of = final_letters._letter_of

    def counted(said: str) -> str | None:
        read.append(len(said))
        return letter_of(said)

    monkeypatch.setattr(final_letters, "_letter_of", counted)
    final_letter("which is 18, " * 5000)
    assert sum(read) <= 2 * STATEMENTS * LONGEST


def test_stretches_between_questions_are_read_once() -> None:
    read: list[int] = []

    def holds(before: str) -> bool:
        read.append(len(before))
        return False

    own_answer("The pens.\nuser\n" * 5000, holds)
    assert 0 < sum(read) <= TAIL


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("I don't think it is B.", ""),
        ("It is not clear that it is B.", ""),
        ("If it is B, we get 5.", ""),
        ("Consider (B).", ""),
        ("Let me check option (C).", ""),
        ("Let me check: it matches (B).", "B"),
        ("The answer is B? Let's try another approach. The answer is C.", "C"),
        ("The correct answer is:\nA. 5\nB. 6\nC. 7", ""),
    ],
)
def test_what_is_denied_or_weighed_is_not_chosen(text: str, letter: str) -> None:
    assert final_letter(text) == letter
