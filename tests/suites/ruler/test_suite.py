"""RULER prompts have the length that was asked for and are the same everywhere; answers are scored as published."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, ask, chat_reply
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruler_tasks import length_of, made, ruler, text_of, write_data

from harness.contract.errors import BadInput
from harness.contract.samples import Item, sha256_of
from harness.contract.validation import validate
from harness.endpoint.client import Completion
from suites.base import make_item
from suites.materials.fitting import TooShort
from suites.materials.haystack import NOISE
from suites.ruler.suite import PUBLISHED, TASKS, RulerConfig, match_all, match_any


class Words:
    """A tokenizer of words, and of the characters of Japanese and Chinese."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> list[str]:
        return re.findall(r"[ぁ-ヿ一-鿿]|[^\sぁ-ヿ一-鿿]+", conversation[0]["content"])


@pytest.fixture(autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small data sets; running text is that of the project."""
    folder = tmp_path_factory.getbasetemp() / "ruler_data"
    if not folder.exists():
        write_data(folder)
    monkeypatch.setenv("QUANTGATE_DATA", str(folder))
    return folder


def test_the_published_tasks_are_there() -> None:
    needles = [
        f"niah_{kind}" for kind in ("single_1", "single_2", "single_3", "multikey_1", "multikey_2", "multikey_3")
    ]
    assert list(PUBLISHED) == [*needles, "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"]
    kinds = ("niah_single", "niah_word", "niah_multikey")
    assert set(TASKS) - set(PUBLISHED) == {f"{kind}_{language}" for kind in kinds for language in ("ja", "zh")}
    assert RulerConfig(lengths=(4096,)).tasks == tuple(PUBLISHED)


def require_lengths(tokenizer: Any, items: list[Item]) -> None:
    """Each prompt has 99 to 100 % of the tokens in its task's name."""
    for item in items:
        asked, found = int(item.task.split("@")[1]), length_of(tokenizer, item)
        assert 0.99 * asked <= found <= asked, (item.task, item.item, found / asked)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_prompt_has_the_length_that_was_asked_for(tokenizer: Any, task: str) -> None:
    for lengths, count in (((1000, 1536, 2048), 2), ((3000, 4096, 8192, 16384), 1)):
        items = list(ruler(lengths=lengths, tasks=(task,), per_task=count).items(tokenizer))
        assert Counter(item.task for item in items) == {f"{task}@{n}": count for n in lengths}
        require_lengths(tokenizer, items)


@pytest.mark.slow
@settings(max_examples=60)
@given(task=st.sampled_from(list(TASKS)), length=st.integers(20, 1000), seed=st.integers(0, 2**32))
@example("fwe", 700, 42)
@example("cwe", 512, 42)
@example("niah_multikey_1", 300, 42)
def test_a_length_is_reached_or_refused_with_one_that_is(tokenizer: Any, task: str, length: int, seed: int) -> None:
    config: dict[str, Any] = {"tasks": (task,), "per_task": 3, "seed": seed}
    try:
        items = list(ruler(lengths=(length,), **config).items(tokenizer))
    except TooShort as refused:
        named = f"a prompt of {length} tokens is too short for ruler task {task}, which needs {refused.needs};"
        assert named in str(refused) and refused.needs > length
        items = list(ruler(lengths=(refused.needs,), **config).items(tokenizer))
    assert len(items) == 3
    require_lengths(tokenizer, items)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), units=st.integers(0, 200), extra=st.integers(1, 40))
def test_extra_words_come_after_the_text_and_change_nothing_of_it(task: str, seed: int, units: int, extra: int) -> None:
    item = made(task, seed=seed)
    plain, filled = (text_of(item.build(units, n)) for n in (0, extra))
    if task == "fwe":  # more of the dots that are to be ignored, anywhere
        assert Counter(filled.split()) - Counter(plain.split()) == Counter({"...": extra})
        return
    language: Any = task[-2:] if task.endswith(("_ja", "_zh")) else "en"
    noise = " ".join((" ".join(NOISE["en"]).split() * 2)[:extra]) if language == "en" else "".join(NOISE[language])
    text, question = plain.rsplit("\n\n", 1)
    assert filled == f"{text}\n{noise if language == 'en' else noise[:extra]}\n\n{question}"


