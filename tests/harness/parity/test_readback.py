"""Reading back: what a server says of itself, and what is refused whatever the policy allows."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask, server_info
from readbacks import changed, facts, read

from harness.contract.model_facts import ModelFacts
from harness.endpoint.client import EndpointError
from harness.parity.asking import STANDS_FOR
from harness.parity.comparison import differences, unread
from harness.parity.readback import DEFAULTS, PROBES, TOOLS, read_back
from harness.parity.server_config import READABLE, UNKNOWN
from harness.parity.vllm_flags import FLAGS


def test_what_is_read_back_is_what_the_server_says(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7], "temperature": 0.5}', "utf-8")
    found = read(server, FakeVllm(), facts(tmp_path, quantization="gptq"))
    assert found["model"] == "sha-a" and found["quantization"] == "gptq"
    assert found["version"] == "0.32.0" and found["max_model_len"] == "4096"
    assert found["kv_cache_dtype"] == "auto" and found["prefix_caching"] == "True"
    assert found["default.temperature"] == "1.0" and found["default.stop_token_ids"] == "[2]"
    assert found["generation_config.eos_token_id"] == "[2, 7]" and found["generation_config.temperature"] == "0.5"
    assert found["generation_config.max_new_tokens"] == "null"
    assert found["config"] == READABLE and found["config.cache.block_size"] == "16"
    assert found["sampling"] == "arrives as asked" and found["speculative_decoding"] == "off"
    for name, messages in PROBES.items():
        assert found[f"prompt_ids.{name}"].startswith(f"{len(json.dumps([messages, None]))} tokens, sha256 ")
    assert all(isinstance(value, str) and len(value) <= 100 for value in found.values())


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"version": "0.33.0"}, {"version"}),
        ({"models": [{"id": "quantgate", "max_model_len": 8192}]}, {"max_model_len"}),
        ({"models": []}, {"max_model_len"}),
        ({"models": 7}, {"max_model_len"}),
        ({"models": [{"id": "quantgate", "max_model_len": "many"}]}, {"max_model_len"}),
        ({"models": [{"id": "quantgate", "max_model_len": -5}]}, {"max_model_len"}),
        ({"cache": 'cache_dtype="fp8",enable_prefix_caching="True"'}, {"kv_cache_dtype"}),
        ({"cache": 'cache_dtype="auto",enable_prefix_caching="False"'}, {"prefix_caching"}),
        ({"defaults": FakeVllm().defaults | {"temperature": 0.6}}, {"default.temperature"}),
        ({"defaults": FakeVllm().defaults | {"stop": ["\n"]}}, {"default.stop"}),
        ({"defaults": FakeVllm().defaults | {"top_k": 20}}, {"default.top_k"}),
        ({"ids": [1, 2, 3]}, {f"prompt_ids.{name}" for name in (*PROBES, "tools")}),
        ({"takes_tools": False}, {"prompt_ids.tools"}),
        ({"render": False}, {"sampling", *(f"default.{name}" for name in DEFAULTS)}),
        ({"info": None}, {"config"}),
        ({"info": {"vllm_config": "model='a'"}}, {"config"}),
        ({"info": Reply(b"<html>")}, {"config"}),
        ({"info": Reply([1])}, {"config"}),
        ({"info": server_info(cache_config={"block_size": 32})}, {"config.cache.block_size"}),
    ],
)
def test_one_setting_that_differs_is_the_difference_found(
    server: FakeServer, change: dict[str, Any], names: set[str]
) -> None:
    assert set(differences(read(server, FakeVllm()), read(server, changed(**change)))) == names


def test_two_servers_of_the_same_settings_do_not_differ(server: FakeServer) -> None:
    reference = read(server, FakeVllm())
    quantized = server_info(model_config={"model": "/models/b", "tokenizer": "/models/b", "quantization": "gptq"})
    candidate = read(server, changed(info=quantized), facts(quantization="gptq"))
    assert set(differences(reference, candidate)) == {"quantization"}  # facts() says the same model


SHUT: dict[str, Any] = {"info": None}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"logit_bits": 24}, {"asked.dtype": ("bfloat16", "float32")}),
        ({"logit_bits": 11}, {"asked.dtype": ("bfloat16", "float16")}),
        ({"max_logprobs": 64}, {"asked.max_logprobs": ("20", "64")}),
        ({}, {}),
    ],
)
def test_what_two_servers_keep_shut_is_found_by_asking(
    server: FakeServer, change: dict[str, Any], found: dict[str, tuple[str, str]]
) -> None:
    reference, candidate = read(server, changed(**SHUT)), read(server, changed(**SHUT, **change))
    assert differences(reference, candidate) == found


def test_flags_that_nobody_shows_are_counted_and_never_equal(server: FakeServer, tmp_path: Path) -> None:
    shut = read(server, changed(**SHUT), facts(tmp_path))
    hidden = unread(shut, dict(shut))
    assert set(hidden.names) == set(FLAGS) - {*STANDS_FOR.values()}
    compared = [name for name in shut if name != "config"]
    assert hidden.sentence == f"{len(FLAGS) - 2} of {len(compared)} facts could not be read"
    assert "config.scheduler (12)" in hidden.listed and "env (9)" in hidden.listed
    whole = read(server, FakeVllm(), facts(tmp_path))
    assert not unread(whole, dict(whole)).names
    assert "config.scheduler.max_num_seqs" in unread(whole, shut).names  # one that is shown helps nobody


def test_a_server_that_shows_its_flags_is_not_judged_by_its_grid(server: FakeServer) -> None:
    assert not differences(read(server, FakeVllm()), read(server, changed(logit_bits=24)))


def test_tools_are_told_and_not_called(server: FakeServer) -> None:
    found = read(server, FakeVllm())
    (body,) = [body for path, body in server.posts if "tools" in body]
    assert body["tools"] == TOOLS and body["tool_choice"] == "none" and body["messages"] == PROBES["english"]
    assert found["prompt_ids.tools"] != found["prompt_ids.english"]


def test_a_server_that_says_little_is_read_all_the_same(server: FakeServer) -> None:
    silent = changed(render=False, cache='block_size="16"', info=None, version=None)
    found = read(server, silent, ModelFacts(name="m", path=""))
    assert found["model"] == "m" and found["quantization"] == "none"
    for name in (
        *("kv_cache_dtype", "prefix_caching", "default.temperature", "generation_config.eos_token_id", "config"),
        *("sampling", "chat_template", "tokenizer"),
    ):
        assert found[name] == UNKNOWN
    flags = {name: value for name, value in found.items() if name.startswith(("config.", "env."))}
    assert set(flags.values()) == {UNKNOWN}
    # What is found by asking is not unread, though the flag itself is not shown.
    assert {*flags, *STANDS_FOR.values()} == set(FLAGS) and not {*flags} & {*STANDS_FOR.values()}
    assert found["asked.dtype"] == "bfloat16" and found["asked.max_logprobs"] == "20"


def test_the_quantization_is_that_of_the_server_where_it_is_another(server: FakeServer) -> None:
    def served(quantization: str | None) -> FakeVllm:
        return changed(info=server_info(model_config={"quantization": quantization}))

    assert read(server, served("fp8"))["quantization"] == "none, served as fp8"
    assert read(server, served("gptq_marlin"), facts(quantization="gptq"))["quantization"] == (
        "gptq, served as gptq_marlin"
    )
    assert read(server, served("gptq"), facts(quantization="gptq"))["quantization"] == "gptq"
    assert read(server, served(None))["quantization"] == "none"


def test_a_server_that_is_no_vllm_is_an_error(server: FakeServer) -> None:
    with pytest.raises(EndpointError, match="does not return prompt_token_ids"):
        read(server, changed(ids=[]))


def test_a_server_that_breaks_at_tools_is_an_error(server: FakeServer) -> None:
    vllm = FakeVllm()
    server.handler = lambda path, body: Reply({}, 500) if "tools" in body else vllm(path, body)
    with pytest.raises(EndpointError, match="server: "):
        ask(server.url, lambda e: read_back(e, facts()))


@pytest.mark.parametrize(
    "hostile",
    [
        {"version": "\x1b[2J" + "x" * 10**5},
        {"version": {"a": [1]}},
        {"defaults": {"stop": ["x" * 10**5], "temperature": [[[]]], "top_k": 10**300}},
        {"models": [{"id": "quantgate", "max_model_len": 10**300}]},
        {"models": [None, 7, {"id": ["quantgate"]}]},
        {"cache": 'cache_dtype="' + "\\n" * 50 + '"'},
        {"fingerprint": {"a": 1}},
    ],
)
def test_hostile_answers_become_short_printable_facts(server: FakeServer, hostile: dict[str, Any]) -> None:
    found = read(server, changed(**hostile))
    assert all(value.isprintable() and len(value) <= 100 for value in found.values())
