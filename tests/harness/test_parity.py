"""Parity: every difference between the two servers is seen, named, and refused unless the policy allows it."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply

from harness.endpoint import EndpointError
from harness.errors import NotComparable
from harness.parity import PROBES, UNKNOWN, differences, read_back, require_parity
from harness.runfolder import ModelFacts

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
}
CANDIDATE = FACTS | {"model": "sha-b", "quantization": "gptq"}


def refusal(candidate: dict[str, str], allowed: tuple[str, ...] = ALLOWED) -> str:
    with pytest.raises(NotComparable) as caught:
        require_parity({"reference": FACTS, "candidate": candidate}, allowed)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_a_quantized_model_under_equal_settings_is_comparable() -> None:
    assert require_parity({"reference": FACTS, "candidate": CANDIDATE}, ALLOWED) == ["model", "quantization"]


@pytest.mark.parametrize("name", [name for name in FACTS if name not in ALLOWED])
def test_any_other_difference_is_refused_by_name_with_both_values(name: str) -> None:
    message = refusal(CANDIDATE | {name: "something else"})
    assert f"{name}: reference {FACTS[name]}, candidate something else" in message
    assert "quantization:" not in message


def test_all_differences_are_named_at_once() -> None:
    message = refusal(CANDIDATE | {"version": "0.33.0", "kv_cache_dtype": "fp8"})
    assert "version: reference 0.32.0, candidate 0.33.0" in message
    assert "kv_cache_dtype: reference auto, candidate fp8" in message


def test_a_fact_that_one_server_does_not_tell_is_a_difference() -> None:
    without = {name: value for name, value in CANDIDATE.items() if name != "version"}
    assert differences({"reference": FACTS, "candidate": without})["version"] == ("0.32.0", UNKNOWN)
    assert f"version: reference 0.32.0, candidate {UNKNOWN}" in refusal(without)


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


# -- reading back --------------------------------------------------------------------------------------------


class Vllm:
    """What a vLLM server says of itself; a test changes one thing."""

    def __init__(self) -> None:
        self.version = "0.32.0"
        self.models: Any = [{"id": "other", "max_model_len": 1}, {"id": "quantgate", "max_model_len": 4096}]
        self.cache = 'cache_dtype="auto",enable_prefix_caching="True"'
        self.sampling: Any = {"temperature": 1.0, "top_p": 1.0, "stop": [], "stop_token_ids": [2]}
        self.ids: Any = None

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/version":
            return {"version": self.version}
        if path == "/v1/models":
            return {"data": self.models}
        if path == "/metrics":
            text = f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{self.cache}}} 1.0\n"
            return Reply(text.encode(), headers={"content-type": "text/plain"})
        if path == "/v1/chat/completions/render":
            return Reply({}, 404) if self.sampling is None else {"sampling_params": self.sampling}
        if self.ids is not None:
            return chat_reply(prompt_ids=self.ids)
        return chat_reply(prompt_ids=list(json.dumps(body["messages"]).encode()))


def facts(path: Path | None = None, **more: Any) -> ModelFacts:
    return ModelFacts(name="m", path=str(path or ""), sha256="sha-a", **more)


def read(server: FakeServer, vllm: Vllm, model: ModelFacts | None = None) -> dict[str, str]:
    server.handler = vllm
    return ask(server.url, lambda e: read_back(e, model or facts()))


def test_what_is_read_back_is_what_the_server_says(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7], "temperature": 0.5}', "utf-8")
    found = read(server, Vllm(), facts(tmp_path, quantization="gptq"))
    assert found["model"] == "sha-a" and found["quantization"] == "gptq"
    assert found["version"] == "0.32.0" and found["max_model_len"] == "4096"
    assert found["kv_cache_dtype"] == "auto" and found["prefix_caching"] == "True"
    assert found["default.temperature"] == "1.0" and found["default.stop_token_ids"] == "[2]"
    assert found["generation_config.eos_token_id"] == "[2, 7]"
    assert found["generation_config.max_new_tokens"] == "null"
    for name, messages in PROBES.items():
        assert found[f"prompt_ids.{name}"].startswith(f"{len(json.dumps(messages).encode())} tokens, sha256 ")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"version": "0.33.0"}, "version"),
        ({"models": [{"id": "quantgate", "max_model_len": 8192}]}, "max_model_len"),
        ({"models": []}, "max_model_len"),
        ({"models": 7}, "max_model_len"),
        ({"cache": 'cache_dtype="fp8",enable_prefix_caching="True"'}, "kv_cache_dtype"),
        ({"cache": 'cache_dtype="auto",enable_prefix_caching="False"'}, "prefix_caching"),
        ({"sampling": {"temperature": 0.6, "top_p": 1.0, "stop": [], "stop_token_ids": [2]}}, "default.temperature"),
        ({"sampling": {"temperature": 1.0, "top_p": 1.0, "stop": ["\n"], "stop_token_ids": [2]}}, "default.stop"),
    ],
)
def test_one_setting_that_differs_is_the_difference_found(
    server: FakeServer, change: dict[str, Any], name: str
) -> None:
    other = Vllm()
    vars(other).update(change)
    readback = {"reference": read(server, Vllm()), "candidate": read(server, other)}
    assert list(differences(readback)) == [name]  # type: ignore[arg-type]


def test_other_prompt_ids_are_seen_in_every_language(server: FakeServer) -> None:
    other = Vllm()
    other.ids = [1, 2, 3]
    readback = {"reference": read(server, Vllm()), "candidate": read(server, other)}
    assert set(differences(readback)) == {f"prompt_ids.{name}" for name in PROBES}  # type: ignore[arg-type]


def test_what_cannot_be_read_says_so(server: FakeServer) -> None:
    vllm = Vllm()
    vllm.sampling, vllm.cache = None, 'block_size="16"'
    found = read(server, vllm, ModelFacts(name="m", path=""))
    assert found["model"] == "m" and found["quantization"] == "none"
    for name in ("kv_cache_dtype", "prefix_caching", "default.temperature", "generation_config.eos_token_id"):
        assert found[name] == UNKNOWN


def test_a_server_that_is_no_vllm_is_an_error(server: FakeServer) -> None:
    vllm = Vllm()
    vllm.ids = []
    with pytest.raises(EndpointError, match="does not return prompt_token_ids"):
        read(server, vllm)
