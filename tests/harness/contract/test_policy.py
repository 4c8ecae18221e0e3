"""A policy is read exactly as written, sealed by its bytes, and every mistake in it is named."""

import hashlib
from pathlib import Path
from typing import Any, get_args

import pytest

from harness.contract.check import Check
from harness.contract.errors import BadInput
from harness.contract.metrics import METRICS, Difference, Margin
from harness.contract.policy import load_policy, parse_policy, shipped_policies
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
    assert (policy.noise_floor, policy.checks[0].stop, policy.checks[0].confidence) == (None, None, None)
    measured = parse_policy(GOOD + "noise_floor: {}\n").policy.noise_floor
    assert measured is not None and (measured.by, measured.items) == ("server", 32)


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
        (with_check("{metric: accuracy, on: cot, max_loss: 0.1, stopp: sequential}"), "'checks.0.stopp'", "'stop'"),
        (with_check("{metric: kl_mean, on: x, max_over_nois: 0.1}"), "'checks.0.max_over_nois'", "'max_over_noise'"),
        (GOOD + "noise_flor: {by: seed}\n", "'noise_flor'", "'noise_floor'"),
        (GOOD + "noise_floor: {item: 8}\n", "'noise_floor.item'", "'items'"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(text: str, unknown: str, nearest: str) -> None:
    message = refusal(text)
    assert f"unknown key {unknown}" in message and f"did you mean {nearest}?" in message


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    message = refusal(GOOD + "requests: {zzz: 1}\n")
    assert "unknown key 'requests.zzz'; known: concurrency, min_tokens_per_second, retries, thinking_tags" in message


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


@pytest.mark.parametrize(
    ("metric", "nearest"),
    [
        ("acuracy", "accuracy"),
        ("kl_men", "kl_mean"),
        ("truncated", "truncated_rate"),
        ("speedratio", "speed_ratio"),
        ("Resolved", "resolved"),
    ],
)
def test_an_unknown_metric_names_the_nearest_known_one(metric: str, nearest: str) -> None:
    message = refusal(with_check(f"{{metric: {metric}, on: cot, max_loss: 0.1}}"))
    assert f"unknown metric '{metric}'; did you mean '{nearest}'?" in message


def test_an_unknown_metric_like_no_other_lists_the_known_ones() -> None:
    message = refusal(with_check("{metric: zzz, on: cot, max_loss: 0.1}"))
    assert "unknown metric 'zzz'; known: " in message and all(metric in message for metric in METRICS)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("margin", get_args(Margin))
def test_every_margin_fits_its_metrics_and_no_other(metric: str, margin: str) -> None:
    text = with_check(f"{{metric: {metric}, on: x, {margin}: 0.25}}")
    if margin in METRICS[metric].margins:
        floor = "" if margin != "max_over_noise" else "noise_floor: {by: seed, items: 8}\n"
        check = parse_policy(text + floor).policy.checks[0]
        assert (check.margin_kind, check.margin) == (margin, 0.25)
    else:
        assert f"{metric} is judged with {' or '.join(METRICS[metric].margins)}, found {margin}" in refusal(text)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_floor_ceiling_and_stop_belong_to_the_metrics_that_look_at_them(metric: str) -> None:
    found = METRICS[metric]
    start = f"metric: {metric}, on: x, {found.margins[0]}: 0.25"
    for guard in ("floor", "ceiling"):
        text = with_check(f"{{{start}, {guard}: 0.1}}")
        if isinstance(found, Difference) and found.guard == guard:
            assert getattr(parse_policy(text).policy.checks[0], guard) == 0.1
        else:
            assert f"{guard} does not belong to {metric}" in refusal(text)
    text = with_check(f"{{{start}, stop: sequential}}")
    if isinstance(found, Difference):
        assert parse_policy(text).policy.checks[0].stop == "sequential"
    else:
        assert f"stop: sequential is for differences such as accuracy, not for {metric}" in refusal(text)
    assert "checks.0.stop" in refusal(with_check(f"{{{start}, stop: early}}"))


@pytest.mark.parametrize("check", ["accuracy, max_loss: 0", "truncated_rate, max_increase: 0.0", "speed_ratio, min: 0"])
def test_a_margin_of_zero_is_a_margin(check: str) -> None:
    assert parse_policy(with_check(f"{{on: cot, metric: {check}}}")).policy.checks[0].margin == 0


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ("1 point", 0.01),
        ("0.5 points", 0.005),
        ("2 pp", 0.02),
        ("2pp", 0.02),
        (".5 points", 0.005),
        ("3. points", 0.03),
        ("' 10  points '", 0.1),
        ("99 points", 0.99),
        ("0 points", 0.0),
        ("0.01", 0.01),
        ("1e-3", 0.001),
    ],
)
def test_margins_are_shares_of_one_or_points(written: str, share: float) -> None:
    for text in (
        f"{{metric: accuracy, on: cot, max_loss: {written}, floor: {written}}}",
        f"{{metric: truncated_rate, on: cot, max_increase: {written}, ceiling: {written}}}",
    ):
        check = parse_policy(with_check(text)).policy.checks[0]
        assert check.margin == pytest.approx(share, abs=1e-15)
        assert (check.floor if check.metric == "accuracy" else check.ceiling) == check.margin
    assert Check(metric="acceptance", on="x", max_loss=written.strip("'")).margin == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize(
    "written",
    [
        "1 percent",
        "1 %",
        "one point",
        "points",
        "-1 point",
        "1 point 2",
        "101 points",
        "'1,5 points'",
        "1 POINT",
        "''",
        "~1",
        "true",
    ],
)
@pytest.mark.parametrize("key", ["max_loss", "floor"])
def test_what_is_no_margin_is_refused_in_one_line(written: str, key: str) -> None:
    other = "" if key == "max_loss" else "max_loss: 0.1, "
    assert f"checks.0.{key}" in refusal(with_check(f"{{metric: accuracy, on: cot, {other}{key}: {written}}}"))