def test_items_follow_from_the_seed_alone() -> None:
    tokenizer = Words()
    config: dict[str, Any] = {"lengths": (1500, 2048), "tasks": tuple(TASKS), "per_task": 3}
    one, again = (list(ruler(**config).items(tokenizer)) for _ in range(2))
    assert one == again
    assert len({item.prompt_sha256 for item in one}) == len(one) == len({(item.task, item.item) for item in one})
    other = ruler(**config, seed=43).items(tokenizer)
    assert not {item.prompt_sha256 for item in one} & {item.prompt_sha256 for item in other}
    for changes in ({"per_task": 2}, {"limit": 1}, {"lengths": (2048,)}, {"tasks": ("qa_1", "cwe", "niah_single_3")}):
        fewer = list(ruler(**config | changes).items(tokenizer))
        assert all(item in one for item in fewer) and len(fewer) < len(one)
        assert [item.item for item in fewer[:2]] == (["0000", "0000"] if "limit" in changes else ["0000", "0001"])


BUILD = """
import json
from harness.contract.samples import sha256_of
from suites.ruler.suite import TASKS
from suites.ruler.task import Place
for name in TASKS:
    made = TASKS[name](Place(42, name, 4096, 1))
    print(json.dumps([sha256_of(made.build(50)), list(made.references)]))
"""


@pytest.mark.slow
def test_items_are_the_same_in_another_process() -> None:
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    ended = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, env=environment, check=True)
    for name, line in zip(TASKS, ended.stdout.splitlines(), strict=True):
        here = made(name, index=1)
        assert json.loads(line) == [sha256_of(here.build(50)), list(here.references)]


def test_items_come_one_by_one() -> None:
    items = iter(ruler(lengths=(1024,), tasks=("vt",), per_task=10**9).items(Words()))
    assert [next(items).item for _ in range(3)] == ["0000", "0001", "0002"]


def test_what_the_text_is_from_stands_in_the_item() -> None:
    (item,) = ruler(lengths=(1024,), tasks=("niah_single_2",), per_task=1).items(Words())
    assert item.data["haystack"] == "essay_en.txt" and len(item.data["haystack_sha256"]) == 64
    (item,) = ruler(lengths=(2048,), tasks=("qa_1",), per_task=1).items(Words())
    assert item.data["question"].startswith("q")


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_length_that_no_task_fits_is_refused(task: str) -> None:
    with pytest.raises(BadInput, match=f"a prompt of 20 tokens is too short for ruler task {task}, which needs"):
        list(ruler(lengths=(20,), tasks=(task,), per_task=2).items(Words()))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tasks": ["nosuch"]}, "nosuch is unknown; known: niah_single_1, .*qa_2"),
        ({"tasks": ["vt", "vt"]}, "twice"),
        ({"tasks": []}, "tasks"),
        ({"lengths": [1024, 1024]}, "twice"),
        ({"limit": 0}, "limit"),
        ({"per_tasks": 3}, "per_tasks"),
    ],
)
def test_a_wrong_configuration_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        validate(RulerConfig, {"lengths": [2048]} | settings, "policy")


def test_the_context_holds_prompt_and_answer() -> None:
    assert ruler(lengths=(1024, 4096)).context_needed == 4096 + 64
    assert ruler(lengths=(1024,), max_tokens=128).context_needed == 1024 + 128


# -- scoring -------------------------------------------------------------------------------------------------

# The rules of NVIDIA/RULER, scripts/eval: control characters of a prediction become line ends and blanks around it go;
# then string_match_all is the mean over the references of "does it occur, letter case ignored", string_match_part the
# maximum.
CASES = [
    ("The number is 1234567.", ["1234567"], 1.0, 1.0),
    ("1,234,567", ["1234567"], 0.0, 0.0),
    ("", ["1234567"], 0.0, 0.0),
    ("abcd, EFGH and xyzw", ["ABCD", "EFGH", "IJKL", "MNOP"], 0.5, 1.0),
    ("ABCD EFGH IJKL MNOP", ["abcd", "efgh", "ijkl", "mnop"], 1.0, 1.0),
    ("EFGH ABCD", ["ABCD", "EFGH"], 1.0, 1.0),  # order does not matter
    ("ABCD ABCD ABCD", ["ABCD", "EFGH"], 0.5, 1.0),  # nor do repetitions
    ("artistic", ["art"], 1.0, 1.0),  # a substring is enough
    ("no idea; 1111111 2222222 3333333 4444444 5555555", ["2222222", "4444444"], 1.0, 1.0),  # so is listing everything
    ("ÉCOLE", ["école"], 1.0, 1.0),
    ("denver broncos", ["Denver Broncos", "The Denver Broncos", "Broncos"], 2 / 3, 1.0),
    ("the Panthers", ["Denver Broncos", "Broncos"], 0.0, 0.0),
    ("Denver\x00Broncos", ["Denver Broncos"], 0.0, 0.0),
    ("Denver\x0bBroncos", ["Denver\nBroncos"], 1.0, 1.0),
    ("答えは「赤い灯台」です", ["赤い灯台"], 1.0, 1.0),
    ("  ABCD ", [" ABCD"], 0.0, 0.0),
    ("\ud800 1234567", ["1234567"], 1.0, 1.0),
]


