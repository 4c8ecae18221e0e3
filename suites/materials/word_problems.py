"""Grade-school arithmetic word problems, generated rather than stored.

Every problem takes one or two steps (a shopping list, three) with small whole numbers. Its answer is a
worked solution, whose arithmetic is written out as equations (`3 * 4 = 12`), and then the result on a line
of its own after `####`.
"""

from random import Random

SHE = ["Maya", "Aisha", "Priya", "Nina", "Rosa", "Hana", "Grace", "Lucia", "Zoe", "Ingrid", "Wanjiru"]
HE = ["Leo", "Omar", "Kenji", "Tom", "Mateo", "Ravi", "Felix", "Jonas", "Kofi", "Ben", "Diego", "Marek"]
# Every noun forms its plural with -s, and no number in a problem is below 2, so nothing is ever singular.
FRUITS = ["apple", "pear", "plum", "lemon", "orange", "fig", "apricot"]
TREASURES = ["marble", "sticker", "shell", "postcard", "coin", "button", "badge", "bead"]
BAKES = ["muffin", "cookie", "scone", "bun", "pancake", "cupcake"]
SUPPLIES = ["pencil", "crayon", "marker", "notebook", "eraser", "ruler"]
PACKS = ["bag", "packet", "crate", "case", "carton", "basket"]
TOYS = ["kite", "robot", "puzzle", "football", "drum", "scooter"]
TRAVELS = ["walk", "run", "cycle", "row"]
RIDES = ["bus", "train", "tram", "ferry"]

# A question, its worked solution, and the number that the solution ends with.
WordProblem = tuple[str, str, int]


