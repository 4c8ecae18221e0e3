"""`quantgate power` on the example run, and on what it does not know."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from offline_cases import POLICY

from harness.contract.errors import BadInput
from harness.contract.policy import Policy, load_policy, parse_policy
from harness.offline.item_counts import count_items, without_limits
from harness.offline.power import policy_power
from harness.offline.power_statements import Earlier, blocking, limited, read_earlier, statements_of, to_count
from harness.offline.power_words import power_words, to_json

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = DOCS / "example-report"
CI_RUN = DOCS.parent / "benchmarks/results/ci_h200_baseline_run.json"


def one_by_one() -> tuple[Policy, Earlier]:
    """The example, had it judged the tasks of cot one by one."""
    policy = parse_policy((EXAMPLE / "policy.yaml").read_text("utf-8").replace("on: cot,", "on: cot/*,")).policy
    earlier = read_earlier(EXAMPLE)
    checks = [c for c in earlier.checks if c.on != "cot"]
    for check in (c for c in earlier.checks if c.on == "cot"):
        for task in check.tasks:
            assert task.b is not None and task.c is not None
            own = {"on": f"cot/{task.task}", "n": task.n, "planned": task.n, "discordant": task.b + task.c}
            checks.append(check.model_copy(update=own | {"reference_value": task.reference_value, "tasks": []}))
    return policy, replace(earlier, checks=checks)


def test_the_example_names_what_keeps_it_from_deciding() -> None:
    policy = load_policy(EXAMPLE / "policy.yaml").policy
    power = policy_power(policy, read_earlier(EXAMPLE))
    by_name = {c.planned.name: c for c in power.found}
    cot = by_name["accuracy on cot"].planned
    assert cot.items == 1819 and cot.variance == pytest.approx(405 / 1819)
    assert "bytes_ratio on footprint" not in by_name  # nothing is uncertain there
    needle = by_name["accuracy on needle"]
    assert (needle.planned.items, needle.needed) == (80, 59) and needle.passes > 0.99
    assert 0.1 < power.run_pass < 0.5
    assert any("accuracy on cot (85%: needs 3,325 items instead of 1,819" in line for line in power_words(power))
    # A damaged candidate at needle loses 8 of 80, and 8 of 80 are seldom a FAIL among 10 checks.
    assert needle.fails < 0.15
    truncated = by_name["truncated_rate on cot"].planned
    assert truncated.ceiling == 0.1 and truncated.rate is not None and 0 < truncated.rate < 0.1
    assert json.loads(to_json(power))["checks"][0]["cost"]["tokens"] > 1e5


def test_the_cost_of_a_check_is_that_of_its_tasks() -> None:
    policy, earlier = one_by_one()
    power = policy_power(policy, earlier)
    costs = {c.planned.name: cost for c, cost in zip(power.found, power.costs, strict=True)}
    gsm8k, math500 = (costs[f"accuracy on cot/{task}"] for task in ("gsm8k", "math500"))
    assert gsm8k.tokens == pytest.approx(830_470) and not gsm8k.at_most  # the sum over its samples
    assert gsm8k.hours is not None and math500.hours is not None and power.hours is not None
    assert gsm8k.hours + math500.hours == pytest.approx(earlier.seconds["cot"] / 3600)
    tv = costs["tv_mean on divergence"]  # the run does not say how long its trajectories are
    assert tv.at_most and tv.tokens == 2 * 256 * 512
    whole = policy_power(load_policy(EXAMPLE / "policy.yaml").policy, read_earlier(EXAMPLE))
    (pooled,) = (cost for c, cost in zip(whole.found, whole.costs, strict=True) if c.planned.name == "accuracy on cot")
    assert pooled.hours == pytest.approx(gsm8k.hours + math500.hours)


def test_more_hours_ask_no_more_items_than_there_are() -> None:
    policy = load_policy(EXAMPLE / "policy.yaml").policy
    power = policy_power(policy, read_earlier(EXAMPLE), gpu_hours=0.5)
    items = {c.planned.name: c.planned.items for c in power.found}
    assert power.factor > 5 and items["accuracy on cot"] == 1819  # the data sets have no more
    assert items["accuracy on ruler"] == int(312 * power.factor)  # RULER makes as many as one asks for
    assert items["tv_mean on divergence"] == 512  # so many prompts ship
    assert power.hours is not None and power.hours < 0.5
    assert any(line.startswith("no more items than these: cot, divergence") for line in power_words(power))
    fewer = parse_policy(POLICY.replace("limit: 6", "limit: 2")).policy
    assert limited(fewer) == ["cot"] and limited(policy) == []
    whole, _ = count_items(without_limits(fewer, "cot"), ["cot"])
    part, _ = count_items(fewer, ["cot"])
    assert part == {"cot/word_problems": 2} and whole["cot/word_problems"] > 20
    (cot,) = policy_power(fewer, None, counted=part, sizes=whole).found
    assert (cot.planned.items, cot.planned.most) == (2, whole["cot/word_problems"])


def test_a_pooled_check_takes_the_sum_of_what_an_earlier_run_judged_one_by_one() -> None:
    release, earlier = load_policy("release").policy, one_by_one()[1]
    planned = [s for check in blocking(release) for s in statements_of(release, check, earlier, None, None, None)]
    (pooled,) = [s for s in planned if s.name == "accuracy on cot"]
    assert pooled.items == 1819 and pooled.variance == pytest.approx((296 + 109) / 1819)


def test_a_kept_run_in_one_file_is_read_and_sequential_checks_cost_more() -> None:
    power = policy_power(load_policy("ci").policy, read_earlier(CI_RUN))
    accuracy = next(c for c in power.found if c.planned.name == "accuracy on cot/gsm8k")
    assert accuracy.planned.sequential and accuracy.planned.items == 1319


def test_without_a_run_items_are_counted_and_what_is_missing_is_said() -> None:
    ci = load_policy("ci").policy
    assert to_count(ci, None) == ["cot", "ruler", "divergence"] and to_count(ci, read_earlier(CI_RUN)) == ["divergence"]
    counted = {"cot/gsm8k": 1319, "ruler/vt@4096": 50, "ruler/vt@8192": 50}
    power = policy_power(ci, None, discordance=0.05, counted=counted)
    by_name = {c.planned.name: c for c in power.found}
    assert by_name["accuracy on cot/gsm8k"].planned.items == 1319 and by_name["accuracy on ruler"].planned.items == 100
    assert by_name["accuracy on ruler"].passes > 0.5 and power.costs[0].tokens == 2 * 1319 * 4096
    said = " ".join(power_words(power))
    assert "tv_mean on divergence (items not known: give --from RUN)" in said
    # What nobody knows is no chance of zero.
    assert len(power.unknown) == 2 and f"PASS if equal at most {power.run_pass:.0%}, FAIL" in said
    assert json.loads(to_json(power))["checks"][-1]["passes"] is None
    assert "ceilings are left out: no run says how often the reference does it" in said
    with pytest.raises(BadInput, match="--gpu-hours needs --from RUN"):
        policy_power(ci, None, gpu_hours=1.0)


@pytest.mark.long
def test_items_are_counted_without_a_model_and_data_that_are_missing_are_one_line() -> None:
    small = parse_policy(POLICY).policy
    assert count_items(small, ["cot", "ruler", "divergence"])[0] == {
        "cot/word_problems": 6,
        "ruler/niah_single_1@2048": 3,
        "ruler/vt@2048": 3,
    } | dict.fromkeys(count_items(small, ["divergence"])[0], 1)
    unknown = parse_policy(POLICY.replace("word_problems", "no_such_task")).policy
    found, (remark,) = count_items(unknown, ["cot"])
    assert found == {} and remark.startswith("items of cot are not known: ") and "no_such_task" in remark


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no verdict\.json"):
        read_earlier(tmp_path)
