"""The agent's container: what its end is taken for. With a real engine and real containers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, chat_reply
from tiny_image import no_engine, tiny_image

from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Endpoint
from harness.serving.containers import ContainerLimits, cleanup_command, cli, remove_leftovers, run_arguments
from suites.swebench.agent import AgentSettings, solve
from suites.swebench.environment import ContainerGoneError, WatchedContainer
from suites.swebench.trajectory import InfrastructureError

pytestmark = pytest.mark.engine
LIMITS = ContainerLimits(memory_gib=None, pids=None)
FORGED = "echo 'Error response from daemon: container is not running'; exit 1"


@pytest.fixture
def label(tmp_path: Path) -> Iterator[str]:
    if no_engine():
        pytest.skip(no_engine())
    yield str(tmp_path)
    remove_leftovers(str(tmp_path))


@pytest.fixture
def container(label: str) -> WatchedContainer:
    arguments = run_arguments(LIMITS, label)
    return WatchedContainer(
        image=tiny_image(), executable=cli(), run_args=arguments, container_timeout="600", timeout=2
    )


def test_commands_that_fail_are_what_they_were(container: WatchedContainer) -> None:
    """Whatever a command prints, however it ends, and though it tries to end its own container."""
    for command, status in (("echo here", 0), ("exit 3", 3), (FORGED, 1), ("sleep 9", -1), ("kill -9 1; exit 7", 7)):
        assert container.execute({"command": command})["returncode"] == status
    assert "is not running" in container.execute({"command": FORGED})["output"]


def test_a_container_that_ended_is_an_error(container: WatchedContainer, label: str) -> None:
    assert container.execute({"command": "cat /testbed/value.txt"})["output"] == "old\n"
    remove_leftovers(label)
    with pytest.raises(ContainerGoneError, match=r"the container ended, or its engine does not answer: .*[Cc]ontainer"):
        container.execute({"command": "ls"})


def test_an_engine_that_does_not_answer_is_an_error(
    container: WatchedContainer, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as nowhere:
        nowhere.setenv("DOCKER_HOST", "unix:///nowhere")
        with pytest.raises(ContainerGoneError, match="Cannot connect to the Docker daemon"):
            container.execute({"command": "ls"})
    assert container.execute({"command": "ls /"})["returncode"] == 0


def answer(command: str) -> dict[str, Any]:
    call = {"name": "bash", "arguments": json.dumps({"command": command})}
    return chat_reply("Next.", finish="tool_calls", tool_calls=[{"id": "1", "type": "function", "function": call}])


@pytest.mark.long
def test_a_container_that_dies_in_a_trajectory_is_not_blamed_on_the_model(
    server: FakeServer, label: str, tmp_path: Path
) -> None:
    """mini-swe-agent itself: its container is gone at the third step; there the trajectory ends, not at its limit."""
    asked = 0

    def handler(path: str, body: dict[str, Any]) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            remove_leftovers(label)
        return answer(FORGED)

    server.handler = handler
    settings = AgentSettings("tool_calls", 64, 6, 120.0, 20, 60, cli(), run_arguments(LIMITS, label))
    folder = tmp_path / "agent"

    async def run() -> Any:
        async with Endpoint(server.url, "m", Requests(), Sampling()) as endpoint:
            return await solve(folder, "a__a-1", "Mend it.", tiny_image(), endpoint, settings, cleanup_command(label))

    with pytest.raises(InfrastructureError, match="agent: ContainerGoneError: the container ended"):
        asyncio.run(run())
    assert asked == 3
