"""Shared by all tests: a scripted server on loopback, and a way to ask it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "harness"))  # fake_server.py, whatever import mode pytest is run with

from fake_server import FakeServer

# A slow machine is no failing test, and the same tests are run everywhere; --hypothesis-profile=default looks further.
settings.register_profile("quantgate", deadline=None, derandomize=True)
settings.load_profile("quantgate")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running FakeServer that answers every chat with "ok"."""
    with FakeServer() as running:
        yield running
