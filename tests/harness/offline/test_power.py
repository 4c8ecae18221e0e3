"""`quantgate power` on the example run, and on what it does not know."""

import json
from pathlib import Path

import pytest

from harness.contract.errors import BadInput
from harness.contract.policy import load_policy
from harness.offline.power import policy_power, power_words, read_earlier, to_json

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = DOCS / "example-report"
CI_RUN = DOCS.parent / "benchmarks/results/ci_h200_baseline_run.json"


def test_the_example_names_what_keeps_it_from_deciding() -> None:
    policy = load_policy(EXAMPLE / "policy.yaml").policy
    power = policy_power(policy, read_earlier(EXAMPLE))
    by_name = {c.planned.name: c for c in power.found}
    gsm8k = by_name["accuracy on cot/gsm8k"].planned
    assert gsm8k.items == 1319 and gsm8k.variance == pytest.approx(285 / 1319)
    assert "bytes_ratio on footprint" not in by_name  # nothing is uncertain there
    assert power.run_pass < 0.01 and by_name["accuracy on needle"].needed == 59
    assert any("accuracy on needle (0%: needs 59 items instead of 40" in line for line in power_words(power))
    assert power.hours is not None and power.tokens["cot"] > 1e5
    more = policy_power(policy, read_earlier(EXAMPLE), gpu_hours=0.5)
    assert more.factor > 5 and more.run_pass > power.run_pass
    assert json.loads(to_json(more))["hours"] == 0.5


def test_a_pooled_check_takes_the_sum_of_what_an_earlier_run_judged_one_by_one() -> None:
    release = load_policy("release").policy
    (pooled,) = [
        c.planned for c in policy_power(release, read_earlier(EXAMPLE)).found if c.planned.name == "accuracy on cot"
    ]
    assert pooled.items == 1819 and pooled.variance == pytest.approx((285 + 104) / 1819)


def test_a_kept_run_in_one_file_is_read_and_sequential_checks_cost_more() -> None:
    power = policy_power(load_policy("ci").policy, read_earlier(CI_RUN))
    accuracy = next(c for c in power.found if c.planned.name == "accuracy on cot/gsm8k")
    assert accuracy.planned.sequential and accuracy.planned.items == 1319


def test_without_a_run_it_says_what_is_missing() -> None:
    power = policy_power(load_policy("ci").policy, None, discordance=0.05)
    assert power.run_pass == 0.0 and "items not known: give --from RUN" in " ".join(power_words(power))
    assert power.found[0].planned.variance == 0.05 and power.found[0].needed is not None
    with pytest.raises(BadInput, match="--gpu-hours needs --from RUN"):
        policy_power(load_policy("ci").policy, None, gpu_hours=1.0)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no verdict\.json"):
        read_earlier(tmp_path)
