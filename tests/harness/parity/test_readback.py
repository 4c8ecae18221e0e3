"""Reading back: what a server says of itself, and what is refused whatever the policy allows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask, server_info

from harness.contract.errors import BadInput, NotComparable
from harness.contract.policy import Sampling
from harness.endpoint.client import EndpointError
from harness.parity.comparison import differences
from harness.parity.readback import DEFAULTS, GENERATION_CONFIG, PROBES, TOOLS, UNSET, read_back
from harness.parity.server_config import READABLE, UNKNOWN
from harness.runs.manifest import ModelFacts


def facts(path: Path | None = None, **more: Any) -> ModelFacts:
    return ModelFacts(name="m", path=str(path or ""), sha256="sha-a", **more)


def read(server: FakeServer, vllm: FakeVllm, model: ModelFacts | None = None, **sampling: Any) -> dict[str, str]:
    server.handler = vllm
    return ask(server.url, lambda e: read_back(e, model or facts()), **sampling)


def changed(**change: Any) -> FakeVllm:
    vllm = FakeVllm()
    vars(vllm).update(change)
    return vllm


def refusal(server: FakeServer, vllm: FakeVllm, **sampling: Any) -> str:
    with pytest.raises(NotComparable) as caught:
        read(server, vllm, **sampling)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


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
    assert not any(name.startswith(("config.", "env.")) for name in found)


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


# -- sampling --------------------------------------------------------------------------------------------------------


def test_the_policys_sampling_is_sent_whole_and_compared(server: FakeServer) -> None:
    asked = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1}
    asked |= {"presence_penalty": 0.2, "frequency_penalty": 0.3, "seed": 7, "max_tokens": 256}
    assert read(server, FakeVllm(), **asked)["sampling"] == "arrives as asked"
    silent, full = [body for path, body in server.posts if path.endswith("/render")]
    assert {key: full[key] for key in asked} == asked
    assert set(silent) == {"model", "messages", "max_tokens"}


def test_every_parameter_of_a_policy_is_one_that_is_compared() -> None:
    assert set(Sampling.model_fields) == {*UNSET, "seed", "max_tokens"}


@pytest.mark.parametrize(
    ("asked", "arrives", "said"),
    [
        ({"temperature": 0.6}, {"temperature": 1.0}, "temperature 0.6 arrives as 1.0"),
        ({"temperature": 0.005}, {"temperature": 0.01}, "temperature 0.005 arrives as 0.01"),
        ({"temperature": 0.0}, {"temperature": 0.7}, "temperature 0.0 arrives as 0.7"),
        ({"temperature": 0.6, "top_p": 0.9}, {"top_p": 1.0}, "top_p 0.9 arrives as 1.0"),
        ({"temperature": 0.6}, {"top_k": 50}, "top_k -1 arrives as 50"),
        ({"temperature": 0.6}, {"min_p": 0.1}, "min_p 0.0 arrives as 0.1"),
        ({}, {"repetition_penalty": 1.2}, "repetition_penalty 1.0 arrives as 1.2"),
        ({}, {"presence_penalty": 1}, "presence_penalty 0.0 arrives as 1"),
        ({}, {"frequency_penalty": None}, "frequency_penalty 0.0 arrives as null"),
        ({"seed": -1}, {"seed": None}, "seed -1 arrives as null"),
        ({"max_tokens": 300}, {"max_tokens": 100}, "max_tokens 300 arrives as 100"),
        ({"max_tokens": 300}, {"max_tokens": "\x1b" * 200}, "max_tokens 300 arrives as sha256 "),
    ],
)
def test_a_parameter_that_does_not_arrive_is_refused_by_name(
    server: FakeServer, asked: dict[str, Any], arrives: dict[str, Any], said: str
) -> None:
    message = refusal(server, changed(sampling=arrives), **asked)
    assert said in message and message.count("arrives as") == 1


def test_a_value_that_the_server_leaves_out_is_its_default(server: FakeServer) -> None:
    def drop(*names: str) -> FakeVllm:
        vllm = FakeVllm()
        render = vllm._render
        vllm._render = lambda body: {  # type: ignore[method-assign]
            "sampling_params": {k: v for k, v in render(body)["sampling_params"].items() if k not in names}
        }
        return vllm

    assert read(server, drop(*UNSET), temperature=1.0)["sampling"] == "arrives as asked"
    assert "top_p 0.9 arrives as 1.0" in refusal(server, drop("top_p"), temperature=0.6, top_p=0.9)
    assert "seed 0 arrives as null" in refusal(server, drop("seed"))


def test_what_chooses_nothing_when_greedy_may_be_reset(server: FakeServer) -> None:
    reset = changed(sampling={"top_p": 1.0, "top_k": 0, "min_p": 0.0})
    assert read(server, reset, temperature=0.0, top_p=0.9, top_k=20, min_p=0.1)["sampling"] == "arrives as asked"


def test_both_ways_to_say_no_top_k_are_equal(server: FakeServer) -> None:
    assert read(server, changed(sampling={"top_k": 0}), temperature=0.6, top_k=-1)["sampling"] == "arrives as asked"


def test_a_budget_that_only_the_context_limits_is_no_refusal(server: FakeServer) -> None:
    vllm = FakeVllm()
    longest = max(len(json.dumps([messages, None])) for messages in PROBES.values())
    assert read(server, vllm, max_tokens=100_000)["sampling"] == "arrives as asked"
    assert server.posts[-1][1]["max_tokens"] == 4096 - longest
    assert "max_tokens 2000 arrives as 500" in refusal(server, changed(most_tokens=500), max_tokens=2000)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("/v1/chat/completions/render", "does not render a request with the policy's sampling"),
        ("/v1/chat/completions", "a request with the policy's sampling is refused: .*min_p is not supported"),
    ],
)
def test_a_server_that_takes_requests_and_not_with_the_policys_sampling(
    server: FakeServer, page: str, said: str
) -> None:
    vllm = FakeVllm()
    refused = Reply({"error": {"message": "min_p is not supported"}}, 400)
    server.handler = lambda path, body: refused if path == page and "seed" in body else vllm(path, body)
    with pytest.raises(NotComparable, match=said):
        ask(server.url, lambda e: read_back(e, facts()))


def test_a_server_that_fails_with_the_policys_sampling_is_an_error(server: FakeServer) -> None:
    vllm = FakeVllm()
    server.handler = lambda path, body: Reply({}, 500) if "seed" in body else vllm(path, body)
    with pytest.raises(EndpointError, match="server: "):
        ask(server.url, lambda e: read_back(e, facts()))


# -- speculative decoding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["synthetic", "fly", "typical_acceptance_sampler", "one yet to come", ["standard"], 7]
)
@pytest.mark.parametrize("key", ["rejection_sample_method", "acceptance_method"])
def test_lossy_speculative_decoding_is_refused_before_anything_is_asked(
    server: FakeServer, key: str, method: Any
) -> None:
    message = refusal(server, changed(info=server_info(speculative_config={"method": "mtp", key: method})))
    assert f"speculative_config.{key}" in message and "standard" in message
    assert server.posts == []


@pytest.mark.parametrize("method", ["standard", "block", "strict", "probabilistic", None])
def test_lossless_speculative_decoding_is_a_flag_as_any_other(server: FakeServer, method: str | None) -> None:
    vllm = changed(info=server_info(speculative_config={"method": "mtp", "rejection_sample_method": method}))
    vllm.cache += '} 1\nvllm:spec_decode_num_drafts_total{engine="0"'
    found = read(server, vllm)
    assert found["config.speculative.method"] == "mtp" and found["speculative_decoding"] == "on"
    assert found.get("config.speculative.rejection_sample_method") == method


@pytest.mark.parametrize("info", [None, {"vllm_config": "text"}])
def test_drafts_of_which_nobody_knows_how_they_are_accepted_are_refused(server: FakeServer, info: Any) -> None:
    vllm = changed(info=info)
    vllm.cache += '} 1\nvllm:spec_decode_num_drafts_total{engine="0"'
    assert "does not say how it accepts them" in refusal(server, vllm)


# -- the checkpoint's files ------------------------------------------------------------------------------------------

TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "added_tokens": [{"id": 0, "content": "<s>"}],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_id": 0},
}


def checkpoint(folder: Path, **files: Any) -> ModelFacts:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, "utf-8")
    return facts(folder)


def of_files(server: FakeServer, model: ModelFacts) -> dict[str, str]:
    found = read(server, FakeVllm(), model)
    names = ("chat_template", "tokenizer", *(f"generation_config.{key}" for key in GENERATION_CONFIG))
    return {name: found[name] for name in names}


def test_a_checkpoint_without_these_files_has_none_of_it(server: FakeServer, tmp_path: Path) -> None:
    found = of_files(server, facts(tmp_path))
    assert (found.pop("chat_template"), found.pop("tokenizer")) == ("none", "none")
    assert set(found.values()) == {"null"}


@pytest.mark.parametrize("key", GENERATION_CONFIG)
def test_every_key_of_generation_config_that_vllm_takes_is_compared(
    server: FakeServer, tmp_path: Path, key: str
) -> None:
    one = checkpoint(tmp_path / "a", generation_config__json={"transformers_version": "4"})
    other = checkpoint(tmp_path / "b", generation_config__json={"transformers_version": "5", key: 7})
    found = differences(of_files(server, one), of_files(server, other))
    assert found == {f"generation_config.{key}": ("null", "7")}


def test_a_chat_template_is_its_text_wherever_it_lies(server: FakeServer, tmp_path: Path) -> None:
    inside = checkpoint(tmp_path / "a", tokenizer_config__json={"chat_template": "{{ x }}"})
    beside = checkpoint(tmp_path / "b", tokenizer_config__json={"pad": 1}, chat_template__jinja="{{ x }}")
    other = checkpoint(tmp_path / "c", chat_template__jinja="{{ x }}!")
    several = checkpoint(tmp_path / "d", tokenizer_config__json={"chat_template": [{"name": "default"}]})
    found = [of_files(server, model)["chat_template"] for model in (inside, beside, other, several)]
    assert found[0] == found[1] and len(set(found)) == 3 and all(f.startswith("sha256 ") for f in found)


def test_a_tokenizer_is_what_it_does_and_not_how_it_was_written(server: FakeServer, tmp_path: Path) -> None:
    model = TOKENIZER["model"]
    again = TOKENIZER | {
        "version": "2.0",
        "padding": {"length": 8},
        "model": model | {"merges": [["a", "b"]], "ignore_merges": False, "dropout": None},
    }
    changes = [
        TOKENIZER | {"model": model | {"merges": [["b", "a"]]}},
        TOKENIZER | {"model": model | {"vocab": {"a": 0, "b": 2, "ab": 1}}},
        TOKENIZER | {"model": model | {"unk_id": None}},
        TOKENIZER | {"model": model | {"ignore_merges": True}},
        TOKENIZER | {"added_tokens": []},
        {"model": None},
    ]
    found = [
        of_files(server, checkpoint(tmp_path / str(i), tokenizer__json=data))["tokenizer"]
        for i, data in enumerate([TOKENIZER, again, *changes])
    ]
    assert found[0] == found[1] and len(set(found)) == len(changes) + 1


def test_tokenizers_of_other_kinds_are_hashed_by_their_bytes(server: FakeServer, tmp_path: Path) -> None:
    one = of_files(server, checkpoint(tmp_path / "a", tokenizer__model="bytes"))["tokenizer"]
    same = of_files(server, checkpoint(tmp_path / "b", tokenizer__model="bytes"))["tokenizer"]
    other = of_files(server, checkpoint(tmp_path / "c", vocab__json="bytes", merges__txt="a b"))["tokenizer"]
    assert one == same != other
    assert hashlib.sha256(b"bytes").hexdigest()[:16] not in one  # a hash over all files of the kind


@pytest.mark.parametrize("name", ["generation_config__json", "tokenizer__json", "tokenizer_config__json"])
def test_a_file_that_cannot_be_read_is_named(server: FakeServer, tmp_path: Path, name: str) -> None:
    model = checkpoint(tmp_path / "a", **{name: "{"})
    with pytest.raises(BadInput, match=name.replace("__", r"\.")):
        read(server, FakeVllm(), model)
