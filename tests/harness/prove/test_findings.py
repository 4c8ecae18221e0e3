"""What is called caught, and how it is shown."""

from __future__ import annotations

import pytest

from harness.judging.results import CheckResult, Outcome
from harness.judging.verdict import EXIT_CODES, Verdict
from harness.prove.document import markdown, page, summary
from harness.prove.entries import HARMLESS, Entry, Expected, doubted, fails, refused, unserved
from harness.prove.findings import Finding, Proof, Status, Weakest, cell, not_run, of_refusal, of_verdict

HOSTILE = "<script>alert(1)</script> | `x` **y**\u202e"


def entry(expected: Expected, name: str = "e") -> Entry:
    return Entry(name, "weights", "something was done", expected)


def check(verdict: Outcome, metric: str = "kl_mean", *, after_holm: bool = True) -> CheckResult:
    return CheckResult(
        name=metric,
        metric=metric,
        on="divergence",
        verdict=verdict,
        reason="because",
        margin=0.05,
        margin_kind="max",
        unit="nats",
        confidence=0.95,
        estimate=0.5,
        lower=0.4,
        upper=0.6,
        after_holm=after_holm if verdict == "FAIL" else None,
    )


def judged(outcome: Outcome, *checks: CheckResult, reason: str = "because") -> Verdict:
    return Verdict(
        verdict=outcome,
        reason=reason,
        policy_name="p",
        policy_sha256="0" * 64,
        sealed_policy_sha256="0" * 64,
        checks=list(checks),
    )


def proof(*findings: Finding) -> Proof:
    return Proof(
        quantgate_version="1",
        command="quantgate prove",
        model="demo",
        model_sha256="0" * 64,
        policy="prove",
        policy_sha256="0" * 64,
        machine="2 cores",
        findings=list(findings),
    )


@pytest.mark.parametrize(
    ("expected", "verdict", "status"),
    [
        (fails("kl_mean"), judged("FAIL", check("FAIL")), "caught"),
        (fails("kl_mean"), judged("FAIL", check("PASS"), check("FAIL", "accuracy")), "caught otherwise"),
        # What fails alone and not after Holm's correction is not what failed the run.
        (
            fails("kl_mean"),
            judged("FAIL", check("FAIL", after_holm=False), check("FAIL", "accuracy")),
            "caught otherwise",
        ),
        (fails("kl_mean"), judged("INCONCLUSIVE", check("INCONCLUSIVE")), "undecided"),
        (fails("kl_mean"), judged("PASS", check("PASS")), "missed"),
        (refused("merge"), judged("PASS", check("PASS")), "missed"),
        (refused("merge"), judged("FAIL", check("FAIL")), "caught otherwise"),
        (doubted("same"), judged("INCONCLUSIVE", reason="the same model twice"), "caught"),
        (doubted("same"), judged("INCONCLUSIVE", reason="too few"), "undecided"),
        (doubted("same"), judged("PASS", reason="all the same"), "missed"),
        (HARMLESS, judged("PASS", check("PASS")), "harmless"),
        (HARMLESS, judged("INCONCLUSIVE", check("INCONCLUSIVE")), "undecided"),
        (HARMLESS, judged("FAIL", check("FAIL")), "false alarm"),
    ],
)
def test_a_verdict_is_held_against_what_was_stated(expected: Expected, verdict: Verdict, status: str) -> None:
    finding = of_verdict(entry(expected), verdict, [], 1.0)
    assert finding.status == status and finding.exit_code == EXIT_CODES[verdict.verdict]


@pytest.mark.parametrize(
    ("expected", "exit_code", "reason", "status"),
    [
        (refused("merge"), 3, "not comparable: a merge", "caught"),
        (refused("merge"), 3, "bad policy", "caught otherwise"),
        (fails("kl_mean"), 3, "not comparable", "caught otherwise"),
        (HARMLESS, 3, "not comparable", "false alarm"),
        (refused("merge"), 4, "the server died of a merge", "not run"),
        (HARMLESS, 4, "the server died", "not run"),
        (unserved("not initialized"), 4, "weights were not initialized", "caught"),
        (unserved("not initialized"), 4, "too little memory", "not run"),
        (unserved("not initialized"), 3, "not initialized", "caught otherwise"),
    ],
)
def test_so_is_an_end_without_a_verdict(expected: Expected, exit_code: int, reason: str, status: str) -> None:
    assert of_refusal(entry(expected), exit_code, reason, 1.0).status == status