@pytest.mark.parametrize("written", ["1", "1.0", "5", "100 points", "true"])
def test_one_is_not_taken_for_one_point(written: str) -> None:
    """A margin of 1 lets everything pass: who writes it means something else."""
    for check in (f"metric: accuracy, on: x, max_loss: {written}", f"metric: acceptance, on: x, max_loss: {written}"):
        assert "checks.0.max_loss" in refusal(with_check(f"{{{check}}}"))
    said = refusal(with_check(f"{{metric: truncated_rate, on: x, max_increase: 0.1, ceiling: {written}}}"))
    assert "checks.0.ceiling" in said and ("0.01 or '1 point'" in said or written == "true")


@pytest.mark.parametrize("metric", ["flip_rate", "length_ratio", "kl_mean"])
def test_a_largest_value_is_no_difference_in_points(metric: str) -> None:
    assert "checks.0.max" in refusal(with_check(f"{{metric: {metric}, on: x, max: 5 points}}"))
    assert parse_policy(with_check(f"{{metric: {metric}, on: x, max: 1.5}}")).policy.checks[0].margin == 1.5


@pytest.mark.parametrize("margin", ["1", "100 points"])
def test_a_sequential_check_has_a_margin_that_can_be_missed(margin: str) -> None:
    # No loss is above 1: the test cannot bet on it, and a run must not find that out only when it is judged.
    message = refusal(with_check(f"{{metric: accuracy, on: cot, max_loss: {margin}, stop: sequential}}"))
    assert "checks.0" in message


def test_what_lies_above_the_noise_floor_needs_one_that_is_measured() -> None:
    check = with_check("{metric: kl_mean, on: divergence, max_over_noise: 0.1}")
    assert "noise_floor" in refusal(check)
    assert parse_policy(check + "noise_floor: {by: seed}\n").policy.checks[0].margin == 0.1


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
        (GOOD + "noise_floor: {by: luck}\n", "noise_floor.by"),
        (GOOD + "noise_floor: {items: 0}\n", "noise_floor.items"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(text: str, says: str) -> None:
    assert says in refusal(text)


@pytest.mark.parametrize("name", shipped_policies())
def test_a_shipped_policy_loads(name: str) -> None:
    sealed = load_policy(name)
    assert sealed.policy.name == name and all(check.metric in METRICS for check in sealed.policy.checks)
    # What a check speaks of is asked: it would be INCONCLUSIVE for ever.
    assert {check.on.split("/", 1)[0] for check in sealed.policy.checks} <= sealed.policy.suites.keys()


@pytest.mark.parametrize("name", shipped_policies())
def test_the_suites_of_a_shipped_policy_can_be_made(name: str, tmp_path: Path) -> None:
    policy = load_policy(name).policy
    there = {suite: settings for suite, settings in policy.suites.items() if suite != "swebench"}
    made = make_suites(policy.model_copy(update={"suites": there}), tmp_path)
    assert {suite.name for suite in made} == there.keys()


@pytest.mark.parametrize("name", shipped_policies())
def test_every_suite_of_a_shipped_policy_is_there(tmp_path: Path, name: str) -> None:
    policy = load_policy(name).policy
    assert [suite.name for suite in make_suites(policy, tmp_path)] == list(policy.suites)


def test_calls_of_tools_need_a_parser(tmp_path: Path) -> None:
    suites = "sampling: {max_tokens: 64}\nsuites: {swebench: {format: tool_calls}}\n"
    suites += "checks: [{metric: resolved, on: swebench, max_loss: 0.1}]\n"
    policy = parse_policy(f"name: p\n{suites}").policy
    with pytest.raises(BadInput, match=r"needs serving\.tool_call_parser"):
        make_suites(policy, tmp_path)
    make_suites(
        parse_policy(f"name: p\nserving: {{max_model_len: 16384, tool_call_parser: hermes}}\n{suites}").policy, tmp_path
    )


def test_the_demo_is_shipped() -> None:
    assert "demo" in shipped_policies()


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


def test_tags_of_thinking_can_be_named() -> None:
    policy = parse_policy(GOOD + 'requests: {thinking_tags: [["<ponder>", "</ponder>"]]}\n').policy
    assert policy.requests.thinking_tags == (("<ponder>", "</ponder>"),)
    for bad in ('[["<a>"]]', '[["<a>", ""]]', '[["<a>", "<a>"]]'):
        assert "requests.thinking_tags" in refusal(GOOD + f"requests: {{thinking_tags: {bad}}}\n")
