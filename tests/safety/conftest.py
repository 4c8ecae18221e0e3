"""Two scripted vLLM servers, as the tests of the gate have them."""

from collections.abc import Iterator

import pytest
from fake_server import FakeServer
from jobs import Model

from harness.contract.samples import Role
from harness.parity import steadiness


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Role, FakeServer]]:
    monkeypatch.setattr(steadiness, "SETTLE_SECONDS", 0.0)
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, candidate.handler = Model(), Model()
        yield {"reference": reference, "candidate": candidate}
