"""Problems that take many steps, with exact whole-number answers: generated, in English, Japanese and Chinese.

Three levels of each kind, so that thinking gets long. The answer is found by trying or counting, never by the formula
that a solver would use, so that a slip of one cannot be a slip of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from suites.readings.accepted_answers import numbers
from suites.readings.scripts import Language

Level = Literal["easy", "medium", "hard"]
LEVELS: tuple[Level, ...] = ("easy", "medium", "hard")
LEAST, MOST = 30, 10_000_000
"""Answers lie between: a smaller number would stand in the thinking by chance."""

Wordings = dict[Language, str]


@dataclass(frozen=True)
class Problem:
    """One problem in all languages."""

    kind: str
    question: Wordings
    answer: int


def make_problem(level: Level, index: int, seed: int = 0) -> Problem:
    """Problem `index` of a level, from these three alone; the kinds take turns.

    The answer is none of the numbers in the question.
    """
    kind = list(KINDS)[index % len(KINDS)]
    rng = Random(f"{seed}/multistep/{level}/{index}")  # a text as seed: the same on every machine, unlike hash()
    while True:
        question, answer = KINDS[kind](rng, LEVELS.index(level))
        given = {number for text in question.values() for number in numbers(text)}
        if LEAST <= answer <= MOST and str(answer) not in given:
            return Problem(kind, question, answer)


def draw(rng: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included. Only random() gives the same in every Python version."""
    return low + int(rng.random() * (high - low + 1))


def pick(rng: Random, values: list[int], count: int) -> list[int]:
    """`count` different values, in ascending order."""
    rest = list(values)
    return sorted(rest.pop(draw(rng, 0, len(rest) - 1)) for _ in range(count))


def remainders(rng: Random, level: int) -> tuple[Wordings, int]:
    """The smallest number above a limit with given remainders."""
    moduli = pick(rng, [[5, 7, 9], [7, 9, 11, 13], [11, 13, 16, 17, 19]][level], [2, 3, 3][level])
    left = [draw(rng, 1, modulus - 1) for modulus in moduli]
    above = draw(rng, 2, 9) * [10, 100, 1000][level]
    answer = next(n for n in range(above + 1, MOST) if all(n % m == r for m, r in zip(moduli, left, strict=True)))
    pairs = list(zip(moduli, left, strict=True))
    en = ", ".join(f"{r} when divided by {m}" for m, r in pairs)
    ja = "、".join(f"{m}で割ると{r}余り" for m, r in pairs)
    zh = "，".join(f"除以{m}余{r}" for m, r in pairs)
    return {
        "en": f"Find the smallest whole number greater than {above} that leaves these remainders: {en}.",
        "ja": f"{ja}、しかも{above}より大きい整数のうち、いちばん小さいものを求めてください。",
        "zh": f"一个整数大于{above}，并且{zh}。满足条件的最小整数是多少？",
    }, answer


def multiples(rng: Random, level: int) -> tuple[Wordings, int]:
    """How many numbers up to a limit are multiples of these and not of that (inclusion and exclusion)."""
    limit = draw(rng, 20, 95) * [10, 20, 100][level] + draw(rng, 1, 9)
    some = pick(rng, [3, 4, 5, 7], 2) if level < 2 else pick(rng, [4, 6, 9, 10, 15], 3)
    never = [11, 6, 7][level]
    answer = sum(any(n % d == 0 for d in some) and n % never != 0 for n in range(1, limit + 1))
    en, ja, zh = (word.join(map(str, some)) for word in (" or ", "または", "或"))
    return {
        "en": f"How many whole numbers from 1 to {limit} are divisible by {en}, but not by {never}?",
        "ja": f"1から{limit}までの整数のうち、{ja}で割り切れ、しかも{never}では割り切れないものは何個ありますか。",
        "zh": f"从1到{limit}的整数中，能被{zh}整除、但不能被{never}整除的数有多少个？",
    }, answer


