"""Problems of many steps: every answer is found again from the text alone, by other means."""

import hashlib
import json
import math
import re
from itertools import combinations, pairwise
from math import comb, prod

import pytest

from suites.materials.multistep import KINDS, LEAST, LEVELS, MOST, Level, Problem, make_problem
from suites.readings.accepted_answers import numbers
from suites.readings.scripts import LANGUAGES, fits

COUNT = 48


def problems() -> list[tuple[Level, Problem]]:
    return [(level, make_problem(level, index)) for level in LEVELS for index in range(COUNT)]


def of_kind(kind: str) -> list[Problem]:
    found = [problem for _, problem in problems() if problem.kind == kind]
    assert len(found) == len(LEVELS) * COUNT // len(KINDS)
    return found


def given(problem: Problem) -> list[int]:
    """The numbers of the English question, in its order."""
    return [int(number) for number in re.findall(r"\d+", problem.question["en"])]


def test_the_chinese_remainder_theorem_gives_the_remainders() -> None:
    for problem in of_kind("remainders"):
        above, *pairs = given(problem)
        left, moduli = pairs[::2], pairs[1::2]
        whole = prod(moduli)
        least = sum(r * (whole // m) * pow(whole // m, -1, m) for r, m in zip(left, moduli, strict=True)) % whole
        assert problem.answer == above + 1 + (least - above - 1) % whole


def test_inclusion_and_exclusion_gives_the_multiples() -> None:
    for problem in of_kind("multiples"):
        _, limit, *some, never = given(problem)
        total = 0
        for size in range(1, len(some) + 1):
            for chosen in combinations(some, size):
                step = math.lcm(*chosen)
                total += (-1) ** (size + 1) * (limit // step - limit // math.lcm(step, never))
        assert problem.answer == total


def test_the_closed_form_gives_the_term_of_a_sequence() -> None:
    for problem in of_kind("sequence"):
        first, times, plus, modulus, term, _ = given(problem)
        steps = term - 1
        value = times**steps * first + plus * (times**steps - 1) // (times - 1)
        assert problem.answer == value % modulus


def test_trying_all_numbers_of_coins_gives_the_ways() -> None:
    def ways(kinds: list[int], amount: int) -> int:
        if len(kinds) == 1:
            return int(amount % kinds[0] == 0)
        return sum(ways(kinds[1:], rest) for rest in range(amount, -1, -kinds[0]))

    for problem in of_kind("coins"):
        *kinds, amount = given(problem)
        assert problem.answer == ways(kinds, amount)


def test_inclusion_and_exclusion_over_closed_points_gives_the_paths() -> None:
    def between(a: tuple[int, int], b: tuple[int, int]) -> int:
        x, y = b[0] - a[0], b[1] - a[1]
        return comb(x + y, x) if x >= 0 and y >= 0 else 0

    for problem in of_kind("paths"):
        points = [(int(x), int(y)) for x, y in re.findall(r"\((\d+), (\d+)\)", problem.question["en"])]
        start, end, *closed = points
        total = 0
        for size in range(len(closed) + 1):
            for chosen in combinations(sorted(closed), size):
                stations = [start, *chosen, end]
                total += (-1) ** size * prod(between(a, b) for a, b in pairwise(stations))
        assert problem.answer == total and set(closed).isdisjoint((start, end))


def test_month_after_month_gives_the_savings() -> None:
    for problem in of_kind("savings"):
        money, first, more, every, months = given(problem)
        payment = first
        for month in range(1, months + 1):
            money += payment
            payment += more
            money = money if month % every else (money + 1) // 2
        assert problem.answer == money


def test_numbers_below_a_limit_give_those_of_a_stretch() -> None:
    def digit_sum(n: int) -> int:
        return n % 10 + digit_sum(n // 10) if n else 0

    for problem in of_kind("digit_sums"):
        low, high, left, divisor = given(problem)
        below = [sum(digit_sum(n) % divisor == left for n in range(limit)) for limit in (low, high + 1)]
        assert problem.answer == below[1] - below[0]


def test_cramers_rule_gives_the_tickets() -> None:
    for problem in of_kind("tickets"):
        child, student, adult, people, paid, more = given(problem)
        # children + students + adults = people, adults = children + more
        children, rest = divmod(paid - adult * more - student * (people - more), child + adult - 2 * student)
        students = people - 2 * children - more
        assert rest == 0 and children > 0 and students > 0 and problem.answer == students * student


@pytest.mark.parametrize("level", LEVELS)
def test_all_languages_ask_the_same(level: Level) -> None:
    for index in range(COUNT):
        problem = make_problem(level, index)
        asked = {language: sorted(re.findall(r"\d+", problem.question[language])) for language in LANGUAGES}
        for language in LANGUAGES:
            assert set(asked[language]) <= set(asked["en"]) | {"1"} and set(asked["en"]) - {"1"} <= set(asked[language])
            assert fits(problem.question[language], language) is True
            assert str(problem.answer) not in numbers(problem.question[language])
        assert LEAST <= problem.answer <= MOST


def test_kinds_take_turns_and_no_question_comes_twice() -> None:
    for level in LEVELS:
        made = [make_problem(level, index) for index in range(COUNT)]
        assert [problem.kind for problem in made] == list(KINDS) * (COUNT // len(KINDS))
        assert len({problem.question["en"] for problem in made}) == COUNT


def test_other_seeds_and_levels_give_other_problems() -> None:
    asked = {make_problem(level, 5, seed).question["en"] for level in LEVELS for seed in range(10)}
    assert len(asked) == len(LEVELS) * 10


def test_harder_levels_take_more_steps() -> None:
    """By the length of the sequence, the coins, the closed points, the months: never fewer."""
    for kind, place in (("sequence", -2), ("savings", -1)):
        steps = [[given(p)[place] for level, p in problems() if (level, p.kind) == (at, kind)] for at in LEVELS]
        assert max(steps[0]) < min(steps[1]) and max(steps[1]) < min(steps[2])


def test_the_problems_of_a_seed_stay_the_same() -> None:
    """Items keep their prompts from version to version: a run can then be compared with an older one."""
    made = [[problem.question, problem.answer] for _, problem in problems()]
    text = json.dumps(made, ensure_ascii=False, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "ee9af91a0721871f"
