"""Reports in a real Chromium, opened from disk as a reader does it. Without a browser these tests skip and say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_page import chromium
from browser_runs import Reports
from playwright.sync_api import Browser

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a file of tests: while Playwright runs, no other test of the process can start a loop."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Rendered reports by name; each is made when it is first asked for."""
    return Reports(tmp_path_factory.mktemp("reports"))