WHOLE = [
    ("The number is 1234567.", ["1234567"], 1.0),
    ("The number is 12345677.", ["1234567"], 0.0),  # a doubled digit, which passes upstream
    ("1,234,567", ["1234567"], 1.0),
    ("1 234 567", ["1234567"], 1.0),
    ("１２３４５６７です", ["1234567"], 1.0),
    ("**1234567**", ["1234567"], 1.0),
    ("1234567.5", ["1234567"], 0.0),
    ("-1234567", ["1234567"], 0.0),
    ("x1234567", ["1234567"], 0.0),
    ("1234567 and 2345678, but no third", ["1234567", "2345678", "3456789"], 2 / 3),
    ("artistic", ["art"], 0.0),
    ("I do not know.", ["no"], 0.0),
    ("No.", ["no"], 1.0),
    ("ABCDE, FGHIJ", ["abcde", "fghij"], 1.0),
    ("It was Rock ’n’ Roll.", ["Rock 'n' Roll"], 1.0),
    ("the grim\u00a0lighthouse", ["grim-lighthouse"], 1.0),
    ("a well‑known  man", ["well-known man"], 1.0),
    ("答えは「赤い灯台」です", ["赤い灯台"], 1.0),
    ("Beyonce", ["Beyoncé"], 1.0),
    ("1,200 men", ["1200 men"], 1.0),
    ("three", ["3"], 1.0),
    ("3", ["three"], 1.0),
    ("5f0e-4c1d", ["5F0E-4C1D"], 1.0),
    ("5f0e-4c1de", ["5F0E-4C1D"], 0.0),
]


@pytest.mark.parametrize(("answer", "references", "share"), WHOLE)
def test_an_answer_says_whole_numbers_and_words(answer: str, references: list[str], share: float) -> None:
    item = make_item("vt@2048", "0001", [{"role": "user", "content": "?"}], target=references)
    completion = Completion(answer, "", "stop", 3, 2, [], [], 0.1, None)
    sample = ruler(lengths=(2048,)).score(item, "candidate", completion)
    assert sample.score == share and sample.metrics["substring"] == match_all(answer, references)


@pytest.mark.parametrize(("answer", "references", "share", "any_of_them"), CASES)
def test_the_second_figures_are_those_of_the_published_rules(
    answer: str, references: list[str], share: float, any_of_them: float
) -> None:
    assert match_all(answer, references) == share
    assert match_any(answer, references) == any_of_them


@given(
    st.text("abAB1 \n\t\x01é", max_size=30),
    st.lists(st.text("abAB1é", min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_scores_are_those_of_a_search_by_hand(answer: str, references: list[str]) -> None:
    def occurs(reference: str) -> bool:
        small, wanted = answer.lower(), reference.lower()
        return any(small[i : i + len(wanted)] == wanted for i in range(len(small)))

    found = [occurs(reference) for reference in references]
    assert match_all(answer, references) == found.count(True) / len(found)
    assert match_any(answer, references) == float(True in found)


@pytest.mark.parametrize(("task", "score"), [("vt@2048", 0.5), ("qa_1@2048", 1.0), ("qa_2@4096", 1.0), ("cwe@1", 0.5)])
def test_one_right_reference_is_enough_for_questions_alone(task: str, score: float) -> None:
    item = make_item(task, "0001", [{"role": "user", "content": "?"}], target=["ABCD", "EFGH"])
    completion = Completion("They are abcd. ", "EFGH", "stop", 3, 2, [], [], 0.1, None)
    assert ruler(lengths=(2048,)).score(item, "candidate", completion).score == score


def test_an_answer_is_scored_without_its_thinking(server: FakeServer) -> None:
    item = make_item("vt@2048", "0001", [{"role": "user", "content": "?"}], target=["ABCD", "EFGH"])
    server.script(chat_reply(" They are abcd. ", reasoning="EFGH"))
    sample = ask(server.url, lambda e: ruler(lengths=(2048,), max_tokens=33).answer(item, "candidate", e))
    assert (sample.score, sample.answer, sample.text) == (0.5, "They are abcd.", " They are abcd. ")
    assert sample.key == ("ruler", "vt@2048", "0001", 0, "candidate")
    assert sample.prompt_sha256 == item.prompt_sha256 and sample.reasoning == "EFGH"
    assert server.posts[0][1]["max_tokens"] == 33 and server.posts[0][1]["messages"] == item.prompt
