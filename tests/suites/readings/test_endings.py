"""How answers end: every loop is found, nothing else is, in linear time, whatever the model wrote."""

import base64
import json
import random
from pathlib import Path

import pytest
from hangs import no_hang
from hypothesis import example, given
from hypothesis import strategies as st

from harness.endpoint.client import Completion
from suites.base import make_item, make_sample
from suites.readings.endings import endings, unterminated
from suites.readings.loops import LEAST_LOOP, SHORT_UNIT, TAIL, TIMES, looped

ROOT = Path(__file__).parents[3]
SENTENCE = (
    "Therefore the train that left the first station at noon meets the other one after two hours and a quarter, which "
    "is the same as before, and so we have to look at the distance between both once more. "
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
"""Lone surrogates too."""


def completion(text: str = "", reasoning: str = "", finish: str = "stop") -> Completion:
    return Completion(text, reasoning, finish, 3, 2, [], [], 0.1, None)


def prose(seed: int, words: int = 900) -> str:
    """Sentences that nobody wrote, of the words of our documents."""
    known = sorted(set((ROOT / "README.md").read_text("utf-8").split()))
    return " ".join(random.Random(seed).choices(known, k=words))


# -- loops ---------------------------------------------------------------------------------------------------

LOOPS = {
    "one character": "a" * 400,
    "one word": "wait " * 81,
    "after prose": prose(1) + " no" * 134,
    "a sentence": "Let us see. " + SENTENCE * 5,
    "the longest unit": SENTENCE.ljust(SHORT_UNIT, "x")[:SHORT_UNIT] * TIMES,
    "cut in the middle": (SENTENCE * 7)[:-50],
    "an answer": "The answer is (C)." * 30,
    "an answer a line": "The answer is (C).\n" * 30,
    "japanese": "富士山は日本で一番高い山です。" * 30,
    "emoji": "🙂🙃" * 200,
    "blank lines": "The answer is 5." + "\n" * 400,
    "blanks of many kinds": "The answer is 5." + " \t\n\u3000" * 100,
    "rows of a table": "| 1 | 2 |\n" * 41,
    "blanks at the end": "yes " * 101 + "\n\n \n",
    "a paragraph of 350 characters": (SENTENCE + prose(2)[:150]) * 20,
    "a page thirty times": (prose(9) + "!")[:2600] * 30,
    "a page three times": prose(9) * 3,
}
COUNTS = {
    "a loop without a fixed unit after much else": prose(8, 9000)
    + "".join(f" No, that is not right, so let us begin once more ({i})." for i in range(80)),
    "steps": "\n".join(f"Now we go on with the next step, which is step {i} of our plan." for i in range(200)),
    "digits that were asked for": "1/7 = 0." + "142857" * 150,
}
"""What counts, or says digits, was asked for where it ends by itself, and is a loop where the budget cut it."""


@pytest.mark.parametrize("name", COUNTS)
def test_what_counts_is_a_loop_only_where_it_was_cut(name: str) -> None:
    assert not looped(COUNTS[name]) and looped(COUNTS[name], cut=True)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_found(name: str) -> None:
    assert looped(LOOPS[name])


@given(ANY_TEXT, st.text(st.characters(exclude_categories=()), min_size=1, max_size=SHORT_UNIT), st.integers(0, 3))
@example("", " " * (SHORT_UNIT - 1) + "x", 0)
@example("", "x" + " " * (SHORT_UNIT - 1), 0)
@example("\ud800", "\ud800", 0)
@example("abc", "abc" * 60, 3)
def test_whatever_repeats_is_found(before: str, unit: str, more: int) -> None:
    times = -(-max(LEAST_LOOP, TIMES * len(unit)) // len(unit))
    assert looped(before + unit * (times + 1 + more), cut=True)  # one more: blanks at the end of a unit do not count
    assert looped(before + unit * (times + 1) + unit[: len(unit) // 2], cut=True)


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=40), st.integers(2, LEAST_LOOP))
@example("a", LEAST_LOOP)
def test_nothing_short_is_a_loop(unit: str, size: int) -> None:
    assert not looped((unit * LEAST_LOOP)[: size - 1])


# -- no loops ------------------------------------------------------------------------------------------------

RANDOM = random.Random(0)
NO_LOOPS = {
    "nothing": "",
    "one letter": "C",
    "prose": prose(3),
    "documents": (ROOT / "README.md").read_text("utf-8") + (ROOT / "docs" / "architecture.md").read_text("utf-8"),
    "code": (ROOT / "harness" / "judging" / "statistics.py").read_text("utf-8"),
    "policies": (ROOT / "harness" / "policies" / "demo.yaml").read_text("utf-8") * 2,
    "japanese and chinese": "".join(
        json.loads(line)["messages"][-1]["content"]
        for line in (ROOT / "suites" / "data" / "prompts.jsonl").read_text("utf-8").splitlines()
        if json.loads(line)["language"] in ("ja", "zh")
    ),
    "base64": base64.b64encode(RANDOM.randbytes(4000)).decode(),
    "numbers": ", ".join(map(str, range(2000))),
    "a numbered list": "\n".join(f"{i}. Item {i}" for i in range(1, 400)),
    "squares": "\n".join(f"{i} * {i} = {i * i}" for i in range(1, 400)),
    "a multiplication table": "\n".join(
        "| " + " | ".join(str(i * j) for j in range(1, 11)) + " |" for i in range(1, 120)
    ),
    "a table": "| day | sold | left |\n| --- | --- | --- |\n"
    + "\n".join(f"| {i} | {RANDOM.randint(0, 99)} | {RANDOM.randint(0, 99)} |" for i in range(300)),
    "a table of results": "\n".join(
        f"| item {i:03} | {RANDOM.choice(['yes', 'no'])} | {RANDOM.random():.3f} | ok |" for i in range(150)
    ),
    "json": json.dumps([{"id": i, "price": RANDOM.randint(1, 999), "left": bool(i % 3)} for i in range(150)], indent=1),
    "html": "\n".join(f"  <tr><td>{i}</td><td>{i * i}</td></tr>" for i in range(200)),
    "tests": "\n".join(f"assert square({i}) == {i * i}" for i in range(200)),
    "steps": "\n".join(f"Step {i}: add {i} to the total, which gives {i * (i + 1) // 2}." for i in range(1, 200)),
    "a rule at the end": prose(4) + "\n" + "-" * 79,
    "just too short": "a" * 399,
    "a long switch": "\n".join(f'        case {i}:\n            return "value_{i}";' for i in range(100)),
    "some dots": "Let me think" + "." * 300,
    "bottles": "".join(
        f"{n} bottles of beer on the wall, {n} bottles of beer. Take one down, pass it around: {n - 1} bottles.\n"
        for n in range(99, 0, -1)
    ),
    "said four times": prose(5) + SENTENCE * 4,
    "a loop that ended": SENTENCE * 6 + prose(6),
}


@pytest.mark.parametrize("name", NO_LOOPS)
def test_what_is_no_loop_is_none(name: str) -> None:
    assert not looped(NO_LOOPS[name])


def test_the_long_texts_are_long_enough_to_be_compressed() -> None:
    assert sum(len(text) >= TAIL for text in NO_LOOPS.values()) >= 14


@given(st.integers(0, 10**9))
def test_texts_by_chance_are_no_loops(seed: int) -> None:
    draw = random.Random(seed)
    letters = "".join(map(chr, draw.sample(range(32, 0x3000), draw.randint(4, 40))))
    assert not looped("".join(draw.choices(letters, k=draw.randint(1, 6000))) + ".")


# -- hostile texts -------------------------------------------------------------------------------------------

MILLION = 1_000_000
HOSTILE = {
    "one character": "a" * MILLION,
    "one character and another": "a" * MILLION + "b",
    "two": "ab" * (MILLION // 2) + "!",
    "blanks": " " * MILLION,
    "blanks inside": ("x" + " " * 999) * 1000,
    "surrogates": "\ud800" * MILLION,
    "tags": "<think>" * (MILLION // 7),
    "half tags": "<think" * (MILLION // 6),
    "quoted tags": "`<think>` " * (MILLION // 10),
    "chance": base64.b64encode(random.Random(1).randbytes(750_000)).decode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_of_a_million_characters_takes_no_time(name: str) -> None:
    with no_hang():
        endings(completion(HOSTILE[name]))
        endings(completion("", HOSTILE[name]))


@given(ANY_TEXT, ANY_TEXT, st.sampled_from(["stop", "length", "tool_calls", "repetition", "abort"]))
def test_whatever_a_model_writes_has_an_ending(text: str, reasoning: str, finish: str) -> None:
    found = endings(completion(text, reasoning, finish))
    assert found.keys() == {"unterminated", "looped"} and set(found.values()) <= {0.0, 1.0}


def test_lone_surrogates_are_characters_like_others() -> None:
    assert looped("\ud800x" * 200) and looped("\udfff" * 400)
    assert not looped(prose(7) + "\ud800\udfff")
    assert unterminated(completion("\ud800<think>\udfff"))


# -- thinking that never closes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reasoning", "finish", "expected"),
    [
        ("", "", "stop", False),
        ("42", "", "stop", False),
        ("42", "", "length", False),  # cut, but not while thinking
        # the server's parser took the thinking out
        ("42", "so", "stop", False),
        ("4", "so", "length", False),
        ("", "so", "length", True),
        ("", "so", "stop", True),
        (" \n", "so", "length", True),
        ("", "so", "tool_calls", False),
        ("", "so", "repetition", True),
        ("<think>", "so", "stop", True),  # opened again beside the server's field
        ("a<think>so</think>", "so", "stop", False),
        ("[THINK]so", "", "length", True),
        ("<think>so <tool_call>{}</tool_call>", "", "stop", False),  # goes on after the tool
        ("", "so <tool_call>{}</tool_call>", "stop", False),
        ("a</think></think>42", "", "stop", False),
        # the tags are in the text
        ("<think>so", "", "length", True),
        ("<think>so", "", "stop", True),
        ("<think>so</think>42", "", "stop", False),
        ("<think>so</think>", "", "length", False),
        ("so</think>42", "", "stop", False),  # opened by the chat template
        ("<think>a</think>b<think>c", "", "length", True),
        ("<think>a</think>b<think>c</think>d", "", "stop", False),
        ("<think>a<think>b</think>c", "", "stop", False),
        ("<thinking>so", "", "length", True),
        ("The tag <think> opens it.", "", "stop", False),
    ],
)
def test_unterminated(text: str, reasoning: str, finish: str, expected: bool) -> None:
    assert unterminated(completion(text, reasoning, finish)) is expected
    assert endings(completion(text, reasoning, finish))["unterminated"] == float(expected)


def test_a_loop_while_thinking_and_a_loop_that_the_server_ended_are_loops() -> None:
    assert endings(completion("", SENTENCE * 6, "length")) == {"unterminated": 1.0, "looped": 1.0}
    assert endings(completion("4", "short", "repetition")) == {"unterminated": 0.0, "looped": 1.0}
    assert endings(completion("4", "short")) == {"unterminated": 0.0, "looped": 0.0}
    assert endings(completion(SENTENCE * 3, SENTENCE * 3, "length"))["looped"] == 1.0  # on both sides of </think>


# -- in samples ----------------------------------------------------------------------------------------------

ITEM = make_item("t", "0", [{"role": "user", "content": "?"}])


def test_every_sample_says_how_its_answer_ended() -> None:
    sample = make_sample("cot", ITEM, "candidate", completion("<think>" + "no " * 200), score=0.0, answer=None)
    assert (sample.metrics, sample.text) == ({"unterminated": 1.0, "looped": 1.0, "thinking_tokens": 2.0}, "")


def test_what_a_suite_measured_itself_wins() -> None:
    own = {"looped": 0.0, "steps": 4.0}
    sample = make_sample("x", ITEM, "noise", completion("no " * 200), score=None, answer=None, metrics=own)
    assert sample.metrics == {"unterminated": 0.0, "looped": 0.0, "steps": 4.0}


def test_where_nothing_was_written_nothing_ended() -> None:
    nothing = make_sample("x", ITEM, "noise", completion(finish=""), score=None, answer=None, metrics={"flips": 1.0})
    assert nothing.metrics == {"flips": 1.0}
