"""Our task files: real rows come from the folder, gold answers are right, others wrong, broken rows are named."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from fake_server import FakeServer, ask, chat_reply

from harness.contract.errors import BadInput
from harness.contract.samples import Item, Sample
from harness.contract.settings import Sampling
from harness.endpoint.client import Completion, Endpoint
from suites.cot.suite import Cot, CotConfig
from suites.cot.tasks import datasets_of
from suites.readings import math_grader

DATA = Path(os.environ.get("QUANTGATE_DATA") or Path(__file__).parents[4] / "shared" / "data")
FILES = {
    "gsm8k": ("gsm8k/test.jsonl", 1319),
    "math500": ("math500/math500_full.jsonl", 500),
    "mmlu_pro": ("mmlu_pro/test_stratified_1400.jsonl", 1400),
    "aime24": ("aime/aime24.jsonl", 30),
    "aime25": ("aime/aime25.jsonl", 30),
    "mgsm_ja": ("mgsm/mgsm_ja.jsonl", 250),
    "mgsm_zh": ("mgsm/mgsm_zh.jsonl", 250),
    "mgsm_en": ("mgsm/mgsm_en.jsonl", 250),
}
real_rows = pytest.mark.skipif(
    not all((DATA / file).exists() for file, _ in FILES.values()), reason="no data sets in QUANTGATE_DATA"
)
FORMS = {
    "gsm8k": ["3 + 4 = 7 eggs.\nThe answer is {}.", "#### {}", "so 12 and\n**Answer: ${}**", r"$\boxed{{{}}}$"],
    "math500": [r"As $x > 3$, the answer is $\boxed{{{}}}$.", "We get $17$.\n\nThe final answer is ${}$."],
    "mmlu_pro": ["(A) and (B) are wrong. The answer is ({}).", r"\boxed{{{}}}", "Hence\n\n**{}**"],
    "aime24": [r"From $m = 3$ we get \[ m + n = \boxed{{{}}} \]", "The answer is {}."],
    "mgsm_ja": ["3個と4個です。\n答えは{}です。", "答え：{}", "合計は\n{}ドル"],
    "mgsm_zh": ["3颗加4颗。\n答案是{}。", "**答案：{}美元**", "一共\n{}"],
}
"""Worked answers as models write them; {} is the final answer."""
FORMS |= {"aime25": FORMS["aime24"], "mgsm_en": FORMS["gsm8k"]}
WIDE = str.maketrans("0123456789,-", "０１２３４５６７８９，－")


def cot(task: str, **settings: Any) -> Cot:
    return Cot(CotConfig(tasks={task: settings}), Sampling(), Path())


@pytest.fixture(scope="module")
def made() -> dict[str, list[Item]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTGATE_DATA", str(DATA))
        patch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the hub was asked"))
        return {task: list(cot(task).items(None)) for task in FILES}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_DATA", str(DATA))


def rows_of(task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / FILES[task][0]).read_text("utf-8").splitlines()]


def score(suite: Cot, item: Item, text: str) -> float | None:
    sample = suite.score(item, "candidate", Completion(text, "", "stop", 1, 1, [], [], 0.0, None))
    assert sample.error is None, sample.error
    return sample.score


@real_rows
@pytest.mark.parametrize("task", FILES)
def test_every_row_is_asked_once_with_its_question(made: dict[str, list[Item]], task: str) -> None:
    found, rows = made[task], rows_of(task)
    assert len(found) == len(rows) == FILES[task][1]
    assert [item.item for item in found] == [f"{i:05d}" for i in range(len(rows))]
    assert all(len(item.prompt) == 1 and item.prompt[0]["role"] == "user" for item in found)
    assert {item.data["generation"]["until"] == [] for item in found} == {True}
    prompts = [item.prompt[0]["content"] for item in found]
    questions = [(row.get("question") or row["problem"]).strip() for row in rows]
    if task == "mmlu_pro":  # the categories take turns
        assert len({item.data["doc"]["category"] for item in found[:14]}) == 14
        prompts.sort()
        questions.sort()
    for prompt, question in zip(prompts, questions, strict=True):
        assert prompt.startswith(question.removesuffix(datasets_of.INSTRUCTION))
        assert datasets_of.INSTRUCTION not in prompt
    instructions = {prompt.rpartition("\n\n")[2] for prompt in prompts}
    assert len(instructions) == 1 and re.search("step by step|順を追って|一步一步", instructions.pop())


@real_rows
def test_a_limit_changes_no_prompt(made: dict[str, list[Item]]) -> None:
    for task in FILES:
        assert list(cot(task, limit=5).items(None)) == made[task][:5]


@real_rows
@pytest.mark.parametrize("task", FILES)
def test_every_gold_answer_is_right_in_every_form(made: dict[str, list[Item]], task: str) -> None:
    suite, forms = cot(task), FORMS[task]
    every = 3 if task == "math500" else 1  # comparing takes time; all of its solutions are scored below
    for index, item in enumerate(made[task][::every]):
        text = forms[index % len(forms)].format(item.target)
        assert score(suite, item, text) == 1.0, (item.item, text)


@real_rows
def test_numbers_may_be_full_width_and_have_separators(made: dict[str, list[Item]]) -> None:
    for task, said in (("mgsm_ja", "答えは{}です。"), ("mgsm_zh", "答案是{}。")):
        suite = cot(task)
        for item in made[task]:
            grouped = f"{int(item.target):,d}"
            assert score(suite, item, said.format(grouped)) == 1.0
            assert score(suite, item, said.format(grouped.translate(WIDE))) == 1.0


@real_rows
@pytest.mark.parametrize("task", [task for task in FILES if task != "math500"])
def test_answers_that_differ_are_wrong(made: dict[str, list[Item]], task: str) -> None:
    suite, form = cot(task), FORMS[task][0]
    for item in made[task]:
        if task == "mmlu_pro":
            others = [letter for letter in "ABCDEFGHIJ" if letter != item.target][int(item.item) % 9 :][:1]
        else:
            others = [f"{item.target}1", str(int(item.target) + 1), f"-{int(item.target) + 5}", f"{item.target}.5"]
        for other in others[:2] if task.startswith("aime") else others:
            assert score(suite, item, form.format(other)) == 0.0, (item.item, other)


@real_rows
@pytest.mark.slow
def test_the_worked_solutions_are_right(made: dict[str, list[Item]]) -> None:
    for task, field in (("gsm8k", "answer"), ("math500", "solution")):
        suite = cot(task)
        for item, row in zip(made[task], rows_of(task), strict=True):
            assert score(suite, item, row[field]) == 1.0, (item.item, row[field][-200:])


@real_rows
def test_other_problems_answers_are_wrong_in_math500(made: dict[str, list[Item]]) -> None:
    suite, found = cot("math500"), made["math500"]
    pairs = [(item, found[int(item.item) + 1].target) for item in found[:100]]
    right = [(item.target, other) for item, other in pairs if score(suite, item, rf"\boxed{{{other}}}") == 1.0]
    assert right == [("5", "x=5")]  # the one that is equal


@pytest.mark.slow
def test_an_answer_that_takes_long_to_compare_holds_up_no_other(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aime").mkdir()
    (tmp_path / "aime" / "aime24.jsonl").write_text('{"problem": "Find $n$.", "answer": "204"}\n')
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    monkeypatch.setattr(math_grader, "SECONDS", 1)
    server.script(chat_reply(r"It is \boxed{9^{9^{9^9}}}."))
    suite = cot("aime24")
    (item,) = suite.items(None)

    async def run(endpoint: Endpoint) -> tuple[Sample, int]:
        asking = asyncio.create_task(suite.answer(item, "candidate", endpoint))
        turns = 0
        while not asking.done():
            await asyncio.sleep(0.05)
            turns += 1
        return await asking, turns

    sample, turns = ask(server.url, run)
    assert (sample.score, sample.answer, sample.error) == (0.0, "9^{9^{9^9}}", None)
    assert turns >= 5  # a blocked loop has two or three


# -- rows that are broken ------------------------------------------------------------------------------------

GOOD = {"question": "How many?", "answer": "3 + 4 = 7\n#### 7"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"question": "cut', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"answer": "#### 7"}', "no text in 'question'"),
        (b'{"question": " ", "answer": "#### 7"}', "no text in 'question'"),
        (b'{"question": ["a"], "answer": "#### 7"}', "no text in 'question'"),
        (b'{"question": "How many?"}', "no text in 'answer'"),
        (b'{"question": "How many?", "answer": "#### seven"}', "'answer' ends in ' seven', which is no number"),
        (b'{"question": "\\ud800", "answer": "#### 7"}', "surrogates not allowed"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, reason: str) -> None:
    path = tmp_path / "gsm8k" / "test.jsonl"
    path.parent.mkdir()
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    with pytest.raises(BadInput) as error:
        cot("gsm8k").items(None)
    message = str(error.value)
    assert message.startswith(f"cot task gsm8k: {path}:3: ") and reason in message and "\n" not in message


def test_a_file_without_rows_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("\n")
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=r"gsm8k/test\.jsonl has no rows"):
        cot("gsm8k").items(None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Which?", "options": ["a"], "answer": "A", "category": "law"}, "no list of 2 to 10 texts"),
        ({"question": "Which?", "options": ["a", 2], "answer": "A", "category": "law"}, "no list of 2 to 10 texts"),
        ({"question": "Which?", "options": ["a", "b"], "answer": "C", "category": "law"}, "the options are A to B"),
        ({"question": "Which?", "options": ["a", "b"], "answer": "AB", "category": "law"}, "the options are A to B"),
        ({"question": "Which?", "options": ["a", "b"], "answer": "A"}, "no text in 'category'"),
    ],
)
def test_a_broken_choice_says_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        datasets_of.choice(row)


def test_rows_of_other_copies_have_the_same_shape() -> None:
    assert datasets_of.problem({"Problem": "Find $n$.", "Answer": 204, "ID": "1"}) == datasets_of.problem(
        {"problem": "Find $n$." + datasets_of.INSTRUCTION, "answer": "204"}
    )
    assert datasets_of.number({"question": "q", "answer": None, "answer_number": 1234}) == datasets_of.number(
        {"question": "q", "answer": "1,234"}
    )


def test_the_hub_is_asked_where_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def hub(*args: Any, **options: Any) -> list[dict[str, Any]]:
        asked.append((args, options))
        return [GOOD]

    monkeypatch.setattr(datasets, "load_dataset", hub)
    for folder in (str(tmp_path), ""):
        monkeypatch.setenv("QUANTGATE_DATA", folder)
        assert [item.target for item in cot("gsm8k").items(None)] == ["7"]
    assert asked == [(("openai/gsm8k", "main"), {"split": "test"})] * 2


def test_neither_file_nor_hub_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach it\non the hub")

    monkeypatch.setattr(datasets, "load_dataset", hub)
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    message = (
        "cot task mgsm_ja: there is no mgsm/mgsm_ja.jsonl in QUANTGATE_DATA, "
        "and no jbross-ibm-research/mgsm on the hub: Couldn't reach it on the hub"
    )
    with pytest.raises(BadInput) as error:
        cot("mgsm_ja").items(None)
    assert str(error.value) == message
