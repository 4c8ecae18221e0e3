"""Answers in the words of many models, with the score that a careful person gives: answers_as_written.jsonl.

`right`: 1 right, 0 wrong, null where nothing is answered. `wrong_language`: 1 where the language `gold` was asked for
and another one stands there; with an empty `gold` the text is of no language, whatever was asked for. `finish_reason`:
"length" where the budget ended the answer.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from suites.readings.accepted_answers import first_accepted, share_said
from suites.readings.final_expressions import final_expression
from suites.readings.final_letters import final_letter
from suites.readings.final_numbers import final_number
from suites.readings.math_grader import same_expression
from suites.readings.scripts import LANGUAGES, fits

CASES = [json.loads(line) for line in Path(__file__).with_name("answers_as_written.jsonl").open(encoding="utf-8")]


def read_wrong(case: dict[str, Any]) -> object:
    """What was read, where it is not what a careful person reads; None where it is."""
    task, text, gold, right = case["task"], case["text"], case["gold"], case.get("right")
    if task == "language":
        asked = [gold] if gold else LANGUAGES
        found: object = [fits(text, language) is False for language in asked]
        return None if found == [bool(case["wrong_language"])] * len(asked) else found
    if task.startswith(("ruler/", "language/")):
        said = (
            share_said(text, [gold]) if task.startswith("ruler/") else float(first_accepted(text, [gold]) is not None)
        )
        return None if said == right else said
    if task == "math500":
        answer = final_expression(text)
        return None if same_expression(gold, answer) == bool(right) else answer
    cut = case.get("finish_reason") == "length"
    answer = final_letter(text, cut=cut) if task == "mmlu_pro" else final_number(text)
    return None if (answer == gold) == bool(right) and not (right is None and answer) else answer or "nothing"


SUITES = ["gsm8k", "mgsm_ja", "mgsm_zh", "mmlu_pro", "math500", "ruler", "language"]


def suite_of(case: dict[str, Any]) -> str:
    """The suite of a case; mgsm in languages that no task asks for, but models may answer in, is "mgsm"."""
    name = str(case["task"]).split("/")[0]
    return name if name in SUITES else name.split("_")[0]


@pytest.mark.parametrize("suite", [*SUITES, "mgsm"])
def test_answers_are_read_as_a_careful_person_reads_them(suite: str) -> None:
    cases = [case for case in CASES if suite_of(case) == suite]
    assert len(cases) >= 40
    assert [(case, found) for case in cases if (found := read_wrong(case)) is not None] == []