def sequence(rng: Random, level: int) -> tuple[Wordings, int]:
    """A term of a recursive sequence that is reduced by a modulus at each step."""
    terms, modulus = [5, 9, 15][level], draw(rng, 30, 49) * [2, 10, 20][level] + 1
    first, times, plus = draw(rng, 2, 9), draw(rng, 3, 9), draw(rng, 2, 29)
    value = first
    for _ in range(terms - 1):
        value = (times * value + plus) % modulus
    return {
        "en": f"A sequence starts with {first}. Each next term is the remainder of ({times} × the term before + {plus})"
        f" divided by {modulus}. What is term number {terms} (the start is term number 1)?",
        "ja": f"ある数列は{first}から始まります。次の項は、前の項に{times}を掛けて{plus}を足した数を"
        f"{modulus}で割った余りです。最初の項を第1項とするとき、第{terms}項はいくつですか。",
        "zh": f"一个数列的第1项是{first}。以后的每一项等于“前一项乘以{times}再加{plus}”除以{modulus}的余数。"
        f"第{terms}项是多少？",
    }, value


def coins(rng: Random, level: int) -> tuple[Wordings, int]:
    """In how many ways an amount can be paid with three or four kinds of coins."""
    kinds = pick(rng, [[3, 4, 5, 6, 10], [2, 3, 4, 5, 10], [2, 3, 4, 5, 8, 10]][level], [3, 3, 4][level])
    amount = draw(rng, 40, 99) + 20 * level
    ways = [1] + [0] * amount
    for coin in kinds:
        for total in range(coin, amount + 1):
            ways[total] += ways[total - coin]
    en, ja = ", ".join(map(str, kinds)), "、".join(map(str, kinds))
    return {
        "en": f"There are coins of {en} cents, as many of each as needed. In how many ways can exactly {amount} cents "
        "be paid? Only the number of coins of each kind matters, not their order.",
        "ja": f"{ja}セントの硬貨がそれぞれ十分にあります。ちょうど{amount}セントを払う方法は何通りありますか。"
        "硬貨を出す順番は区別しません。",
        "zh": f"有面值为{ja}分的硬币，每种都足够多。恰好付{amount}分有多少种付法？不考虑硬币的先后顺序。",
    }, ways[amount]


def paths(rng: Random, level: int) -> tuple[Wordings, int]:
    """Shortest ways through a grid of streets around closed crossings."""
    east, north = draw(rng, 3, 5) + level, draw(rng, 4, 6) + level
    inside = [x * 100 + y for x in range(1, east) for y in range(1, north)]
    closed = [divmod(code, 100) for code in pick(rng, inside, level + 1)]
    ways = {(0, 0): 1}
    for x in range(east + 1):
        for y in range(north + 1):
            if (x, y) != (0, 0):
                ways[x, y] = 0 if (x, y) in closed else ways.get((x - 1, y), 0) + ways.get((x, y - 1), 0)
    spots = [f"({x}, {y})" for x, y in closed]
    en, ja = ", ".join(spots), "、".join(spots)
    return {
        "en": f"On a grid you walk from (0, 0) to ({east}, {north}); each step goes one unit right or one unit up. "
        f"These points may not be entered: {en}. How many different paths are there?",
        "ja": f"格子の上を(0, 0)から({east}, {north})まで歩きます。一歩ごとに右へ1または上へ1だけ進みます。"
        f"通れない点は{ja}です。道順は全部で何通りありますか。",
        "zh": f"在方格上从(0, 0)走到({east}, {north})，每一步只能向右走1格或向上走1格，"
        f"并且不能经过这些点：{ja}。一共有多少条不同的路线？",
    }, ways[east, north]


