"""SWE-bench: an agent mends real bugs in a container, and the repository's own tests say whether it did.

mini-swe-agent solves, swebench grades (official code, both as subprocesses); here is only what a gate adds: the
policy's sampling, both roles over the same instances in the sealed order, what each instance ended as, and resuming.
Reported like everything else by pairs: `resolved` and `accuracy` are the score, 1 or 0.

Metrics of a sample are those of harness.runs.instances.sample_of_result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pydantic import Field

from harness.contract.chat import Tokenizer
from harness.contract.datasets import SWEBENCH
from harness.contract.errors import BadInput
from harness.contract.names import file_in
from harness.contract.samples import Item, Role, Sample
from harness.contract.settings import STEP_LIMIT, Sampling, Serving
from harness.endpoint.answers import EndpointError
from harness.endpoint.client import Endpoint
from harness.runs.instances import BROKEN, InstanceResult, read_result, sample_of_result, write_result
from harness.serving.containers import (
    ContainerLimits,
    EngineError,
    cleanup_command,
    cli,
    image_digest,
    remove_leftovers,
    require_engine,
    run_arguments,
)
from harness.serving.guard import end_leftovers
from suites.base import AnswerConfig, Suite, make_item
from suites.swebench.agent import (
    AgentSettings,
    Format,
    require_agent,
    require_modal,
    solve,
)
from suites.swebench.confined import confined_arguments
from suites.swebench.data import load_rows
from suites.swebench.grading import Grade, grade, require_grader
from suites.swebench.trajectory import AgentRun, InfrastructureError, trajectory_path

TASK = "instances"
PROMPT_TOKENS = 4096
"""Room for the task and a few steps: with less than this beside an answer no agent gets anywhere."""
TIMEOUTS = 2
"""Tests that took too long so often, of one patch, are the patch's fault; once may be a busy machine's."""


class SwebenchConfig(AnswerConfig):
    """`swebench` in a policy."""

    dataset: str = SWEBENCH.hub_id
    """A data set of the hub, or a .jsonl file, with the columns of swebench 5."""
    split: str = SWEBENCH.split
    instances: tuple[str, ...] = ()
    """Only these; all when empty."""
    workers: int = Field(4, ge=1)
    """Instances of each role at the same time; each is one container and a few hundred MB besides."""
    format: Format = "tool_calls"
    """How the model writes commands: calls of a tool (needs serving.tool_call_parser), or text between backticks."""
    step_limit: int = Field(STEP_LIMIT, ge=1)
    """Answers in one trajectory."""
    agent_seconds: int = Field(7200, ge=60)
    """Of one trajectory."""
    command_seconds: int = Field(60, ge=1)
    """Of one command."""
    grading_seconds: int = Field(1800, ge=1)
    """Of the tests of one patch."""
    pull_seconds: int = Field(1800, ge=1)
    """Of pulling an image and starting a container."""
    retries: int = Field(2, ge=0)
    """Further tries after a failure of the infrastructure."""
    containers: ContainerLimits = ContainerLimits()
    """What a container may use; no network unless asked for."""
    modal: bool = False
    """Containers at Modal, for machines that can run no engine (`swebench --modal`); no limits of ours apply there."""

    def lacking(self, serving: Serving) -> str:
        if self.format == "tool_calls" and not serving.tool_call_parser:
            parsers = "serving.tool_call_parser (hermes, glm45, ...)"
            return f"has format: tool_calls, which needs {parsers}; backticks needs none"
        return ""


class Swebench(Suite):
    """The suite."""

    name = "swebench"

    def __init__(self, config: SwebenchConfig, sampling: Sampling, folder: Path) -> None:
        self._config = config
        self._folder = folder.resolve()
        self._max_tokens = config.max_tokens or sampling.max_tokens
        self.at_once = config.workers

    @property
    def context_needed(self) -> int:
        return self._max_tokens + PROMPT_TOKENS

    def require(self) -> None:
        """Raises BadInput: agent, grader, container engine or what reaches Modal is not here."""
        require_agent()
        require_grader()
        if self._config.modal:
            require_modal()
        else:
            require_engine(self._config.containers)
            cli()

    def begin(self) -> None:
        """End what a killed run left behind: processes by their state files, containers by their label.

        By label alone, since what a killed process had not yet written down is in no state file.
        """
        for state in self._folder.glob("*/*/*/*.state.json"):
            end_leftovers(state)
        if not self._config.modal:
            with suppress(EngineError):  # every try of an instance says so again
                remove_leftovers(str(self._folder))

    def items(self, tokenizer: Tokenizer | None) -> Iterator[Item]:
        """One item an instance: its problem is the prompt, and all that grading needs is beside it.

        Raises:
            BadInput: no data, rows of an older schema, or an instance that is asked for and not there.
        """
        wanted, made = set(self._config.instances), 0
        for row in load_rows(self._config.dataset, self._config.split):
            if self._config.instances and row.instance_id not in wanted:
                continue
            wanted.discard(row.instance_id)
            data = row.model_dump(exclude={"problem_statement"})
            yield make_item(TASK, row.instance_id, [{"role": "user", "content": row.problem_statement}], row=data)
            made += 1
            if made == self._config.limit:
                return
        if wanted:
            raise BadInput(f"suite swebench: {self._config.dataset} has no instance {min(wanted)}")

    async def answer(self, item: Item, role: Role, endpoint: Endpoint) -> Sample:
        """Solve and grade one instance; failures of the infrastructure are tried again, then kept as what they are.

        What an earlier, killed run finished of it is used: a result, or a trajectory that is still to be graded.
        """
        folder = file_in(self._folder / role, item.item)
        result = _finished(folder)
        if result is None:
            result = await self._run(item, role, endpoint, folder)
            write_result(folder, result)
        return sample_of_result(item, role, result)

    async def _run(self, item: Item, role: Role, endpoint: Endpoint, folder: Path) -> InstanceResult:
        """One result, of as many tries as the policy allows. Raises EndpointError: the server failed."""
        failures: list[str] = []
        agent_run, graded, timeouts, seconds = AgentRun("none"), Grade(BROKEN), 0, 0.0
        while timeouts < TIMEOUTS:  # tests that took too long have a further try that is not counted as a retry
            try:
                agent_run = await self._solve(item, endpoint, folder)
                start = time.monotonic()
                graded = await self._grade(item, role, folder, agent_run.patch)
                seconds = time.monotonic() - start
            except InfrastructureError as error:
                failures.append(str(error)[:300])
                if len(failures) > self._config.retries:
                    graded = Grade(BROKEN)  # whatever an earlier try took too long for
                    break
                continue
            if not graded.timed_out:
                break
            timeouts += 1
        return InstanceResult(
            instance_id=item.item,
            role=role,
            outcome=graded.outcome,
            exit_status=agent_run.exit_status,
            patch=agent_run.patch,
            steps=agent_run.steps,
            prompt_tokens=agent_run.prompt_tokens,
            completion_tokens=agent_run.completion_tokens,
            cut_steps=agent_run.cut_steps,
            format_errors=agent_run.format_errors,
            agent_seconds=agent_run.seconds,
            grading_seconds=round(seconds, 3),
            tests_timed_out=graded.timed_out,
            image=item.data["row"]["image"],
            image_digest=None if self._config.modal else _digest(item.data["row"]["image"]),
            agent_version=metadata.version("mini-swe-agent"),
            grader_version=metadata.version("swebench"),
            failures=failures,
            trajectory=_inside(folder, trajectory_path(folder / "agent", item.item)),
            test_output=_inside(folder, graded.test_output),
            tests=graded.tests,
        )

    async def _solve(self, item: Item, endpoint: Endpoint, folder: Path) -> AgentRun:
        config, label, confined = self._config, str(folder), not self._config.modal
        settings = AgentSettings(
            format=config.format,
            max_tokens=self._max_tokens,
            step_limit=config.step_limit,
            seconds=config.agent_seconds,
            command_seconds=config.command_seconds,
            pull_seconds=config.pull_seconds,
            executable=cli() if confined else "",
            run_arguments=run_arguments(config.containers, label) if confined else (),
        )
        problem, image = item.prompt[0]["content"], item.data["row"]["image"]
        try:
            return await solve(folder / "agent", item.item, problem, image, endpoint, settings, self._cleanup(label))
        except (InfrastructureError, EndpointError):
            _set_aside(folder / "agent")
            raise

    async def _grade(self, item: Item, role: Role, folder: Path, patch: str) -> Grade:
        config, label, row = self._config, str(folder), {"problem_statement": "", **item.data["row"]}
        confined = () if config.modal else confined_arguments(config.containers, label)
        try:
            return await grade(
                folder / "grading", row, patch, role, config.grading_seconds, confined, self._cleanup(label)
            )
        except InfrastructureError:
            _set_aside(folder / "grading")
            raise

    def _cleanup(self, label: str) -> list[str]:
        """Command that removes the containers of one instance of one role."""
        return [] if self._config.modal else cleanup_command(label)


def _finished(folder: Path) -> InstanceResult | None:
    """The result that an earlier run of this gate left; an infrastructure error is no result to keep."""
    try:
        result = read_result(folder)
    except BadInput:
        return None
    return None if result.outcome == BROKEN else result


def _digest(image: str) -> str | None:
    try:
        return image_digest(image)
    except EngineError:
        return None


def _set_aside(folder: Path) -> None:
    """Keep the folder of a failed try under another name."""
    if folder.exists():
        number = 1
        while (other := folder.with_name(f"{folder.name}.failed-{number}")).exists():
            number += 1
        folder.rename(other)


def _inside(folder: Path, path: Path | None) -> str | None:
    return str(path.relative_to(folder)) if path is not None and path.exists() else None
