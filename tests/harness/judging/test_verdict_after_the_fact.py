"""Judged after the fact: a verdict by another policy says so, and names every margin that is weaker."""

from typing import Any

import pytest
from verdict_cases import ACCURACY, GOOD, KL
from verdict_samples import counts, pairs, plan, policy

from harness.contract.policy import NoiseFloor, Policy, SealedPolicy
from harness.contract.weakened import weakened
from harness.judging.verdict import judge


def sealed(found: Policy, sha256: str = "sealed") -> SealedPolicy:
    return SealedPolicy(policy=found, text="", sha256=sha256)


def test_a_verdict_by_another_policy_is_after_the_fact() -> None:
    strict, loose = policy(ACCURACY), policy(ACCURACY | {"max_loss": 0.5})
    plain = judge(strict, GOOD, plan(GOOD), "a")
    assert (plain.after_the_fact, plain.policy_sha256, plain.sealed_policy_sha256) == (False, "a", "a")
    assert not judge(strict, GOOD, plan(GOOD), "a", sealed(strict, "a")).after_the_fact
    later = judge(loose, GOOD, plan(GOOD), "b", sealed(strict, "a"))
    assert later.after_the_fact and (later.policy_sha256, later.sealed_policy_sha256) == ("b", "a")
    assert later.weakened == ["accuracy on cot/*: max_loss 0.01 -> 0.5"]
    assert judge(strict, GOOD, plan(GOOD), "a", sealed(loose, "b")).weakened == []


def test_the_items_of_a_run_keep_their_sealed_order_after_the_fact() -> None:
    check = ACCURACY | {"max_loss": 0.1, "stop": "sequential"}
    samples = pairs(counts(both=300, lost=10))
    before = judge(policy(check), samples, plan(samples), "a")
    after = judge(policy(check), samples, plan(samples), "b", sealed(policy(check), "a"))
    assert after.checks == before.checks
    others = [judge(policy(check), samples, plan(samples), str(seal)).checks for seal in range(8)]
    assert any(found != before.checks for found in others)


FULL: dict[str, Any] = {"metric": "accuracy", "on": "cot", "max_loss": 0.02, "floor": 0.3, "confidence": 0.99}
CUT: dict[str, Any] = {"metric": "truncated_rate", "on": "cot", "max_increase": 0.02, "ceiling": 0.1}
SPEED: dict[str, Any] = {"metric": "speed_ratio", "on": "speed", "min": 0.9}
STOPPED: dict[str, Any] = {"metric": "resolved", "on": "swe", "max_loss": 0.03, "stop": "sequential"}
ALL = (FULL, CUT, SPEED, STOPPED, KL)


@pytest.mark.parametrize(
    ("index", "change", "line"),
    [
        (0, {"max_loss": 0.03}, "accuracy on cot: max_loss 0.02 -> 0.03"),
        (0, {"floor": 0.2}, "accuracy on cot: floor 0.3 -> 0.2"),
        (0, {"floor": None}, "accuracy on cot: floor 0.3 -> none"),
        (0, {"confidence": 0.98}, "accuracy on cot: confidence 0.99 -> 0.98"),
        (0, {"confidence": None}, "accuracy on cot: confidence 0.99 -> 0.95"),
        (0, {"on": "cot/*"}, "accuracy on cot: no longer checked with max_loss"),
        (1, {"max_increase": 0.021}, "truncated_rate on cot: max_increase 0.02 -> 0.021"),
        (1, {"ceiling": 0.2}, "truncated_rate on cot: ceiling 0.1 -> 0.2"),
        (1, {"ceiling": None}, "truncated_rate on cot: ceiling 0.1 -> none"),
        (1, {"confidence": 0.9}, "truncated_rate on cot: confidence 0.95 -> 0.9"),
        (2, {"min": 0.8}, "speed_ratio on speed: min 0.9 -> 0.8"),
        (3, {"stop": None}, "resolved on swe: stop sequential -> none"),
        (4, {"max": 0.06}, "kl_mean on divergence: max 0.05 -> 0.06"),
        (4, {"max": None, "max_over_noise": 0.05}, "kl_mean on divergence: no longer checked with max"),
    ],
)
def test_every_weaker_margin_is_named(index: int, change: dict[str, Any], line: str) -> None:
    changed_checks = [check | change if i == index else check for i, check in enumerate(ALL)]
    fields = {"noise_floor": NoiseFloor(items=8)}
    assert weakened(policy(*ALL, **fields), policy(*changed_checks, **fields)) == [line]


def test_weaker_limits_of_the_whole_policy_and_lost_checks_are_named() -> None:
    before = policy(*ALL)
    assert weakened(before, policy(*ALL, max_unusable=0.02)) == ["max_unusable 0.01 -> 0.02"]
    lines = [f"{c['metric']} on {c['on']}: confidence 0.95 -> 0.9" for c in ALL[1:]]
    assert weakened(before, policy(*ALL, confidence=0.9)) == lines
    assert weakened(before, policy(*ALL[1:])) == ["accuracy on cot: no longer checked with max_loss"]
    assert weakened(policy(CUT), policy(CUT | {"stop": "sequential"})) == [
        "truncated_rate on cot: stop none -> sequential"
    ]
    assert (
        len(weakened(before, policy(FULL | {"max_loss": 0.5, "floor": 0.0, "confidence": 0.6}, max_unusable=0.5))) == 8
    )


def test_a_stricter_policy_weakens_nothing() -> None:
    stricter = (
        FULL | {"max_loss": 0.01, "floor": 0.5, "confidence": 0.999},
        CUT | {"max_increase": 0.0, "ceiling": 0.05, "confidence": 0.96},
        SPEED | {"min": 1.0},
        STOPPED | {"max_loss": 0.02},
        KL | {"max": 0.01},
        ACCURACY,
    )
    assert weakened(policy(*ALL), policy(*stricter, max_unusable=0.0, confidence=0.96)) == []
    assert weakened(policy(*ALL), policy(*reversed(ALL))) == []


def test_a_policy_is_not_weaker_than_itself() -> None:
    # Two margins for one target: a tight one at low confidence, a wide one that must hold almost surely.
    twice = policy(ACCURACY, ACCURACY | {"max_loss": 0.05, "confidence": 0.999})
    assert weakened(twice, twice) == []
    dropped = weakened(twice, policy(ACCURACY))
    assert len(dropped) == 1
