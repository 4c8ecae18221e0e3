"""math-verify compares expressions in a process of its own: right ones are the same, and nothing hangs or kills us."""

import threading
import time

import pytest
from hangs import no_hang

from suites.readings import math_grader
from suites.readings.expressions import spelled
from suites.readings.math_grader import GraderError, same_expression

pytestmark = pytest.mark.slow  # a process that hangs is waited for

SAME = [
    ("204", "204"),
    ("204", "204.0"),
    ("204", r"m + n = 204"),
    ("5", "5 apples"),
    ("5", r"5\text{ cm}"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{1}{2}", "1/2"),
    ("2\\sqrt{3}", r"\sqrt{12}"),
    ("p - q", "-q + p"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
    ("[2,5)", r"\left[2, 5\right)"),
    (r"\text{(B)}", r"\text{(B)} 25"),
    (r"\frac{1}{6}", r"0.1\overline{6}"),
    (r"(-\infty,-1)\cup(2,\infty)", r"x < -1 \text{ or } x > 2"),
    (r"\text{Evelyn}", r"\text{Evelyn}"),
    (r"\text{Evelyn}", "Evelyn"),
    ("3", r"\text{three}"),
    ("6+9i", r"6 + 9\,i"),
    ("3+4i", "3 + 4 i"),
    ("5", "5=x"),
    ("5", "5,"),
    ("5", r"5\,"),
    (r"\{1, 2\}", r"\{2, 1\}"),
    (r"\$32,\!348", "32348"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
]
OTHER = [
    ("204", "205"),
    ("204", "-204"),
    ("1", "8n^2 + 4n + 1"),
    (r"\frac{1}{2}", r"\frac{1}{3}"),
    ("p - q", "q - p"),
    ("[2,5)", "[2,5]"),
    (r"\text{Evelyn}", r"\text{Briana}"),
    ("204", ""),
    ("204", "I do not know"),
    ("204", r"\frac{"),
    ("204", "}{"),
    ("204", "\x00\ud800"),
    ("204", r"\begin{pmatrix}"),
    ("204", "1/0"),
]


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_equal_expressions_are_the_same(gold: str, answer: str) -> None:
    assert same_expression(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_other_expressions_are_not(gold: str, answer: str) -> None:
    assert not same_expression(gold, answer)


def test_a_gold_answer_that_cannot_be_read_is_no_wrong_answer() -> None:
    with pytest.raises(GraderError, match="gold answer ' ' cannot be read"):
        same_expression(" ", "204")


def test_an_answer_that_would_take_for_ever_is_ended_and_the_next_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_grader, "SECONDS", 1)
    start = time.monotonic()
    assert not same_expression("204", "9^{9^{9^9}}")
    assert time.monotonic() - start < 60
    monkeypatch.undo()
    assert same_expression("204", "204")


def test_a_worker_that_died_is_replaced() -> None:
    assert same_expression("204", "204")
    assert math_grader._worker is not None
    process, _ = math_grader._worker
    process.kill()  # as the kernel does when memory runs out
    process.join()
    assert same_expression("204", "204")


def test_any_thread_may_ask() -> None:
    found: list[bool] = []

    def ask(value: int) -> None:
        found.append(same_expression(str(value), f"{value}.0") and not same_expression(str(value), "-1"))

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 16


def test_a_whole_text_of_thinking_is_spelled_in_no_time() -> None:
    with no_hang():
        assert spelled("~ " * 50_000) == ""
        assert spelled("x" + r"\," * 50_000 + "y")