class Draw:
    """The words of one problem, drawn at random, and its numbers on demand.

    Only Random.random() is promised to give the same values in every Python version, so all draws use it.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        girl, boy = self.word(SHE), self.word(HE)
        self.who, self.friend, self.they = (girl, boy, "she") if rng.random() < 0.5 else (boy, girl, "he")
        self.fruit, self.bake, self.supply = self.word(FRUITS), self.word(BAKES), self.word(SUPPLIES)
        self.thing, self.pack, self.toy = self.word(TREASURES), self.word(PACKS), self.word(TOYS)
        self.travel, self.ride = self.word(TRAVELS), self.word(RIDES)

    def number(self, low: int, high: int) -> int:
        """Draw a whole number from low to high, both included."""
        return low + int(self.rng.random() * (high - low + 1))

    def word(self, words: list[str]) -> str:
        """Draw one of the words."""
        return words[self.number(0, len(words) - 1)]


def gathered(d: Draw) -> WordProblem:
    a, b = d.number(3, 19), d.number(3, 19)
    question = f"{d.who} picks {a} {d.fruit}s in the morning and {b} {d.fruit}s in the afternoon. "
    question += f"How many {d.fruit}s does {d.who} pick in all?"
    return question, f"{d.who} picks {a} + {b} = {a + b} {d.fruit}s in all.", a + b


def given_away(d: Draw) -> WordProblem:
    given, kept = d.number(2, 9), d.number(2, 12)
    question = f"{d.who} has {given + kept} {d.thing}s and gives {given} of them to {d.friend}. "
    question += f"How many {d.thing}s does {d.who} have left?"
    return question, f"{d.who} has {given + kept} - {given} = {kept} {d.thing}s left.", kept


def packs(d: Draw) -> WordProblem:
    n, each = d.number(2, 9), d.number(2, 10)
    question = f"{d.who} buys {n} {d.pack}s of {d.supply}s. Each {d.pack} holds {each} {d.supply}s. "
    question += f"How many {d.supply}s does {d.who} buy?"
    return question, f"{d.who} buys {n} * {each} = {n * each} {d.supply}s.", n * each


def shared(d: Draw) -> WordProblem:
    friends, each = d.number(2, 8), d.number(2, 9)
    question = f"{d.who} shares {friends * each} {d.bake}s equally among {friends} friends. "
    question += f"How many {d.bake}s does each friend get?"
    return question, f"Each friend gets {friends * each} / {friends} = {each} {d.bake}s.", each


def market(d: Draw) -> WordProblem:
    n, price, m, cost = d.number(2, 5), d.number(2, 4), d.number(2, 5), d.number(2, 6)
    a, b = n * price, m * cost
    question = f"At the market, {d.fruit}s cost ${price} each and {d.supply}s cost ${cost} each. "
    question += f"{d.who} buys {n} {d.fruit}s and {m} {d.supply}s. How many dollars does {d.who} spend?"
    steps = f"The {d.fruit}s cost {n} * {price} = {a} dollars and the {d.supply}s {m} * {cost} = {b} dollars."
    return question, f"{steps} Together they cost {a} + {b} = {a + b} dollars.", a + b


def change(d: Draw) -> WordProblem:
    n, price, left = d.number(2, 5), d.number(2, 6), d.number(2, 12)
    cost = n * price
    question = f"{d.who} has ${cost + left} and buys {n} {d.supply}s for ${price} each. "
    question += f"How many dollars does {d.who} have left?"
    steps = f"The {d.supply}s cost {n} * {price} = {cost} dollars."
    return question, f"{steps} {d.who} has {cost + left} - {cost} = {left} dollars left.", left


def more_than(d: Draw) -> WordProblem:
    a, more = d.number(3, 12), d.number(2, 8)
    b, total = a + more, a + a + more
    question = f"{d.who} has {a} {d.thing}s. {d.friend} has {more} more {d.thing}s than {d.who}. "
    question += f"How many {d.thing}s do they have altogether?"
    steps = f"{d.friend} has {a} + {more} = {b} {d.thing}s."
    return question, f"{steps} Altogether they have {a} + {b} = {total} {d.thing}s.", total


def times_as_many(d: Draw) -> WordProblem:
    a, times = d.number(3, 12), d.number(2, 4)
    phrase = ("twice", "three times", "four times")[times - 2]
    b, total = times * a, a + times * a
    question = f"{d.who} reads {a} pages on Monday and {phrase} as many on Tuesday. "
    question += f"How many pages does {d.they} read on the two days together?"
    steps = f"On Tuesday {d.who} reads {times} * {a} = {b} pages."
    return question, f"{steps} Together that is {a} + {b} = {total} pages.", total


def passengers(d: Draw) -> WordProblem:
    off, stay, on = d.number(2, 9), d.number(3, 15), d.number(2, 12)
    question = f"A {d.ride} sets out with {off + stay} passengers. At the first stop, {off} get off "
    question += f"and {on} get on. How many passengers are on the {d.ride} now?"
    steps = f"After {off} get off, {off + stay} - {off} = {stay} passengers remain."
    return question, f"{steps} After {on} get on, there are {stay} + {on} = {stay + on}.", stay + on


def saving(d: Draw) -> WordProblem:
    weekly, weeks = d.number(2, 9), d.number(3, 9)
    cost = weekly * weeks
    question = f"{d.who} saves ${weekly} every week to buy a {d.toy} that costs ${cost}. "
    question += f"How many weeks does {d.they} need to save enough?"
    return question, f"{d.who} needs {cost} / {weekly} = {weeks} weeks.", weeks


def bake_sale(d: Draw) -> WordProblem:
    trays, each = d.number(2, 5), d.number(4, 8)
    baked = trays * each
    sold = d.number(2, baked - 2)
    question = f"{d.who} makes {trays} batches of {each} {d.bake}s and sells {sold} of the {d.bake}s. "
    question += f"How many {d.bake}s are left?"
    steps = f"{d.who} makes {trays} * {each} = {baked} {d.bake}s."
    return question, f"{steps} Then {baked} - {sold} = {baked - sold} are left.", baked - sold


def half_used(d: Draw) -> WordProblem:
    half, more = d.number(2, 10), d.number(2, 9)
    question = f"{d.who} has {2 * half} {d.fruit}s and makes jam from half of them. Then {d.they} buys "
    question += f"{more} more. How many {d.fruit}s does {d.who} have now?"
    steps = f"After making jam, {d.who} has {2 * half} / 2 = {half} {d.fruit}s."
    return question, f"{steps} Then {d.they} has {half} + {more} = {half + more}.", half + more


def miles(d: Draw) -> WordProblem:
    days, daily, last = d.number(2, 6), d.number(2, 8), d.number(2, 9)
    far = days * daily
    question = f"{d.who} {d.travel}s {daily} miles a day for {days} days and then {last} miles "
    question += f"on the next day. How many miles does {d.they} {d.travel} in total?"
    steps = f"In the first {days} days, {d.who} {d.travel}s {days} * {daily} = {far} miles."
    return question, f"{steps} In total that is {far} + {last} = {far + last} miles.", far + last


def wages(d: Draw) -> WordProblem:
    rate, a, b = d.number(5, 12), d.number(2, 5), d.number(2, 5)
    pay = (a + b) * rate
    question = f"{d.who} earns ${rate} an hour. If {d.they} works {a} hours on Saturday and "
    question += f"{b} hours on Sunday, how many dollars does {d.who} earn?"
    steps = f"{d.who} works {a} + {b} = {a + b} hours."
    return question, f"{steps} The pay is {a + b} * {rate} = {pay} dollars.", pay


def ages(d: Draw) -> WordProblem:
    age, older, years = d.number(5, 14), d.number(2, 9), d.number(2, 6)
    now, then = age + older, age + older + years
    question = f"{d.who} is {age} years old. {d.friend} is {older} years older than {d.who}. "
    question += f"How old will {d.friend} be in {years} years?"
    steps = f"{d.friend} is {age} + {older} = {now} years old now."
    return question, f"{steps} In {years} years, {d.friend} will be {now} + {years} = {then}.", then


def boxes(d: Draw) -> WordProblem:
    n, each, lost = d.number(2, 6), d.number(2, 8), d.number(2, 9)
    rest = n * each
    question = f"{d.who} has {rest + lost} {d.thing}s, but {d.they} loses {lost} of them and puts "
    question += f"the rest into {n} boxes, the same number in each. How many {d.thing}s are in each box?"
    steps = f"{d.who} still has {rest + lost} - {lost} = {rest} {d.thing}s."
    return question, f"{steps} Each box gets {rest} / {n} = {each} {d.thing}s.", each


TEMPLATES = [gathered, given_away, packs, shared, market, change, more_than, times_as_many]
TEMPLATES += [passengers, saving, bake_sale, half_used, miles, wages, ages, boxes]


def word_problems(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return `count` different problems; a shorter list is the beginning of a longer one.

    Each is {"id", "question", "answer"}. The templates take turns, so any 16 in a row hold one of each.
    """
    rng = Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        question, solution, result = TEMPLATES[len(found) % len(TEMPLATES)](Draw(rng))
        found.setdefault(question, f"{solution}\n#### {result}")
    numbered = enumerate(found.items(), start=1)
    return [{"id": f"wp-{n:04d}", "question": asked, "answer": answer} for n, (asked, answer) in numbered]
