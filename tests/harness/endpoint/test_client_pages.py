"""The client reads a server's pages: rendered prompts, settings, health, metrics."""

from typing import Any

import pytest
from fake_server import FakeServer, Reply, ask, chat_reply
from scripted_chats import HELLO

from harness.contract.settings import Sampling
from harness.endpoint.client import EndpointError

# -- reading back --------------------------------------------------------------------------------------------


def test_rendered_ids_are_those_of_the_server(server: FakeServer) -> None:
    server.script(chat_reply(prompt_ids=[11, 12, 13]))
    assert ask(server.url, lambda e: e.render(HELLO)) == [11, 12, 13]
    assert server.posts[0][1]["max_tokens"] == 1


@pytest.mark.parametrize("ids", [[], "1 2 3", [1, "2"], [1.5]])
def test_a_server_that_tells_no_prompt_ids_cannot_be_compared(server: FakeServer, ids: Any) -> None:
    server.script(chat_reply() | {"prompt_token_ids": ids})
    with pytest.raises(EndpointError, match="does not return prompt_token_ids"):
        ask(server.url, lambda e: e.render(HELLO))


def test_tools_are_sent_with_a_choice_that_every_server_takes(server: FakeServer) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    ask(server.url, lambda e: e.render(HELLO, tools=tools))
    assert server.posts[0][1].items() >= {"max_tokens": 1, "tool_choice": "none"}.items()
    assert server.posts[0][1]["tools"] == tools
    ask(server.url, lambda e: e.render(HELLO))
    assert not {"tools", "tool_choice"} & set(server.posts[1][1])


def test_a_rendered_request_carries_the_policys_sampling_when_asked_to(server: FakeServer) -> None:
    server.script({"sampling_params": {}})
    ask(server.url, lambda e: e.rendered_request(HELLO), temperature=0.6)
    ask(server.url, lambda e: e.rendered_request(HELLO, 77), temperature=0.6)
    (_, silent), (_, full) = server.posts
    assert silent == {"model": "quantgate", "messages": HELLO, "max_tokens": 1}
    assert full == silent | Sampling(temperature=0.6, max_tokens=77).model_dump()


@pytest.mark.parametrize(
    "reply", [Reply({}, 404), Reply({}, 500), Reply(b"<html>"), Reply([1]), Reply(b"[" * 100_000), Reply(b"")]
)
def test_a_page_that_need_not_be_there(server: FakeServer, reply: Reply) -> None:
    server.script(reply)
    assert ask(server.url, lambda e: e.find_json("/server_info")) is None
    server.script({"a": 1})
    assert ask(server.url, lambda e: e.find_json("/server_info")) == {"a": 1}
    server.script(None)
    with pytest.raises(EndpointError, match="unreachable"):
        ask(server.url, lambda e: e.find_json("/server_info"))


# -- pages ---------------------------------------------------------------------------------------------------


def test_health_is_a_200(server: FakeServer) -> None:
    assert ask(server.url, lambda e: e.healthy()) is True
    server.health = 503
    assert ask(server.url, lambda e: e.healthy()) is False


METRICS = b"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="fp8",enable_prefix_caching="True"} 1.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="a \\"b\\" c"} 1.5e3
vllm:prompt_tokens_total{model_name="d"} 7
"""


def test_metrics_are_read_by_name_with_their_labels(server: FakeServer) -> None:
    server.script(Reply(METRICS, headers={"content-type": "text/plain"}))
    found = ask(server.url, lambda e: e.metrics())
    ((labels, value),) = found["vllm:cache_config_info"]
    assert (labels["cache_dtype"], labels["enable_prefix_caching"], value) == ("fp8", "True", 1.0)
    assert found["vllm:prompt_tokens_total"] == [({"model_name": 'a "b" c'}, 1500.0), ({"model_name": "d"}, 7.0)]


@pytest.mark.parametrize("text", [b"<html>", b'a{b="c" 1', b"a one\n", b'a{b="c", ="d"} 1\n'])
def test_metrics_that_are_none_are_garbage(server: FakeServer, text: bytes) -> None:
    server.script(Reply(text))
    with pytest.raises(EndpointError, match="garbage"):
        ask(server.url, lambda e: e.metrics())


def test_a_page_that_is_not_there_is_an_error(server: FakeServer) -> None:
    server.script(Reply({}, 404))
    with pytest.raises(EndpointError, match="/version answers 404"):
        ask(server.url, lambda e: e.get_json("/version"))
    assert ask(server.url, lambda e: e.rendered_request(HELLO)) is None
    server.script(Reply({"sampling_params": {"stop": []}}))
    assert ask(server.url, lambda e: e.rendered_request(HELLO)) == {"sampling_params": {"stop": []}}
    server.script(Reply([1]))
    with pytest.raises(EndpointError, match="expected a JSON object, found list"):
        ask(server.url, lambda e: e.get_json("/version"))
