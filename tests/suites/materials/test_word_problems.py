"""Word problems are reproducible, all different, and their worked solutions add up."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.materials.word_problems import word_problems

OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
EQUATION = re.compile(r"(\d+(?: [-+*/] \d+)+) = (\d+)")
SEEDS = st.integers(0, 2**32)


def evaluate(expression: str) -> Fraction:
    """Work out an expression of whole numbers and + - * /, and refuse anything else."""

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError(f"not plain arithmetic: {expression!r}")

    return value(ast.parse(expression, mode="eval").body)


def split_answer(answer: str) -> tuple[str, int]:
    """Separate a worked solution from the whole number on its last line."""
    solution, result = answer.split("\n#### ")
    assert re.fullmatch(r"0|[1-9]\d*", result)
    return solution, int(result)


def test_the_first_problem_stays_the_same() -> None:
    assert word_problems(1) == [
        {
            "id": "wp-0001",
            "question": "Ingrid picks 11 pears in the morning and 7 pears in the afternoon. "
            "How many pears does Ingrid pick in all?",
            "answer": "Ingrid picks 11 + 7 = 18 pears in all.\n#### 18",
        }
    ]


@given(seed=SEEDS, counts=st.tuples(st.integers(0, 80), st.integers(0, 80)))
def test_a_shorter_list_is_the_beginning_of_a_longer_one(seed: int, counts: tuple[int, int]) -> None:
    short, long = sorted(counts)
    assert word_problems(short, seed) == word_problems(long, seed)[:short]


def test_problems_and_ids_are_all_different() -> None:
    problems = word_problems(500)
    assert len({problem["question"] for problem in problems}) == 500
    assert [problem["id"] for problem in problems[:2] + problems[-1:]] == ["wp-0001", "wp-0002", "wp-0500"]
    assert len({problem["id"] for problem in problems}) == 500


def test_another_seed_gives_other_problems() -> None:
    first, second = ({problem["question"] for problem in word_problems(100, seed)} for seed in (0, 1))
    assert len(first & second) < 5


@given(seed=SEEDS)
def test_every_equation_holds_and_the_last_gives_the_answer(seed: int) -> None:
    for problem in word_problems(48, seed):
        solution, result = split_answer(problem["answer"])
        equations = EQUATION.findall(solution)
        assert solution.count("=") == len(equations) >= 1
        for left, right in equations:
            assert evaluate(left) == int(right) > 0
        assert result == int(equations[-1][1])


@given(seed=SEEDS)
def test_every_starting_number_comes_from_the_question_or_an_earlier_step(seed: int) -> None:
    words = {"half": "2", "twice": "2", "three": "3", "four": "4"}
    for problem in word_problems(48, seed):
        known = set(re.findall(r"\d+", problem["question"]))
        known |= {words[word] for word in re.findall(r"\w+", problem["question"]) if word in words}
        for left, right in EQUATION.findall(split_answer(problem["answer"])[0]):
            assert set(re.findall(r"\d+", left)) <= known
            known.add(right)


@given(seed=SEEDS)
def test_nothing_is_counted_in_the_singular(seed: int) -> None:
    for problem in word_problems(48, seed):
        text = problem["question"] + " " + problem["answer"]
        assert all(int(digits) >= 2 for digits in re.findall(r"\d+", text))
        assert re.fullmatch(r"[A-Z].*[a-z]\?", problem["question"])


def test_the_templates_take_turns() -> None:
    marks = ["in the morning", "gives", "holds", "equally", "At the market", "and buys", "altogether"]
    marks += ["Tuesday", "sets out", "saves", "batches", "jam", "miles", "an hour", "older", "the rest"]
    for i, problem in enumerate(word_problems(40)):
        assert [mark for mark in marks if mark in problem["question"]] == [marks[i % 16]]


@pytest.mark.parametrize("text", ["__import__('os')", "2 ** 9", "-3 + 4", "x + 1"])
def test_the_evaluator_refuses_anything_but_plain_arithmetic(text: str) -> None:
    with pytest.raises(ValueError, match="not plain arithmetic"):
        evaluate(text)
