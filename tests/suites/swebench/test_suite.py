"""The suite around agent and grader: items, tries, what is kept. With a real engine: tests/e2e/test_swebench.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from swebench_rows import row, written

from harness.contract.errors import BadInput
from harness.contract.samples import Sample
from harness.contract.settings import Requests, Sampling
from harness.endpoint.answers import EndpointError
from harness.endpoint.client import Endpoint
from harness.runs.instances import read_result, write_result
from harness.serving.containers import LABEL
from suites.swebench import agent as swebench_agent
from suites.swebench import suite as swebench
from suites.swebench.grading import Grade
from suites.swebench.suite import Swebench, SwebenchConfig
from suites.swebench.trajectory import AgentRun, InfrastructureError, trajectory_path

SAMPLING = Sampling(max_tokens=64)


def suite(folder: Path, *rows: dict[str, Any], **config: Any) -> Swebench:
    return Swebench(
        SwebenchConfig(dataset=written(folder, *(rows or (row(),))), **config), SAMPLING, folder / "swebench"
    )


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sample]:
    """Answer one item with agents and graders that do, one after the other, what is given: a value or an error.

    Agents None: the suite's own, whatever it runs.
    """
    monkeypatch.setattr(swebench, "cli", lambda: "docker")
    monkeypatch.setattr(swebench, "image_digest", lambda image: "sha256:1")

    def answer(agents: list[Any] | None, graders: list[Any], **config: Any) -> Sample:
        made = suite(tmp_path, **config)
        steps = {"agent": iter(agents or ()), "grader": iter(graders)}

        def next_of(name: str) -> Callable[..., Any]:
            async def step(folder: Path, *_: Any) -> Any:
                folder.mkdir(parents=True, exist_ok=True)
                result = next(steps[name])
                if isinstance(result, Exception):
                    raise result
                return result

            return step

        if agents is not None:
            monkeypatch.setattr(swebench, "solve", next_of("agent"))
        monkeypatch.setattr(swebench, "grade", next_of("grader"))
        (item,) = made.items(None)
        endpoint = Endpoint("http://127.0.0.1:9", "m", Requests(), SAMPLING)
        sample = asyncio.run(made.answer(item, "candidate", endpoint))
        assert not any(list(left) for left in steps.values()), "not everything was tried"
        return sample

    return answer


DONE = AgentRun("Submitted", patch="diff", steps=4, prompt_tokens=100, completion_tokens=30, format_errors=1)
BROKEN = InfrastructureError("no such image")
SLOW = Grade("unresolved", timed_out=True)


def folder(tmp_path: Path) -> Path:
    return tmp_path / "swebench" / "candidate" / "pallets__flask-1"


def test_an_item_has_the_problem_as_its_prompt_and_no_gold_patch(tmp_path: Path) -> None:
    (item,) = suite(tmp_path).items(None)
    assert (item.task, item.item) == ("instances", "pallets__flask-1")
    assert item.prompt == [{"role": "user", "content": "It does not work."}]
    assert "gold" not in json.dumps(item.model_dump()) and item.data["row"]["eval_script"] == "true"


def test_instances_and_limit_choose(tmp_path: Path) -> None:
    rows = [row(f"a__a-{n}") for n in range(5)]

    def names(**config: Any) -> list[str]:
        return [item.item for item in suite(tmp_path, *rows, **config).items(None)]

    assert names(limit=2) == ["a__a-0", "a__a-1"]
    assert names(instances=("a__a-3", "a__a-1")) == ["a__a-1", "a__a-3"]
    with pytest.raises(BadInput, match="no instance a__a-9"):
        names(instances=("a__a-1", "a__a-9"))


def test_a_resolved_instance(play: Callable[..., Sample], tmp_path: Path) -> None:
    sample = play([DONE], [Grade("resolved")])
    assert (sample.score, sample.answer, sample.finish_reason) == (1.0, "resolved", "stop")
    assert sample.metrics["format_error_rate"] == 0.25 and sample.metrics["exit Submitted"] == 1.0
    kept = read_result(folder(tmp_path))
    assert (kept.outcome, kept.steps, kept.image_digest, kept.failures) == ("resolved", 4, "sha256:1", [])


@pytest.mark.parametrize(
    ("status", "finish"),
    [
        ("LimitsExceeded", "limit"),
        ("TimeExceeded", "limit"),
        ("ContextWindowExceededError", "length"),
        ("RepeatedFormatError", "format_error"),
    ],
)
def test_an_end_without_a_patch_is_the_models(play: Callable[..., Sample], status: str, finish: str) -> None:
    sample = play([AgentRun(status, steps=3)], [Grade("empty patch")])
    assert (sample.score, sample.answer, sample.finish_reason, sample.error) == (0.0, "empty patch", finish, None)
    assert sample.metrics["unsubmitted"] == 1.0


def test_infrastructure_is_tried_again_and_forgiven(play: Callable[..., Sample], tmp_path: Path) -> None:
    sample = play([BROKEN, DONE, DONE], [BROKEN, Grade("unresolved")], retries=2)
    assert (sample.score, sample.error) == (0.0, None)
    assert read_result(folder(tmp_path)).failures == ["no such image"] * 2
    assert (folder(tmp_path) / "agent.failed-1").exists() and (folder(tmp_path) / "grading.failed-1").exists()


def test_infrastructure_that_stays_broken_is_no_wrong_answer(play: Callable[..., Sample]) -> None:
    sample = play([BROKEN, BROKEN], [], retries=1)
    assert (sample.score, sample.error) == (None, "infrastructure: no such image")


def test_tests_that_take_too_long_twice_are_the_patchs_fault(play: Callable[..., Sample]) -> None:
    assert play([DONE, DONE], [SLOW, SLOW], retries=4).metrics["tests_timed_out"] == 1.0


@pytest.mark.parametrize("graders", [[SLOW, BROKEN, BROKEN, BROKEN], [BROKEN, BROKEN, SLOW, BROKEN]])
def test_tests_that_took_too_long_once_and_could_not_be_run_again_are_no_wrong_answer(
    play: Callable[..., Sample], graders: list[Any]
) -> None:
    sample = play([DONE] * 4, graders, retries=2)
    assert (sample.score, sample.error, sample.metrics["tests_timed_out"]) == (None, "infrastructure: no such image", 0)


@pytest.mark.parametrize(("second", "score"), [(SLOW, 0.0), (Grade("resolved"), 1.0), (BROKEN, None)])
def test_a_timeout_has_a_second_try_of_its_own(play: Callable[..., Sample], second: Any, score: float | None) -> None:
    assert play([DONE, DONE], [SLOW, second], retries=0).score == score


def test_failures_of_the_infrastructure_do_not_use_up_the_second_try(play: Callable[..., Sample]) -> None:
    assert play([DONE] * 4, [BROKEN, SLOW, BROKEN, SLOW], retries=2).metrics["tests_timed_out"] == 1.0


def test_tests_that_take_too_long_once_are_run_again(play: Callable[..., Sample]) -> None:
    sample = play([DONE, DONE], [SLOW, Grade("resolved")])
    assert (sample.score, sample.metrics["tests_timed_out"]) == (1.0, 0.0)


def test_a_server_that_fails_is_no_result(play: Callable[..., Sample], tmp_path: Path) -> None:
    with pytest.raises(EndpointError):
        play([EndpointError("server", "gone")], [])
    assert not (folder(tmp_path) / "result.json").exists()


def test_a_result_that_is_there_is_used(play: Callable[..., Sample], tmp_path: Path) -> None:
    play([DONE], [Grade("resolved")])
    assert play([], []).score == 1.0  # neither agent nor grader is asked


def test_a_stored_failure_of_the_infrastructure_is_tried_again(play: Callable[..., Sample], tmp_path: Path) -> None:
    play([DONE], [Grade("resolved")])
    broken = read_result(folder(tmp_path)).model_copy(update={"outcome": "infrastructure error"})
    write_result(folder(tmp_path), broken)
    assert play([DONE], [Grade("unresolved")]).score == 0.0


LEFT = {
    "ended by its dead server": {"info": {"exit_status": "APIConnectionError", "exception_str": "x"}, "messages": []},
    "ended by its dead container": {"info": {"exit_status": "CalledProcessError"}, "messages": []},
    "ended when the container was gone": {"info": {"exit_status": "ContainerGoneError"}, "messages": []},
    "in the middle": {"info": {"exit_status": ""}, "messages": []},
}


@pytest.mark.parametrize("left", [*LEFT, "half written", "whole"])
def test_only_a_trajectory_that_the_model_ended_is_taken_from_a_killed_run(
    play: Callable[..., Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """With the real `solve`, whose agent is here a function: no retry is needed, and a healthy server loses nothing."""
    agents = 0
    whole = {"info": {"exit_status": "Submitted", "submission": "diff"}, "messages": []}

    async def agent(command: list[str], log: Path, *_: Any, **__: Any) -> int:
        nonlocal agents
        agents += 1
        assert not log.with_name("old").exists(), "the folder is made anew"
        path = trajectory_path(log.parent, "pallets__flask-1")
        path.parent.mkdir()
        path.write_text(json.dumps(whole))
        return 0

    path = trajectory_path(folder(tmp_path) / "agent", "pallets__flask-1")
    path.parent.mkdir(parents=True)
    (folder(tmp_path) / "agent" / "old").touch()
    path.write_text(json.dumps(whole)[:30] if left == "half written" else json.dumps(LEFT.get(left, whole)))
    monkeypatch.setattr(swebench_agent, "run_guarded", agent)
    sample = play(None, [Grade("resolved")], retries=0)
    assert (sample.score, sample.error, agents) == (1.0, None, 0 if left == "whole" else 1)
    assert read_result(folder(tmp_path)).failures == []


def test_what_a_killed_run_left_is_removed_by_its_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was killed before it wrote its state file, or while it did, the label is all there is."""
    with FakeEngine() as fake:
        monkeypatch.setenv("DOCKER_HOST", fake.address)
        mine = str((tmp_path / "swebench").resolve())
        fake.add("left", {LABEL: f"{mine}/candidate/pallets__flask-1"})
        fake.add("of another", {LABEL: f"{mine}2/candidate/pallets__flask-1"})
        suite(tmp_path, modal=True).begin()
        assert fake.removed == []
        suite(tmp_path).begin()
        assert fake.removed == ["left"]
    suite(tmp_path).begin()  # no engine: every try of an instance will say so


def test_modal_needs_what_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is asked; what mini-swe-agent would look for in vain for each instance is asked for before."""
    monkeypatch.setattr(swebench_agent, "MODAL_MODULES", ("json", "swerex_that_is_not_there"))
    with pytest.raises(BadInput, match=r"swerex_that_is_not_there, which is not .*: pip install -e '.\[modal\]'"):
        suite(tmp_path, modal=True).require()
    monkeypatch.setattr(swebench_agent, "MODAL_MODULES", ("json",))
    suite(tmp_path, modal=True).require()


@pytest.fixture(autouse=True)
def no_engine_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    yield
