"""Shared by all tests: a scripted server on loopback, and a way to ask it."""

from collections.abc import Iterator

import pytest
from fake_server import FakeServer
from hypothesis import settings

# A slow machine is no failing test, and the same tests are run everywhere; --hypothesis-profile=default looks further.
settings.register_profile("quantgate", deadline=None, derandomize=True)
settings.load_profile("quantgate")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running FakeServer that answers every chat with "ok"."""
    with FakeServer() as running:
        yield running