def savings(rng: Random, level: int) -> tuple[Wordings, int]:
    """Money after months of paying in more each time and taking half out now and then."""
    months, every = [6, 10, 18][level], [3, 4, 4][level]
    money = start = draw(rng, 20, 60) * 10
    first, more = draw(rng, 4, 12) * 10, draw(rng, 1, 5) * 10
    for month in range(1, months + 1):
        money += first + (month - 1) * more
        if month % every == 0:
            money -= money // 2
    return {
        "en": f"Maya has {start} coins. At the end of the first month she adds {first} coins, and each month after "
        f"that {more} more than the month before. In every month whose number is divisible by {every}, after adding, "
        f"she gives away half of all her coins, rounded down. How many coins does she have after {months} months?",
        "ja": f"まやさんはコインを{start}枚持っています。1か月目の終わりに{first}枚を加え、その後は毎月、前の月より"
        f"{more}枚多く加えます。月の番号が{every}で割り切れる月には、加えた後で、全部のコインの半分(端数は切り捨て)を人にあげます。"
        f"{months}か月後にコインは何枚ありますか。",
        "zh": f"小梅有{start}枚硬币。第1个月末她加进{first}枚，以后每个月都比前一个月多加{more}枚。"
        f"凡是月数能被{every}整除的月份，她在加完之后把全部硬币的一半(向下取整)送给别人。{months}个月之后她有多少枚硬币？",
    }, money


def digit_sums(rng: Random, level: int) -> tuple[Wordings, int]:
    """How many numbers of a stretch have a digit sum that leaves a given remainder."""
    low = draw(rng, 2, 9) * [10, 100, 1000][level] + draw(rng, 1, 9)
    high = low + [150, 400, 1500][level] + draw(rng, 1, 60)
    divisor = [4, 5, 7][level]
    left = draw(rng, 1, divisor - 1)
    answer = sum(sum(map(int, str(n))) % divisor == left for n in range(low, high + 1))
    return {
        "en": f"How many whole numbers from {low} to {high} (both included) have a digit sum that leaves the remainder "
        f"{left} when divided by {divisor}?",
        "ja": f"{low}以上{high}以下の整数のうち、各位の数字の和を{divisor}で割ると{left}余るものは何個ありますか。",
        "zh": f"从{low}到{high}(包括两端)的整数中，各位数字之和除以{divisor}余{left}的数有多少个？",
    }, answer


def tickets(rng: Random, level: int) -> tuple[Wordings, int]:
    """Three unknown counts from a sum, a price and a relation; asked for is what one group paid."""
    child, student = draw(rng, 3, 6), draw(rng, 7, 9)
    adult = draw(rng, 11, 19)
    children, students = draw(rng, 4, 9) * 10**level, draw(rng, 5, 19) * 3**level
    adults = children + draw(rng, 2, 9)
    people, paid = children + students + adults, children * child + students * student + adults * adult
    solutions = [
        (people - n - (n + adults - children)) * student
        for n in range(people + 1)
        if people - n - (n + adults - children) >= 0
        and n * child + (n + adults - children) * adult + (people - 2 * n - (adults - children)) * student == paid
    ]
    if len(solutions) != 1:  # the three conditions allow more than one
        return tickets(rng, level)
    more = adults - children
    return {
        "en": f"A museum sells tickets for {child} dollars (children), {student} dollars (students) and {adult} dollars"
        f" (adults). One day {people} people paid {paid} dollars in all, and there were {more} more adults than "
        "children. How many dollars did the students pay together?",
        "ja": f"ある博物館の入場料は、子どもが{child}ドル、学生が{student}ドル、大人が{adult}ドルです。"
        f"ある日、{people}人が合計{paid}ドルを払い、大人は子どもより{more}人多く来ました。学生が払った金額は全部で何ドルですか。",
        "zh": f"某博物馆的门票：儿童{child}美元，学生{student}美元，成人{adult}美元。"
        f"某一天共有{people}人买票，一共付了{paid}美元，成人比儿童多{more}人。学生一共付了多少美元？",
    }, solutions[0]


KINDS: dict[str, Callable[[Random, int], tuple[Wordings, int]]] = {
    "remainders": remainders,
    "multiples": multiples,
    "sequence": sequence,
    "coins": coins,
    "paths": paths,
    "savings": savings,
    "digit_sums": digit_sums,
    "tickets": tickets,
}
"""Never reordered: an item's kind is its index modulo their number."""
