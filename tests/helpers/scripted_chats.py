"""One request to a scripted server: its answer, or how it failed; and an entry of log-probabilities to answer with."""

from typing import Any

import pytest
from fake_server import FakeServer, ask

from harness.endpoint.client import Completion, EndpointError

HELLO = [{"role": "user", "content": "Hello"}]


def chat(server: FakeServer, **more: Any) -> Completion:
    budget = more.pop("max_tokens", None)
    return ask(server.url, lambda e: e.chat(HELLO, budget), **more)


def failure(server: FakeServer, **more: Any) -> EndpointError:
    with pytest.raises(EndpointError) as caught:
        chat(server, **more)
    return caught.value


def entry(logprobs: dict[int, Any]) -> dict[str, Any]:
    return {str(token): {"logprob": value, "rank": 1, "decoded_token": "x"} for token, value in logprobs.items()}
