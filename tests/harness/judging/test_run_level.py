"""The run: its FAIL stands after Holm, its PASS takes every blocking check, whatever their number."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from verdict_cases import ACCURACY, run
from verdict_samples import counts, items, pairs, plan, policy

from harness.contract.errors import BadInput
from harness.contract.policy import parse_policy
from harness.contract.samples import Sample
from harness.judging.early_stop import EarlyStop
from harness.judging.results import CheckResult
from harness.judging.run_level import blocking_statements, run_outcome, with_holm
from harness.judging.sequential import sequence_p_value


def result(p: float | None = None, *, advisory: bool = False, undecided: bool = False) -> CheckResult:
    """A check that fails with this p value, or passes without one."""
    verdict = "INCONCLUSIVE" if undecided else "PASS" if p is None or p > 0.05 else "FAIL"
    return CheckResult(
        name="loss of accuracy on x at most 1.0 points",
        metric="accuracy",
        on="x",
        verdict=verdict,
        reason="said so",
        margin=0.01,
        margin_kind="max_loss",
        unit="points",
        confidence=0.95,
        p_fail=p if verdict == "FAIL" else None,
        advisory=advisory,
    )


def outcome(*results: CheckResult) -> str:
    return run_outcome(with_holm(results, 0.05))[0]


# -- from checks to the run ----------------------------------------------------------------------------------


def test_a_failure_that_the_number_of_checks_explains_makes_the_run_inconclusive() -> None:
    weak, fine = result(0.03), result()
    assert outcome(weak) == "FAIL"
    named = with_holm([weak, fine], 0.05)
    verdict, reason = run_outcome(named)
    assert (verdict, named[0].after_holm) == ("INCONCLUSIVE", False)
    assert "fails by itself, which may be chance among 2 checks (p 0.03; Holm's correction): INCONCLUSIVE" in reason
    assert outcome(result(0.024), fine) == "FAIL"
    # Holm goes on: once the first is rejected, the second is tested among those that are left.
    assert [r.after_holm for r in with_holm([result(0.01), result(0.03), fine], 0.05)] == [True, False, None]
    assert [r.after_holm for r in with_holm([result(0.01), result(0.02), fine], 0.05)] == [True, True, None]


def test_a_failed_run_names_what_does_not_stand_as_well_and_nothing_undecided() -> None:
    named = with_holm([result(0.001), result(0.04), result(undecided=True)], 0.05)
    verdict, reason = run_outcome(named)
    assert verdict == "FAIL" and reason.count("said so") == 2 and "fails by itself" in reason


@given(st.lists(st.one_of(st.none(), st.sampled_from([1e-4, 0.004, 0.01, 0.02, 0.049])), min_size=1, max_size=8))
def test_a_run_passes_when_all_checks_do_and_fails_when_one_p_value_survives(p_values: list[float | None]) -> None:
    found = outcome(*(result(p) for p in p_values))
    least = min((p for p in p_values if p is not None), default=None)
    expected = "PASS" if least is None else "FAIL" if least <= 0.05 / len(p_values) else "INCONCLUSIVE"
    assert found == expected  # Holm rejects anything at all exactly when Bonferroni does


def test_advisory_checks_have_no_say_and_no_part_in_the_correction() -> None:
    shown = result(1e-6, advisory=True)
    assert outcome(result(), shown) == "PASS"
    assert outcome(result(0.03), *[shown] * 9) == "FAIL"
    assert with_holm([shown], 0.05)[0].after_holm is None


def test_doubts_keep_a_run_from_passing_and_not_from_failing() -> None:
    assert run_outcome([result()], ["the server was not asked again"]) == (
        "INCONCLUSIVE",
        "the server was not asked again",
    )
    assert run_outcome(with_holm([result(0.01)], 0.05), ["odd"])[0] == "FAIL"


def test_a_policy_in_which_nothing_blocks_is_refused() -> None:
    text = "name: x\nsuites: {cot: {}}\nchecks: [{metric: accuracy, on: cot, max_loss: 0.01, advisory: true}]\n"
    with pytest.raises(BadInput, match="every check is advisory"):
        parse_policy(text)
    assert parse_policy(text.replace("advisory: true", "advisory: false"))


# -- many equal tasks ----------------------------------------------------------------------------------------


def test_an_advisory_check_is_judged_and_shown() -> None:
    bad = pairs(counts(both=200, lost=200), "cot/side")
    verdict = run(pairs(counts(both=400)) + bad, ACCURACY | {"on": "cot/gsm8k"}, ACCURACY | {"on": "cot/side"})
    assert verdict.verdict == "FAIL"
    checks = ACCURACY | {"on": "cot/gsm8k"}, ACCURACY | {"on": "cot/side", "advisory": True}
    verdict = run(pairs(counts(both=400)) + bad, *checks)
    assert (verdict.verdict, verdict.checks[1].verdict) == ("PASS", "FAIL") and verdict.checks[1].advisory
    assert verdict.reason == "all 1 checks hold"


def test_equal_models_on_57_tasks_never_fail_the_run_although_single_tasks_do() -> None:
    """At the margin in every task: the worst that "all checks hold" allows."""
    rng, failed, alone, runs = np.random.default_rng(3), 0, 0, 40
    for _ in range(runs):
        lost, won = rng.binomial(150, 0.06, 57), rng.binomial(150, 0.05, 57)
        results = []
        for b, c in zip(lost, won, strict=True):
            p = float(stats.binom.sf(b - 1, 150, 0.06)) if c else 1.0  # any valid p value of "b is at most 6 %"
            results.append(result(p))
        found = with_holm(results, 0.05)
        failed += run_outcome(found)[0] == "FAIL"
        alone += any(r.verdict == "FAIL" for r in found)
    assert failed <= 6 and alone >= 30  # uncorrected, nearly every run would fail


# -- sequential checks ---------------------------------------------------------------------------------------


def test_a_sequential_check_stops_for_fail_only_where_it_stands_among_all_checks() -> None:
    sequential: dict[str, Any] = {"metric": "accuracy", "on": "cot/a", "max_loss": 0.02, "stop": "sequential"}
    others: list[dict[str, Any]] = [{"metric": "truncated_rate", "on": "cot/b", "max_increase": 0.05}] * 19
    samples = pairs(counts(both=100, lost=100), "cot/a") + pairs(counts(both=200), "cot/b")
    alone = run([s for s in samples if s.task == "a"], sequential)
    among = run(samples, sequential, *others)
    assert alone.checks[0].verdict == among.checks[0].verdict == "FAIL"
    assert alone.checks[0].n < among.checks[0].n
    assert alone.checks[0].p_fail is not None and 0.05 / 20 < alone.checks[0].p_fail <= 0.05
    assert among.checks[0].p_fail is not None and among.checks[0].p_fail <= 0.05 / 20
    assert among.checks[0].after_holm is True and among.verdict == "FAIL"


def test_the_driver_stops_by_the_checks_of_all_suites() -> None:
    sequential: dict[str, Any] = {"metric": "accuracy", "on": "cot/gsm8k", "max_loss": 0.02, "stop": "sequential"}
    asked_by = policy(sequential, *[{"metric": "accuracy", "on": "ruler/*", "max_loss": 0.05}] * 5)
    samples = pairs(counts(lost=60))
    ruler = [f"ruler/{name}" for name in "abcd"]

    def needed(run_tasks: list[str]) -> int:
        stop = EarlyStop(asked_by, plan(samples), "seal", run_tasks)
        for sample in samples:
            stop.record(sample)
        return int(stop.decided()[0].split(" after ")[1].split()[0])

    few, many = needed(["cot/gsm8k"]), needed(["cot/gsm8k", *ruler])
    assert few < many
    ruler_plan = {key: sha for name in ruler for key, sha in items(3, name).items()}
    checks = [c.model_dump(exclude_none=True) for c in asked_by.checks]
    verdict = run(samples, *checks, planned=plan(samples) | ruler_plan)
    assert verdict.checks[0].n == many


def test_statements_are_counted_as_the_verdict_counts_them() -> None:
    checks = [{"metric": "accuracy", "on": on, "max_loss": 0.1} for on in ("cot/*", "cot", "ruler", "swebench/*")]
    asked_by = policy(*checks, {"metric": "truncated_rate", "on": "cot/*", "max_increase": 0.1, "advisory": True})
    tasks = ["cot/a", "cot/b", "cot/c", "ruler/x"]
    assert blocking_statements(asked_by, tasks) == 3 + 1 + 1 + 1  # nothing ran for swebench: still one result
    planned = {key: sha for name in tasks for key, sha in items(2, name).items()}
    results = run([], *(c.model_dump(exclude_none=True) for c in asked_by.checks), planned=planned).checks
    assert sum(not r.advisory for r in results) == 6


def test_the_p_value_of_a_sequence_is_one_over_the_largest_fortune() -> None:
    assert sequence_p_value([], 0.1) == 1.0
    losses, bets = [1.0, 0.0, 1.0, 1.0, -1.0, 0.0], np.geomspace(0.015, 1.0, 8)
    fortunes = [np.mean([np.prod([1 + bet * (x - 0.1) / 1.1 for x in losses[:n]]) for bet in bets]) for n in range(7)]
    assert sequence_p_value(losses, 0.1) == pytest.approx(1 / max(fortunes))


# -- groups: pooled, with their tasks under them -------------------------------------------------------------

POOLED = ACCURACY | {"on": "cot", "max_loss": 0.02}


def group(**tasks: list[tuple[float, float]]) -> list[Sample]:
    return [sample for task, scores in tasks.items() for sample in pairs(scores, f"cot/{task}")]


def test_a_pooled_check_shows_its_tasks() -> None:
    samples = group(a=counts(both=190, lost=6, won=4), b=counts(both=100), c=counts(both=60, lost=30, won=10))
    (check,) = run(samples, POOLED).checks
    assert [(t.task, t.n, t.b, t.c) for t in check.tasks] == [("a", 200, 6, 4), ("b", 100, 0, 0), ("c", 100, 30, 10)]
    for task in check.tasks:
        alone = run([s for s in samples if s.task == task.task], POOLED | {"on": f"cot/{task.task}"}).checks[0]
        assert (task.verdict, task.estimate, task.lower, task.upper) == (
            alone.verdict,
            alone.estimate,
            alone.lower,
            alone.upper,
        )
    assert [t.after_holm for t in check.tasks] == [False, False, True]
    assert run(group(a=counts(both=9)), POOLED).checks[0].tasks == []  # one task is the check itself


def test_a_guarded_group_does_not_pass_over_a_broken_task() -> None:
    samples = group(a=counts(both=4000, won=40), b=counts(both=60, lost=40))
    free, guarded = run(samples, POOLED), run(samples, POOLED | {"guard_tasks": True})
    assert (free.verdict, guarded.verdict) == ("PASS", "INCONCLUSIVE")
    assert "but by itself b breaks it, by more than chance among 2 tasks explains" in guarded.reason
    even = group(a=counts(both=4000, lost=9, won=9), b=counts(both=98, lost=1, won=1))
    assert run(even, POOLED | {"guard_tasks": True}).verdict == "PASS"


def test_identical_answers_on_57_small_tasks_pass_together() -> None:
    sizes = [100 + 40 * (i % 4) for i in range(57)]
    samples = group(**{f"t{i:02}": counts(both=n) for i, n in enumerate(sizes)})
    verdict = run(samples, ACCURACY | {"on": "cot", "guard_tasks": True})
    assert verdict.verdict == "PASS" and verdict.checks[0].n == sum(sizes)
    assert run(samples, ACCURACY | {"on": "cot/*"}).verdict == "INCONCLUSIVE"  # each alone is too small


def test_a_macro_mean_counts_tasks_alike() -> None:
    samples = group(a=counts(both=900), b=counts(both=50, lost=50))
    micro, macro = (run(samples, POOLED | {"mean": mean}).checks[0] for mean in ("items", "tasks"))
    assert micro.estimate == pytest.approx(50 / 1000) and macro.estimate == pytest.approx(0.25)
    assert macro.lower is not None and macro.upper is not None and macro.lower < 0.25 < macro.upper
    assert macro.verdict == "FAIL" and "weighted alike" in macro.method
    equal = group(a=counts(both=900, lost=5, won=5), b=counts(both=880, lost=10, won=10))
    assert run(equal, POOLED | {"mean": "tasks"}).verdict == "PASS"
    with pytest.raises(ValueError, match="mean: tasks is for a check on a whole suite"):
        policy(POOLED | {"on": "cot/a", "mean": "tasks"})
