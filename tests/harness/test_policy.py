"""A policy is read exactly as written, sealed by its bytes, and every mistake in it is named."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from harness.policy import load_policy, parse_policy, shipped_policies
from suites.registry import make_suites

GOOD = """\
name: test
suites: {cot: {tasks: {word_problems: {limit: 4}}}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""


def with_check(check: str) -> str:
    return GOOD.rsplit("  - ", 1)[0] + f"  - {check}\n"


def refusal(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        parse_policy(text)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 3
    return message


def test_on_is_a_key_and_not_true() -> None:
    check = parse_policy(GOOD).policy.checks[0]
    assert check.on == "cot/*"
    assert parse_policy(with_check("{metric: accuracy, on: on, max_loss: 0}")).policy.checks[0].on == "on"


def test_what_is_not_written_is_set_all_the_same() -> None:
    policy = parse_policy(GOOD).policy
    assert (policy.confidence, policy.max_unusable, policy.allow_different) == (0.95, 0.01, ("model", "quantization"))
    assert (policy.sampling.temperature, policy.sampling.top_p, policy.sampling.seed) == (0.0, 1.0, 0)


def test_a_policy_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_policy(GOOD).policy.confidence = 0.6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        (GOOD + "confidense: 0.9\n", "'confidense'", "'confidence'"),
        (GOOD + "servings: {dtype: auto}\n", "'servings'", "'serving'"),
        (GOOD.replace("suites:", "suits:"), "'suits'", "'suites'"),
        (GOOD + "serving: {max_model_length: 4096}\n", "'serving.max_model_length'", "'max_model_len'"),
        (GOOD + "sampling: {temprature: 1}\n", "'sampling.temprature'", "'temperature'"),
        (GOOD + "requests: {concurency: 1}\n", "'requests.concurency'", "'concurrency'"),
        (with_check("{metric: accuracy, on: cot, max_los: 0.1}"), "'checks.0.max_los'", "'max_loss'"),
        (with_check("{metrc: accuracy, on: cot, max_loss: 0.1}"), "'checks.0.metrc'", "'metric'"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(text: str, unknown: str, nearest: str) -> None:
    message = refusal(text)
    assert f"unknown key {unknown}" in message and f"did you mean {nearest}?" in message


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    message = refusal(GOOD + "requests: {zzz: 1}\n")
    assert "unknown key 'requests.zzz'; known: concurrency, min_tokens_per_second, retries" in message


def test_an_unknown_key_of_a_suite_or_its_task_names_the_nearest_known_one(tmp_path: Path) -> None:
    for config, unknown, nearest in (
        ("{task: {word_problems: {}}}", "'task'", "'tasks'"),
        ("{tasks: {word_problems: {limt: 4}}}", "'tasks.word_problems.limt'", "'limit'"),
    ):
        policy = parse_policy(GOOD.replace("{tasks: {word_problems: {limit: 4}}}", config)).policy
        with pytest.raises(BadInput, match=f"suites.cot: unknown key {unknown}; did you mean {nearest}"):
            make_suites(policy, tmp_path)


@pytest.mark.parametrize(
    "margins",
    [
        "",
        ", max_loss: 0.1, max_increase: 0.1",
        ", max_loss: 0.1, max: 0.1",
        ", max_loss: 0.1, max_increase: 0.1, max: 0.1",
        ", max: 0.1",
        ", max_loss: 1.5",
        ", max_loss: -0.1",
        ", max_loss: .nan",
        ", max_loss: 0.1, confidence: 0.5",
        ", max_loss: 0.1, floor: 2",
    ],
)
def test_margins_that_make_no_sense_are_refused(margins: str) -> None:
    assert "checks.0" in refusal(with_check(f"{{metric: accuracy, on: cot{margins}}}"))


@pytest.mark.parametrize("metric", ["kl_mean", "flip_rate"])
def test_metrics_of_a_pair_have_no_loss(metric: str) -> None:
    assert "judged with max" in refusal(with_check(f"{{metric: {metric}, on: divergence, max_loss: 0.1}}"))
    for other in ("floor", "ceiling"):  # nothing would look at it
        check = f"{{metric: {metric}, on: divergence, max: 0.1, {other}: 0.1}}"
        assert f"{other} belongs to" in refusal(with_check(check))
    assert parse_policy(with_check(f"{{metric: {metric}, on: divergence, max: 0.1}}")).policy.checks[0].margin == 0.1


@pytest.mark.parametrize("check", ["accuracy, max_loss: 0", "truncated_rate, max_increase: 0.0"])
def test_a_margin_of_zero_is_a_margin(check: str) -> None:
    assert parse_policy(with_check(f"{{on: cot, metric: {check}}}")).policy.checks[0].margin == 0


@pytest.mark.parametrize("check", ["accuracy, max_increase: 0.1", "truncated_rate, max_loss: 0.1"])
def test_a_margin_in_the_wrong_direction_would_pass_a_collapsed_model(check: str) -> None:
    assert "is judged with" in refusal(with_check(f"{{on: cot, metric: {check}}}"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "name: again\n", "duplicate key"),
        (with_check("{metric: accuracy, on: cot, max_loss: 0.5, max_loss: 0.01}"), "duplicate key"),
        ("name: [", "not YAML"),
        ("", "found NoneType"),
        ("- a\n- b\n", "found list"),
        ("just words", "found str"),
        ("name: x\x00", "not YAML"),
        (GOOD + "created: 2024-13-45\n", "not YAML"),
        (GOOD + "x: !!python/object/apply:os.system [true]\n", "not YAML"),
        (GOOD + "---\nname: second\n", "not YAML"),
        ("[" * 600, "not YAML"),
        (GOOD.replace("name: test\n", ""), "name: Field required"),
        (GOOD.split("checks:", maxsplit=1)[0] + "checks: []\n", "checks"),
        (GOOD + "suites2: 1\n", "unknown key 'suites2'"),
        (GOOD + "confidence: 95\n", "confidence"),
        (GOOD + "max_unusable: 1\n", "max_unusable"),
        (GOOD + "serving: {dtype: int3}\n", "serving.dtype"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(text: str, says: str) -> None:
    assert says in refusal(text)


def test_shipped_policies_load_and_their_suites_can_be_made(tmp_path: Path) -> None:
    assert "demo" in shipped_policies()
    for name in shipped_policies():
        sealed = load_policy(name)
        suites = make_suites(sealed.policy, tmp_path)
        asked = {suite.name for suite in suites}
        assert {check.on.split("/", 1)[0] for check in sealed.policy.checks} <= asked, f"{name} checks what nobody runs"


@pytest.mark.parametrize("change", [lambda t: t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "# ü 日本\n"])
def test_the_seal_is_the_sha256_of_the_very_bytes(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(change(GOOD).encode("utf-8"))
    sealed = load_policy(path)
    assert sealed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sealed.text.encode("utf-8") == path.read_bytes()


def test_a_comment_changes_the_seal_and_not_the_policy() -> None:
    plain, commented = parse_policy(GOOD), parse_policy(GOOD + "# checked by nobody\n")
    assert plain.policy == commented.policy and plain.sha256 != commented.sha256


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"name: \xff\xfe")])
def test_a_file_that_cannot_be_read_names_the_shipped_policies(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "p.yaml"
    make(path)
    with pytest.raises(BadInput, match=r"p\.yaml.*give a YAML file or one of: .*demo"):
        load_policy(path)
