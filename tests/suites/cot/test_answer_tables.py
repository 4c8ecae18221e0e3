"""Every task of cot reads at least sixty answers as a careful person does, and those of the shared file where it is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from answer_tables import cases_of

from harness.contract.settings import Sampling
from harness.endpoint.answers import Completion, message_fields
from suites.base import make_item
from suites.cot.suite import Cot, CotConfig, score_text
from suites.cot.tasks import scoring
from suites.readings.final_expressions import final_expression
from suites.readings.final_letters import final_letter
from suites.readings.final_numbers import final_number

TASKS = ["word_problems", "gsm8k", "mgsm_en", "mgsm_ja", "mgsm_zh", "mmlu_pro", "math500", "aime24", "aime25"]
SHARED = Path(__file__).parents[4] / "shared" / "data"
DATA = Path(os.environ.get("QUANTGATE_DATA") or SHARED)
CASES = DATA / "answer_cases" / "cases.jsonl"
EXPRESSIONS = ("math500", "aime24", "aime25")


def read(task: str, text: str, gold: str) -> tuple[float, str]:
    """(score, answer) as the task's filter and metric give them."""
    if task in EXPRESSIONS:
        answer = final_expression(text)
        return scoring.math({"answer": gold}, [answer])["exact_match"], answer
    answer = final_letter(text) if task == "mmlu_pro" else final_number(text)
    return float(answer == gold), answer


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_read_as_a_person_reads_them(task: str) -> None:
    cases = cases_of(task)
    assert len({(text, gold) for text, gold, _ in cases}) >= 60
    wrong = []
    for text, gold, right in cases:
        score, answer = read(task, text, gold)
        if score != (right or 0) or (right is None and answer):
            wrong.append((text, gold, right, answer))
    assert not wrong


def suite_of(task: str) -> Cot:
    return Cot(CotConfig.model_validate({"tasks": {task: {}}}), Sampling(), Path())


@pytest.mark.parametrize("task", ["word_problems"])
def test_the_suite_scores_what_the_readers_read(task: str) -> None:
    suite = suite_of(task)
    for text, gold, right in cases_of(task)[::5]:
        item = make_item(
            task, "0", [{"role": "user", "content": "?"}], gold, doc={"answer": gold}, generation={"until": []}
        )
        sample = suite.score(item, "candidate", Completion(text, "", "stop", 1, 1, [], [], 0.0, None))
        assert sample.error is None and sample.score == (right or 0), (text, gold)
        assert (sample.metrics.get("no_answer") == 1) == (right is None), text
        assert score_text(suite._task(task), {"answer": gold}, text, suite._config.tasks[task])[0] == (right or 0)


@pytest.mark.parametrize(
    ("text", "finish", "metrics"),
    [
        ("<think>six times seven is 42</think>", "stop", {"unterminated": 0, "uncommitted": 1, "no_answer": 1}),
        ("<think>six times seven</think>", "stop", {"unterminated": 0, "uncommitted": 1, "no_answer": 1}),
        ("<think>it is 42</think>The answer is 41.", "stop", {"unterminated": 0, "uncommitted": 1}),
        ("<think>it is 42</think>The answer is 42.", "stop", {"unterminated": 0, "uncommitted": 0}),
        ("<think>a</think><think>The answer is 42.", "length", {"unterminated": 1, "uncommitted": 1, "no_answer": 1}),
        ("[THINK]The answer is 42.", "length", {"unterminated": 1, "uncommitted": 1, "no_answer": 1}),
    ],
)
@pytest.mark.parametrize("split_before", [True, False])
def test_thinking_is_no_answer(text: str, finish: str, metrics: dict[str, float], split_before: bool) -> None:
    said: dict[str, Any] = message_fields({"content": text}) if split_before else {"text": text, "reasoning": ""}
    completion = Completion(
        finish_reason=finish, prompt_tokens=1, completion_tokens=9, prompt_ids=[], token_ids=[], seconds=0.0,
        fingerprint=None, **said,
    )  # fmt: skip
    item = make_item(
        "word_problems", "0", [{"role": "user", "content": "?"}], "42", doc={"answer": "42"}, generation={"until": []}
    )
    sample = suite_of("word_problems").score(item, "candidate", completion)
    assert {name: sample.metrics.get(name) for name in metrics} == metrics
    assert sample.score == float(text.endswith("</think>The answer is 42."))


@pytest.mark.skipif(not CASES.exists(), reason="no answer_cases in QUANTGATE_DATA")
def test_the_shared_cases_are_read_as_a_person_reads_them() -> None:
    wrong = []
    for line in CASES.read_text("utf-8").splitlines():
        case = json.loads(line)
        if case["task"] not in TASKS or {"unterminated", "uncommitted", "answer", "content"} & case.keys():
            continue
        score, answer = read(case["task"], case["text"], case["gold"])
        if score != (case["right"] or 0) or (case["right"] is None and answer):
            wrong.append((case, answer))
    assert not wrong
