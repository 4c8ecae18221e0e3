"""`compare --policy`: margins, metrics and directions of tasks, required and advisory ones, relative and clustered."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_results import Both, ids, near, record, records, report, summary, write

from harness.contract.errors import BadInput
from harness.contract.policy import parse_policy
from harness.judging.results import CheckResult
from harness.offline.compare import Comparison, compare

HEAD = "name: mine\n"


def judged(sides: tuple[Path, Path], checks: str, lm_eval: str = "{}", more: str = "") -> Comparison:
    policy = parse_policy(f"{HEAD}suites: {{lm_eval: {lm_eval}}}\nchecks:\n{checks}\n{more}")
    return compare(*sides, policy)


def results(found: Comparison) -> dict[str, CheckResult]:
    return {check.on: check for check in found.verdict.checks}


LM = "  - {metric: accuracy, on: lm_eval/*, max_loss: 2 points}"


def test_a_task_has_its_own_margin_and_others_that_of_the_wildcard(both: Both) -> None:
    sides = both(records([1] * 400), records([1] * 396 + [0] * 4))
    for side in sides:
        write(side, records([1] * 400), task="aime")
    found = judged(sides, f"{LM}\n  - {{metric: accuracy, on: lm_eval/gsm8k, max_loss: 5 points}}")
    assert {on: (check.margin, check.verdict) for on, check in results(found).items()} == {
        "lm_eval/gsm8k (exact_match)": (0.05, "PASS"),
        "lm_eval/aime (exact_match)": (0.02, "PASS"),
    }
    assert found.sealed.text.startswith("# made of policy mine (sha256 ") and found.notes == ()
    assert (found.verdict.policy_name, found.verdict.policy_sha256) == ("mine", found.sealed.sha256)


def test_metric_filter_and_direction_of_a_task(both: Both) -> None:
    rows = [
        record(i, 1, filter=name, metrics=["exact_match", "edits"], edits=0.1 if name == "strict" else 0.4)
        for name in ("strict", "loose")
        for i in range(400)
    ]
    worse = [row | {"edits": row["edits"] + 0.3} for row in rows]
    reading = "{tasks: {gsm*: {metric: edits, better: lower, filter: strict}}}"
    found = judged(both(rows, worse), LM, reading)
    (check,) = found.verdict.checks
    assert (check.on, check.verdict) == ("lm_eval/gsm8k (1 - edits)", "FAIL")
    assert (check.reference_value, check.candidate_value) == (near(0.9), near(0.6))
    (check,) = judged(both(worse, rows), LM, reading).verdict.checks
    assert (check.verdict, check.estimate) == ("PASS", near(-0.3))
    (check,) = judged(
        both(rows, worse), LM, "{tasks: {gsm8k: {metric: edits, better: higher, filter: strict}}}"
    ).verdict.checks
    assert (check.verdict, check.on) == ("PASS", "lm_eval/gsm8k (edits)")


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        ("{tasks: {gsm8k: {metric: f1}}}", "task gsm8k has no metric 'f1'; it has exact_match"),
        ("{tasks: {gsm8k: {filter: x}}}", "task gsm8k has no filter 'x'; it has none"),
        ("{tasks: {gsm8k: {better: more}}}", r"policy mine: suites\.lm_eval: tasks\.gsm8k\.better"),
        ("{task: {}}", r"unknown key 'task'; did you mean 'tasks'\?"),
        ("{tasks: {gsm8k: {cluster: passage}}}", r"jsonl:1: no doc, so no 'passage' to group documents by"),
    ],
)
def test_what_a_policy_asks_for_and_the_files_lack_is_named(both: Both, reading: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        judged(both(records([1] * 9), records([1] * 9)), LM, reading)


def test_a_required_task_that_is_missing_on_both_sides_is_no_pass(both: Both) -> None:
    sides = both(records([1] * 400), records([1] * 400))
    assert judged(sides, LM, more="required: [lm_eval/gsm8k, lm_eval/*]").verdict.verdict == "PASS"
    verdict = judged(sides, LM, more="required: [lm_eval/mmlu]").verdict
    assert (verdict.verdict, verdict.reason) == (
        "INCONCLUSIVE",
        "required lm_eval/mmlu: nothing was answered by both sides",
    )
    for side in sides:  # also where it is there and only an advisory check speaks of it
        write(side, records([1] * 400), task="aime")
    checks = "  - {metric: accuracy, on: lm_eval/gsm8k, max_loss: 2 points}\n"
    checks += "  - {metric: accuracy, on: lm_eval/aime, max_loss: 2 points, advisory: true}"
    verdict = judged(sides, checks, more="required: [lm_eval/aime]").verdict
    assert verdict.verdict == "INCONCLUSIVE" and "no check that blocks speaks of lm_eval/aime" in verdict.reason


def test_a_check_on_a_task_that_is_not_there_is_no_pass(both: Both) -> None:
    found = judged(both(records([1] * 400), records([1] * 400)), f"{LM}\n{LM.replace('*', 'mmlu')}")
    assert found.verdict.verdict == "INCONCLUSIVE"
    assert results(found)["lm_eval/mmlu"].reason == "no samples: nothing ran for this check"


def test_a_required_perplexity_is_no_pass(both: Both) -> None:
    """What cannot be judged is named; what must be judged and cannot be is not passed over."""
    sides = both(records([1] * 400), records([1] * 400))
    for side in sides:
        write(
            side,
            [record(i, None, metrics=["word_perplexity"], word_perplexity=[-9.0, 3]) for i in range(9)],
            task="wikitext",
        )
    found = judged(sides, LM)
    assert found.verdict.verdict == "PASS" and found.notes[0].startswith("wikitext is not judged: of word_perplexity")
    assert judged(sides, LM, more="required: [lm_eval/wikitext]").verdict.verdict == "INCONCLUSIVE"


def test_an_advisory_check_is_shown_and_does_not_block(both: Both) -> None:
    sides = both(records([1] * 400), records([1] * 400))
    for side, right in zip(sides, (400, 100), strict=True):
        write(side, records([1] * right + [0] * (400 - right)), task="aime")
    checks = "  - {metric: accuracy, on: lm_eval/gsm8k, max_loss: 2 points}\n"
    checks += "  - {metric: accuracy, on: lm_eval/aime, max_loss: 2 points, advisory: true}"
    found = judged(sides, checks)
    assert found.verdict.verdict == "PASS"
    assert (results(found)["lm_eval/aime (exact_match)"].verdict, len(found.verdict.checks)) == ("FAIL", 2)


def test_a_task_that_no_check_speaks_of_is_named(both: Both) -> None:
    sides = both(records([1] * 400), records([1] * 400))
    for side in sides:
        write(side, records([1] * 400), task="aime")
    found = judged(sides, LM.replace("*", "gsm8k"))
    assert found.notes == ("lm_eval/aime (exact_match) is in the results, and no check of the policy speaks of it",)


def test_a_tenth_to_0_095_is_a_relative_loss_of_five_percent(both: Both) -> None:
    """Half a point: inside every usual margin in points, outside of 2 % of what the reference can do."""
    n = 4000
    sides = both(
        records([1] * (n // 10) + [0] * (n - n // 10)), records([1] * (n * 95 // 1000) + [0] * (n - n * 95 // 1000))
    )
    check = "  - {metric: accuracy, on: lm_eval/gsm8k, max_loss: 1 point, max_relative_loss: 0.02, floor: 0.05}"
    found = judged(sides, check)
    points, relative = found.verdict.checks
    assert (points.margin_kind, points.verdict, points.estimate) == ("max_loss", "PASS", near(0.005))
    assert (relative.margin_kind, relative.verdict, relative.estimate) == (
        "max_relative_loss",
        "FAIL",
        near(0.05),
    )
    assert relative.name == "relative loss of accuracy on lm_eval/gsm8k (exact_match) at most 2.0 %"
    assert (relative.unit, found.verdict.verdict) == ("share", "FAIL")
    only = "  - {metric: accuracy, on: lm_eval/*, max_relative_loss: 0.08}"
    assert judged(sides, only).verdict.verdict == "PASS"


def passages(losses: list[int], size: int, field: str = "passage") -> tuple[list[Any], list[Any]]:
    """Passages of `size` questions each; `losses`: of how many of them the candidate loses the answer."""
    sides: tuple[list[Any], list[Any]] = ([], [])
    for p, lost in enumerate(losses):
        for q in range(size):
            doc = {"doc": {field: f"text {p}", "question": q}}
            for side, score in zip(sides, (1, int(q >= lost)), strict=True):
                side.append(record(f"{p}-{q}", score, **doc))
    return sides


def test_questions_on_one_passage_are_drawn_together(both: Both) -> None:
    """40 passages of 10 questions, two of them lost as a whole: for 400 independent items that is 20 losses."""
    rows = passages([10, 10] + [0] * 38, 10)
    found = judged(both(*rows), LM.replace("2 points", "8 points"))
    (check,) = found.verdict.checks
    assert (check.n, check.estimate) == (400, near(0.05)) and "40 groups of items" in check.method
    assert check.verdict == "INCONCLUSIVE" and (check.upper or 0) > 0.1
    assert found.notes == ("gsm8k: its items share 40 passages and are drawn with them: wider bounds",)
    alone = judged(both(*rows), LM.replace("2 points", "8 points"), "{tasks: {gsm8k: {cluster: ''}}}").verdict
    assert (alone.verdict, alone.checks[0].method) == ("PASS", "exact paired interval")
    other = passages([10, 10] + [0] * 38, 10, "source")
    assert judged(both(*other), LM).verdict.checks[0].method == "exact paired interval"
    named = judged(both(*other), LM, "{tasks: {'*': {cluster: source}}}").verdict.checks[0]
    assert "40 groups" in named.method and named.upper == check.upper
    with pytest.raises(BadInput, match="its doc has no 'passage'; it has 'source', 'question'"):
        judged(both(*other), LM, "{tasks: {gsm8k: {cluster: passage}}}")


def test_groups_have_margins_and_can_be_taken_apart(both: Both) -> None:
    sides = both([], [])
    for side in sides:
        (side / "org__model").mkdir(exist_ok=True)
        for path in (side / "org__model").iterdir():
            path.unlink()
        for task in ("mmlu_law", "mmlu_anatomy", "hellaswag"):
            write(side, records([1] * 400), task=task)
    found = judged(sides, "  - {metric: accuracy, on: lm_eval/mmlu, max_loss: 1 point}\n" + LM)
    assert {on: check.margin for on, check in results(found).items()} == {
        "mmlu": 0.01,
        "lm_eval/hellaswag (exact_match)": 0.02,
    }
    assert (found.sealed.policy.checks[0].guard_tasks, found.verdict.verdict) == (True, "PASS")
    found = judged(
        sides, "  - {metric: accuracy, on: lm_eval/mmlu_*, max_loss: 1 point}", more="required: [lm_eval/mmlu]"
    )
    assert sorted(results(found)) == ["mmlu/mmlu_anatomy (exact_match)", "mmlu/mmlu_law (exact_match)"]
    assert found.verdict.verdict == "PASS"
    found = judged(sides, LM, "{per_task: true}")
    assert len(results(found)) == 3 and found.results.pooled == {}
    found = judged(sides, LM.replace("*", "mmlu"), "{per_task: true}", "required: [lm_eval/mmlu]")
    assert sorted(results(found)) == ["lm_eval/mmlu_anatomy (exact_match)", "lm_eval/mmlu_law (exact_match)"]
    assert found.verdict.verdict == "PASS"
    with pytest.raises(
        BadInput, match=r"a check on lm_eval pools all tasks, of which mmlu are groups: write lm_eval/\*"
    ):
        judged(sides, LM.replace("lm_eval/*", "lm_eval"))


def test_a_policy_is_for_other_results_too(tmp_path: Path) -> None:
    text = "name: agents\nsuites: {swebench: {}}\nchecks:\n  - {metric: resolved, on: swebench/*, max_loss: 3 points}\n"
    sides = report(tmp_path / "r.json", resolved=ids(0, 500)), report(tmp_path / "c.json", resolved=ids(0, 500))
    found = compare(*sides, parse_policy(text))
    assert (found.verdict.verdict, found.verdict.checks[0].metric) == ("PASS", "resolved")
    with pytest.raises(BadInput, match="--per-task takes groups of lm-eval apart; a swebench report has none"):
        compare(*sides, parse_policy(text), per_task=True)


def test_a_metric_that_only_one_side_has_is_named(both: Both) -> None:
    rows = records([1] * 400, metrics=["acc", "acc_norm"], acc=1, acc_norm=1, exact_match=None)
    found = judged(both(rows, [row | {"metrics": ["acc"]} for row in rows]), LM)
    assert found.verdict.checks[0].on == "lm_eval/gsm8k (acc)"
    assert found.notes == ("gsm8k: only one side has acc_norm: not judged by it",)


def test_published_numbers_that_do_not_fit_the_records_are_a_warning(both: Both) -> None:
    sides = both(records([1] * 390 + [0] * 10), records([1] * 390 + [0] * 10))
    for side, mean in zip(sides, (0.975, 0.985), strict=True):
        published(side, mean, 400)
    found = judged(sides, LM)
    assert found.verdict.verdict == "PASS"
    (note,) = found.notes
    assert json.dumps(str(sides[1]))[1:-1] in note and "says 0.985, the 400 records" in note


def test_documents_that_were_deleted_on_both_sides_are_gaps(both: Both) -> None:
    """Of 1,000 documents the candidate loses 27; ten of them are deleted from both folders."""
    three = "  - {metric: accuracy, on: lm_eval/*, max_loss: 3 points}"
    sides = both(records([1] * 990), records([1] * 973 + [0] * 17))
    assert judged(sides, three).verdict.verdict == "PASS"
    published(sides[0], 1.0, 1000)
    published(sides[1], 0.973, 1000)
    found = judged(sides, three)
    (check,) = found.verdict.checks
    assert (found.verdict.verdict, check.missing) == ("INCONCLUSIVE", 10)
    assert "with 10 pairs that cannot be used at their worst" in check.reason
    assert any("says 1,000 documents" in note for note in found.notes)


def test_a_call_that_asked_some_documents_by_number_lacks_none(both: Both) -> None:
    """lm-eval's --samples asks a few, and counts all; its mean is that of what it asked."""
    sides = both(records([1] * 400), records([1] * 400))
    for side in sides:
        published(side, 1.0, 1319)
    assert judged(sides, LM).verdict.verdict == "PASS"


def published(side: Path, mean: float, count: int) -> None:
    counts: dict[str, Any] = {"n-samples": {"gsm8k": {"effective": count}}}
    summary(side, results={"gsm8k": {"exact_match,none": mean}}, **counts)
