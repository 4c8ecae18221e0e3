"""The policy's sampling must arrive as it was asked for, and drafts be accepted without loss."""

import json
from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask, server_info
from readbacks import changed, facts, read, refusal

from harness.contract.errors import NotComparable
from harness.contract.settings import Sampling
from harness.endpoint.client import EndpointError
from harness.parity.readback import PROBES, UNSET, read_back

# -- sampling --------------------------------------------------------------------------------------------------------


def test_the_policys_sampling_is_sent_whole_and_compared(server: FakeServer) -> None:
    asked: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1}
    asked |= {"presence_penalty": 0.2, "frequency_penalty": 0.3, "seed": 7, "max_tokens": 256}
    assert read(server, FakeVllm(), **asked)["sampling"] == "arrives as asked"
    silent, full = [body for path, body in server.posts if path.endswith("/render")]
    assert {key: full[key] for key in asked} == asked
    assert set(silent) == {"model", "messages", "max_tokens"}


def test_every_parameter_of_a_policy_is_one_that_is_compared() -> None:
    assert set(Sampling.model_fields) == {*UNSET, "seed"}


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

    assert read(server, drop(*UNSET), temperature=1.0, max_tokens=16)["sampling"] == "arrives as asked"
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
    rendered = [body for path, body in server.posts if path.endswith("/render")]
    assert rendered[-1]["max_tokens"] == 4096 - longest
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