def test_a_cell_says_by_how_much_a_check_fails() -> None:
    failed = of_verdict(entry(fails("kl_mean")), judged("FAIL", check("FAIL"), check("PASS", "flip_rate")), [], 1.0)
    assert cell(failed, "kl_mean on divergence") == "FAIL: 0.4000 nats > 0.0500 nats"
    assert cell(failed, "flip_rate on divergence") == "pass"
    assert cell(failed, "accuracy on cot") == ""
    alone = of_verdict(entry(HARMLESS), judged("INCONCLUSIVE", check("FAIL", after_holm=False)), [], 1.0)
    assert cell(alone, "kl_mean on divergence").startswith("FAIL alone: ")


def test_what_was_not_run_is_never_counted_as_caught() -> None:
    found = proof(
        of_verdict(entry(fails("kl_mean"), "a"), judged("FAIL", check("FAIL")), [], 1.0),
        of_verdict(entry(HARMLESS, "b"), judged("INCONCLUSIVE", check("INCONCLUSIVE")), [], 1.0),
        not_run(entry(fails("kl_mean"), "c"), "needs two GPUs"),
    )
    assert summary(found) == (
        "Harmful candidates: 1 of 1 caught as stated, 0 caught otherwise, 0 undecided, 0 missed. "
        "Harmless ones: 0 of 1 pass, 1 undecided, 0 stopped. Not run: 1."
    )
    text = markdown(found)
    assert "needs two GPUs" in text.split("## Not run")[1] and "`c`" not in text.split("## Not run")[0]
    assert found.holds


def test_a_proof_holds_when_all_that_ran_is_as_it_must_be() -> None:
    caught = of_refusal(entry(refused("x"), "a"), 3, "x", 1.0)
    harmless = of_verdict(entry(HARMLESS, "b"), judged("PASS", check("PASS")), [], 1.0)
    missed = of_verdict(entry(refused("x"), "c"), judged("PASS", check("PASS")), [], 1.0)
    assert proof(caught, harmless, not_run(entry(HARMLESS, "d"), "later")).holds
    assert not proof(caught, harmless, missed).holds
    undecided = judged("INCONCLUSIVE", check("INCONCLUSIVE"))
    assert proof(of_verdict(entry(HARMLESS), undecided, [], 1.0)).holds  # it was not stopped
    assert not proof(of_verdict(entry(refused("x")), undecided, [], 1.0)).holds  # it was not found
    assert not proof(of_verdict(entry(HARMLESS), judged("FAIL", check("FAIL")), [], 1.0)).holds
    assert not proof(caught.model_copy(update={"seeds": ["caught", "missed"]})).holds
    assert proof(caught.model_copy(update={"seeds": ["not run"]}), harmless).holds


def test_words_of_others_are_no_markup() -> None:
    found = proof(of_refusal(entry(refused("x"), "a"), 3, HOSTILE, 1.0))
    html, text = page(found), markdown(found)
    assert "<script" not in html and "alert(1)" in html and "\u202e" not in html
    row = next(line for line in text.splitlines() if "alert" in line)
    assert "\\<script\\>" in row and "\\|" in row and "\u202e" not in row


def test_the_weakest_dose_stands_in_both_documents() -> None:
    caught = of_refusal(entry(refused("x"), "a"), 3, "x", 1.0).model_copy(update={"seeds": ["caught", "missed"]})
    doses: dict[str, Status] = {"1 of 64": "undecided", "3 of 64": "caught"}
    weakest = Weakest(name="a", damage=HOSTILE, caught="3 of 64", not_caught="2 of 64", tried=doses)
    never = Weakest(name="b", damage="d", caught=None, not_caught="64 of 64", tried={})
    least = Weakest(name="c", damage="d", caught="1 of 64", not_caught=None, tried={})
    found = proof(caught).model_copy(update={"weakest": [weakest, never, least]})
    for text in (markdown(found), page(found)):
        assert "from 3 of 64 on, not at 2 of 64" in text and "1 of 64: undecided; 3 of 64: caught" in text
        assert "from 1 of 64 on, the weakest that was tried" in text and "not even the strongest dose" in text
        assert "caught (other seeds: missed)" in text and "<script" not in text.replace("\\<", "")
