"""Reading back scripted servers: what was found, or what was refused."""

from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, FakeVllm, ask

from harness.contract.errors import NotComparable
from harness.contract.model_facts import ModelFacts
from harness.parity.readback import read_back


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
