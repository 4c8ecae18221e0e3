"""What a reader sees first: the verdict in counts, the checks nearest to failing, and what leads from them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import pytest
from report_page import page_of
from report_runs import SEALED, make_run, result, verdict_of

from harness.contract.policy import parse_policy
from harness.judging.results import CheckResult
from harness.runs.folder import RunFolder
from reports.render import read_report
from reports.samples.index import Choice, PairsView
from reports.samples.links import FLIPS, pairs_link

FAILS = {"verdict": "FAIL", "lower": 0.02, "upper": 0.05, "estimate": 0.03}
OPEN = {"verdict": "INCONCLUSIVE", "upper": 0.02}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)


@pytest.mark.parametrize(
    ("checks", "verdict", "said"),
    [
        ([result(), result()], "PASS", "All 2 checks hold."),
        ([result(), result(**FAILS, advisory=True)], "PASS", "The one check holds; 1 more is advisory."),
        ([result(**FAILS, after_holm=True), result(**OPEN)], "FAIL", "Of 2 checks 1 fails, 1 cannot be decided."),
        (
            [result(**FAILS, after_holm=False)] * 2 + [result(**OPEN), result()],
            "INCONCLUSIVE",
            "Of 4 checks 2 fail by themselves, which may be chance, 1 cannot be decided, 1 holds.",
        ),
    ],
)
def test_the_summary_counts_what_has_a_say(run: RunFolder, checks: list[CheckResult], verdict: str, said: str) -> None:
    verdict_of(run, *checks, verdict=verdict)
    report = read_report(run)
    assert report.summary == said
    if {check.verdict for check in checks} > {"FAIL", "INCONCLUSIVE"}:  # what fails by itself alone is not passed over
        assert report.sentence == f"{said[:-1]}; worst: “{checks[0].name}” (why)."


def test_another_reason_than_a_check_is_said_itself(run: RunFolder) -> None:
    verdict_of(run, result(), verdict="INCONCLUSIVE", reason="required cot/gsm8k: nothing was answered by both sides")
    assert read_report(run).summary.startswith("Required cot/gsm8k: nothing was answered")


def test_a_required_task_that_was_not_answered_is_odd_whatever_the_checks_say(tmp_path: Path) -> None:

    sealed = parse_policy(f"{SEALED.text}required: [cot/gsm8k]\n")
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, sealed=sealed)
    assert "required cot/gsm8k: nothing was answered by both sides." in read_report(folder).notes


def test_the_first_screen_has_three_checks_with_numbers_and_below_them_policy_and_costs(run: RunFolder) -> None:
    values = {"reference_value": 0.208, "candidate_value": 0.042}
    checks = [result(**FAILS, **values, on="cot/word_problems"), *(result(on=f"cot/{n}") for n in "abc")]
    verdict_of(run, *checks)
    page = page_of(run)
    first = page.words[page.words.index("Nearest to failing") : page.words.index("Each interval is drawn")]
    assert "Accuracy cot/word_problems 20.8 → 4.2 % recovers 20.2 % 3.0 points 2.0 to 5.0, margin ≤ 1.0" in first
    assert first.count("margin ≤") == 3 and "Sealed sha256" not in first
    links = [link["href"] for link in page.all("a")]
    assert "#check-1" in links and "#suite-cot" in links and "#pairs?suite=cot&task=word_problems" in links
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert {"check-1", "suite-cot", "pairs"} <= {*ids}


def test_a_check_leads_to_the_pairs_that_it_speaks_of() -> None:
    pairs = PairsView(tasks=[("cot", "a b"), ("divergence", "chat")], choices=[Choice(FLIPS, "Flips", 3)])

    def link(**fields: object) -> dict[str, list[str]] | None:
        found = pairs_link(result(**fields), pairs)
        return None if found is None else parse_qs(found.removeprefix("#pairs?"))

    assert link(on="cot/a b") == {"suite": ["cot"], "task": ["a b"], "show": [FLIPS]}
    assert link(on="cot", metric="truncated_rate") == {"suite": ["cot"]}  # no pair was cut: the choice is not there
    assert link(on="divergence", metric="kl_mean") == {"suite": ["divergence"], "sort": ["kl"]}
    assert link(on="cot/b") is None and link(on="footprint") is None
