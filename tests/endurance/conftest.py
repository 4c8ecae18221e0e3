"""Checkpoints, a policy, two good servers, and what a gate finds on them when nothing disturbs it.

`record` keeps what was injected how often and what came of it; the table is printed when the tests are through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer
from tiny_llama import save_tiny_llama

from harness.contract.samples import ROLES, Role
from tests.endurance.gates import POLICY, Gate
from tests.endurance.good_server import GoodModel

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
ROWS: list[tuple[str, ...]] = []
HEADS = ("fault", "how injected", "how often", "what came of it", "lost")


@pytest.fixture
def record() -> Callable[..., None]:
    """Keep a row of the table in docs/reliability.md."""

    def keep(*row: str) -> None:
        ROWS.append(row)
        if path := os.environ.get("QUANTGATE_SOAK_ROWS"):
            with Path(path).open("a") as file:
                file.write(json.dumps(row) + "\n")

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.section("faults")
        for row in (HEADS, ("---",) * len(HEADS), *ROWS):
            terminalreporter.write_line(f"| {' | '.join(row)} |")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny checkpoints of one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for role, width in (("reference", 96), ("candidate", 128)):
        save_tiny_llama(folder / role, intermediate_size=width, max_position_embeddings=4096)
        (folder / role / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "endurance.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def good() -> Iterator[dict[Role, FakeServer]]:
    """A good server for each role."""
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, candidate.handler = GoodModel("reference", 0.01), GoodModel("candidate", 0.01)
        yield {"reference": reference, "candidate": candidate}


@pytest.fixture
def make_gate(tmp_path: Path, models: Path, policy: Path) -> Callable[..., Gate]:
    """A gate with a run folder of its own."""

    def make(name: str, urls: dict[str, str] | None = None, **settings: str) -> Gate:
        environment = {"QUANTGATE_CACHE": str(tmp_path / "cache"), **settings}
        return Gate(tmp_path / name, models, policy, urls or {}, environment)

    return make


@pytest.fixture(scope="session")
def undisturbed(models: Path, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """The run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with FakeServer() as reference, FakeServer() as candidate:
        reference.handler, candidate.handler = GoodModel("reference", 0.01), GoodModel("candidate", 0.01)
        urls = {role: server.url for role, server in zip(ROLES, (reference, candidate), strict=True)}
        gate = Gate(folder / "run", models, policy, urls, {"QUANTGATE_CACHE": str(folder / "cache")})
        status = gate.wait(gate.start())
    assert status == 0, gate.said()
    return gate
