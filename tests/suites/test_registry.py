"""A policy's suites are made from their own configuration, or refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from harness.contract.check import Check
from harness.contract.errors import BadInput
from harness.contract.policy import Policy
from harness.contract.settings import Serving
from suites.cot.suite import Cot
from suites.divergence.suite import Divergence
from suites.registry import SUITES, make_suites
from suites.ruler.suite import Ruler


def policy(suites: dict[str, dict[str, Any]], max_model_len: int = 65536) -> Policy:
    check = Check(metric="accuracy", on="cot", max_loss=0.01)
    serving = Serving(max_model_len=max_model_len)
    return Policy(name="p", suites=suites, checks=[check], serving=serving)


def test_suites_are_made_in_the_policys_order(tmp_path: Path) -> None:
    asked: dict[str, dict[str, Any]] = {"ruler": {"lengths": [2048]}, "divergence": {}, "cot": {"tasks": {"gsm8k": {}}}}
    made = make_suites(policy(asked), tmp_path)
    assert [type(suite) for suite in made] == [Ruler, Divergence, Cot]
    assert [suite.name for suite in made] == list(asked)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_called_what_the_policy_calls_it(name: str) -> None:
    assert SUITES[name][0].name == name


@pytest.mark.parametrize(
    ("suites", "says"),
    [
        ({"nosuch": {}}, "suite 'nosuch' is unknown; known: "),
        ({"cot": {}}, "suites.cot: tasks: Field required"),
        ({"cot": {"tasks": {}}}, "suites.cot: tasks: "),
        ({"cot": {"tasks": {"gsm8k": {"limit": 0}}}}, "suites.cot: tasks.gsm8k.limit: "),
        ({"cot": {"tasks": {"gsm8k": {"limt": 1}}}}, "did you mean 'limit'?"),
        ({"ruler": {"lengths": []}}, "suites.ruler: lengths: "),
        ({"ruler": {"lengths": [2048, 2048]}}, "suites.ruler: lengths: a value is there twice"),
        ({"needle": {"lengths": [2048, 2048]}}, "suites.needle: lengths: a value is there twice"),
        ({"footprint": {"limit": 0}}, "suites.footprint: limit: "),
        ({"ruler": {"lengths": ["long"]}}, "suites.ruler: lengths.0: "),
        ({"ruler": {"lengts": [1]}}, "unknown key 'lengts'; did you mean 'lengths'?"),
        ({"divergence": {"trajectories": 0}}, "suites.divergence: trajectories: "),
    ],
)
def test_a_wrong_configuration_names_suite_and_key(
    tmp_path: Path, suites: dict[str, dict[str, Any]], says: str
) -> None:
    with pytest.raises(BadInput) as caught:
        make_suites(policy(suites), tmp_path)
    assert says in str(caught.value) and str(caught.value).startswith("policy p: ")


@pytest.mark.parametrize(
    "suites",
    [
        {"ruler": {"lengths": [2048], "max_tokens": 100}},
        {"cot": {"tasks": {"gsm8k": {}}, "max_tokens": 2100}},
        {"divergence": {"max_tokens": 1500}},
        {"decoding": {"max_tokens": 1500}},
        {"speculative": {"max_tokens": 1500}},
    ],
)
def test_a_context_that_the_servers_cannot_hold_is_refused(tmp_path: Path, suites: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(BadInput, match=r"needs \d+ tokens of context, serving.max_model_len is 2100"):
        make_suites(policy(suites, max_model_len=2100), tmp_path)
    assert len(make_suites(policy(suites, max_model_len=2200), tmp_path)) == 1
