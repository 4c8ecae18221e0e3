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


@pytest.mark.parametrize(
    ("text", "finish", "right", "answer"),
    [
        ("A. Prices rise.\nB. Wages rise.\nC. Rents", "length", 0, None),
        ("Let us weigh them.\nC. Rents fall, since", "length", 0, None),
        ("(A) is too small. (C)", "length", 0, None),
        ("C. Rents", "length", 1, "C"),
        ("Only (C) fits. The rest:\n(D) is", "length", 1, "C"),
        ("The answer is (C). A look at (D) tells that", "length", 1, "C"),
        ("Let us weigh them.\nC. Rents fall.", "stop", 1, "C"),
    ],
)
def test_options_listed_when_the_budget_ended_are_no_answer(
    text: str, finish: str, right: float, answer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_DATA", str(tmp_path))
    row = {"question": "Which?", "options": ["prices", "wages", "rents", "rates"], "answer": "C", "category": "x"}
    (tmp_path / "mmlu_pro").mkdir()
    (tmp_path / "mmlu_pro" / "test_stratified_1400.jsonl").write_text(json.dumps(row))
    suite = suite_of("mmlu_pro")
    [item] = suite.items(None)
    sample = suite.score(item, "candidate", Completion(text, "", finish, 1, 1, [], [], 0.0, None))
    assert (sample.error, sample.score, sample.answer) == (None, right, answer)


@pytest.mark.skipif(not CASES.exists(), reason="no answer_cases in QUANTGATE_DATA")
def test_the_shared_cases_of_thinking_are_scored_so_by_the_suite() -> None:
    """Tags in the text, and beside a reasoning field; each as the client and as a stored text would hand it over."""
    suite, wanted, tried = suite_of("word_problems"), ("unterminated", "uncommitted"), 0
    for case in map(json.loads, CASES.read_text("utf-8").splitlines()):
        if not {*wanted, "answer", "content"} & case.keys():
            continue
        content = case.get("content", case["text"])
        for said in (
            message_fields({"content": content, "reasoning": case.get("reasoning")}),
            {"text": content, "reasoning": case.get("reasoning", "")},
        ):
            completion = Completion(
                finish_reason=case.get("finish_reason", "stop"), prompt_tokens=1, completion_tokens=9, prompt_ids=[],
                token_ids=[], seconds=0.0, fingerprint=None, **said,
            )  # fmt: skip
            prompt = [{"role": "user", "content": "?"}]
            item = make_item(
                "word_problems", "0", prompt, case["gold"], doc={"answer": case["gold"]}, generation={"until": []}
            )
            sample = suite.score(item, "candidate", completion)
            assert sample.error is None and sample.score == (case["right"] or 0), case
            assert (sample.metrics.get("no_answer") == 1) == (case["right"] is None), case
            assert {name: sample.metrics.get(name) for name in wanted if name in case} == {
                name: case[name] for name in wanted if name in case
            }, case
            if "content" in case or "answer" in case:
                assert sample.text == case["text" if "content" in case else "answer"], case
            tried += 1
    assert tried == 10
