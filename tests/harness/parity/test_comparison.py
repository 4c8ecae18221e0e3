"""Parity: every difference between the two servers is seen, named, and refused unless the policy allows it."""

import pytest

from harness.contract.errors import NotComparable
from harness.contract.samples import Role
from harness.parity.comparison import differences, require_parity, require_same
from harness.parity.server_config import OFF, READABLE, UNKNOWN

ALLOWED = ("model", "quantization")
FACTS = {
    "model": "sha-a",
    "quantization": "none",
    "version": "0.32.0",
    "max_model_len": "4096",
    "kv_cache_dtype": "auto",
    "prompt_ids.japanese": "12 tokens, sha256 abc",
    "default.temperature": "1.0",
    "generation_config.eos_token_id": "2",
    "config": READABLE,
    "config.cache.block_size": "16",
    "env.VLLM_CPU_INT4_W4A8": "true",
}
CANDIDATE = FACTS | {"model": "sha-b", "quantization": "gptq"}
FLAGS = ("config", "config.cache.block_size", "env.VLLM_CPU_INT4_W4A8")


def refusal(candidate: dict[str, str], allowed: tuple[str, ...] = ALLOWED) -> str:
    with pytest.raises(NotComparable) as caught:
        require_parity({"reference": FACTS, "candidate": candidate}, allowed)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


def less(facts: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in facts.items() if name not in names}


def test_a_quantized_model_under_equal_settings_is_comparable() -> None:
    assert require_parity({"reference": FACTS, "candidate": CANDIDATE}, ALLOWED) == ["model", "quantization"]


@pytest.mark.parametrize("name", [name for name in FACTS if name not in (*ALLOWED, "config")])
def test_any_other_difference_is_refused_by_name_with_both_values(name: str) -> None:
    message = refusal(CANDIDATE | {name: "something else"})
    assert f"{name}: reference {FACTS[name]}, candidate something else" in message
    assert "quantization:" not in message


def test_all_differences_are_named_at_once() -> None:
    message = refusal(CANDIDATE | {"version": "0.33.0", "kv_cache_dtype": "fp8"})
    assert "version: reference 0.32.0, candidate 0.33.0" in message
    assert "kv_cache_dtype: reference auto, candidate fp8" in message


def test_a_fact_that_one_server_does_not_tell_is_a_difference() -> None:
    without = less(CANDIDATE, "version")
    assert differences(FACTS, without)["version"] == ("0.32.0", UNKNOWN)
    assert f"version: reference 0.32.0, candidate {UNKNOWN}" in refusal(without)


def test_a_flag_that_one_server_does_not_have_is_off_there() -> None:
    assert differences(FACTS, FACTS | {"config.scheduler.async_scheduling": "true"}) == {
        "config.scheduler.async_scheduling": (OFF, "true")
    }
    assert differences(FACTS, less(FACTS, "env.VLLM_CPU_INT4_W4A8")) == {"env.VLLM_CPU_INT4_W4A8": ("true", OFF)}


def test_flags_that_one_server_keeps_shut_are_one_difference_and_not_hundreds() -> None:
    shut = less(CANDIDATE, *FLAGS) | {"config": UNKNOWN}
    message = refusal(shut)
    assert f"config: reference {READABLE}, candidate {UNKNOWN}" in message and "VLLM_SERVER_DEV_MODE=1" in message
    assert "block_size" not in message
    assert require_parity({"reference": FACTS, "candidate": shut}, (*ALLOWED, "config")) == [
        "config",
        "model",
        "quantization",
    ]
    assert "config:" in refusal(shut, (*ALLOWED, "config.*"))


def test_flags_that_both_servers_keep_shut_are_no_difference() -> None:
    one, other = (less(facts, *FLAGS) | {"config": UNKNOWN} for facts in (FACTS, CANDIDATE))
    assert require_parity({"reference": one, "candidate": other}, ALLOWED) == ["model", "quantization"]


def test_a_policy_may_ask_that_everything_is_read() -> None:
    one, other = (less(facts, *FLAGS) | {"config": UNKNOWN} for facts in (FACTS, CANDIDATE))
    readback: dict[Role, dict[str, str]] = {"reference": one, "candidate": other}
    with pytest.raises(NotComparable, match=r"1 of 9 facts could not be read: config .*VLLM_SERVER_DEV_MODE=1"):
        require_parity(readback, ALLOWED, [])
    assert require_parity(readback, ALLOWED, ["conf*"]) == ["model", "quantization"]
    assert require_parity({"reference": FACTS, "candidate": CANDIDATE}, ALLOWED, []) == ["model", "quantization"]
    readback["candidate"] = less(CANDIDATE, *FLAGS) | {"config": UNKNOWN, "tokenizer": UNKNOWN}
    readback["reference"] = {**one, "tokenizer": UNKNOWN}
    with pytest.raises(NotComparable, match=r"1 of 10 facts could not be read: tokenizer"):
        require_parity(readback, ALLOWED, ["config*"])


def test_an_earlier_run_that_asked_less_is_no_other_server() -> None:
    before = less(FACTS, *FLAGS) | {"config": UNKNOWN}
    now = before | {"asked.dtype": "bfloat16", "config.cache.block_size": UNKNOWN}
    require_same(before, now, "the reference, then and now,")
    with pytest.raises(NotComparable, match=r"asked\.dtype: float32, then bfloat16"):
        require_same({**before, "asked.dtype": "float32"}, now, "the reference, then and now,")


def test_the_hint_is_given_only_where_it_helps() -> None:
    assert "VLLM_SERVER_DEV_MODE" not in refusal(CANDIDATE | {"version": "0.33.0"})


def test_facts_of_a_run_are_not_compared() -> None:
    one, other = FACTS | {"run.preemptions": "3", "run.budget": "x"}, FACTS | {"run.preemptions": "0"}
    assert differences(one, other) == {}
    require_same(one, other, "the two")


def test_the_policy_allows_by_pattern() -> None:
    other = CANDIDATE | {"prompt_ids.japanese": "13 tokens", "default.temperature": "0.6"}
    allowed = (*ALLOWED, "prompt_ids.*", "default.*")
    assert require_parity({"reference": FACTS, "candidate": other}, allowed) == [
        "default.temperature",
        "model",
        "prompt_ids.japanese",
        "quantization",
    ]
    message = refusal(other, (*ALLOWED, "prompt_ids.*"))
    assert "default.temperature" in message and "prompt_ids" not in message
    assert "quantization" in refusal(CANDIDATE, ("model",))
    assert "model" in refusal(CANDIDATE, ("quantization", "Model"))


@pytest.mark.parametrize("allowed", [ALLOWED, ("*",), ()])
def test_the_same_checkpoint_twice_is_refused_whatever_is_allowed(allowed: tuple[str, ...]) -> None:
    assert "same checkpoint" in refusal(FACTS, allowed)
    assert "same checkpoint" in refusal(FACTS | {"version": "0.33.0"}, allowed)


def test_one_model_served_twice_must_be_equal_in_everything() -> None:
    require_same(FACTS, dict(FACTS), "the reference and its second server")
    with pytest.raises(NotComparable) as caught:
        require_same(FACTS, CANDIDATE | {"version": "0.33.0"}, "the reference and its second server")
    assert str(caught.value) == (
        "the reference and its second server must be equal in everything: model: sha-a, then sha-b; "
        "quantization: none, then gptq; version: 0.32.0, then 0.33.0"
    )
