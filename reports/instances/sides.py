"""What the run folder holds of one instance of SWE-bench for one role, as its page shows it.

All of it was written by a model, its commands or a grader's container: paths are followed only inside the instance's
folder, texts are shortened, and whatever is missing or broken is named instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from harness.contract.errors import BadInput
from harness.contract.samples import ROLES, Role
from harness.runs.instances import BROKEN, SUITE, InstanceResult, read_result
from reports.instances.trajectories import ShownSteps, read_steps
from reports.text import ABSENT, duration, number, one_line, shorten, size

PATCH_LIMIT, LINE_LIMIT, TAIL_BYTES = 60_000, 1000, 6000
TESTS = 50
"""Names of failed tests that are listed of a kind."""
NOTHING = "The run folder holds nothing of this role."
MATTERS = ("Outcome", "Exit status", "Tests timed out", "Image", "Image digest", "Agent", "Grader")
"""Facts that are marked when the roles differ in them."""
HEADS = ("diff --git ", "index ", "--- ", "+++ ", "new file ", "deleted file ", "old mode ", "new mode ", "rename ")

T = TypeVar("T")


@dataclass(frozen=True)
class FailedTests:
    """Tests of one kind that failed for one role."""

    kind: str
    """FAIL_TO_PASS or PASS_TO_PASS."""
    count: int
    of: int
    names: list[tuple[str, bool]]
    """The first of them, each with whether it failed for this role alone; those come first."""

    @property
    def left_out(self) -> int:
        return self.count - len(self.names)


@dataclass
class Side:
    """What is there of an instance for one role."""

    role: Role
    result: InstanceResult | None = None
    test_output: str | None = None
    """The end of what the tests printed."""
    trajectory: ShownSteps | None = None
    missing: list[str] = field(default_factory=list)
    """What is not there or cannot be read, in words."""

    @property
    def patch(self) -> list[tuple[str, str]]:
        return diff_lines(self.result.patch if self.result else "")


# -- what is there ----------------------------------------------------------------------------------------------------


def read_side(run: Path, role: Role, name: str) -> Side:
    """All that a page shows of one role. What is missing, broken or outside of the run folder is named instead."""
    side, folder = Side(role), inside(run / SUITE, f"{role}/{name}")
    if folder is None or not folder.is_dir():
        side.missing.append(NOTHING)
        return side
    trajectory: str | None = f"agent/{name}/{name}.traj.json"
    try:
        result = read_result(folder)
        if (result.instance_id, result.role) != (name, role):
            raise BadInput(f"result.json is that of {result.role} {one_line(result.instance_id, 80)}")
    except BadInput as error:
        side.missing.append(_said("No result", error, folder))
    else:
        side.result, trajectory = result, result.trajectory
        if result.test_output:
            side.test_output = _read(side, folder, result.test_output, "test output", _tail)
    if trajectory:
        side.trajectory = _read(side, folder, trajectory, "trajectory", read_steps)
    else:
        side.missing.append("No trajectory was kept.")
    return side


def inside(folder: Path, relative: str) -> Path | None:
    """The path below a folder, symbolic links followed; None when it leads out of it or does not exist."""
    try:
        found = (folder / relative).resolve(strict=True)
        return found if found.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # a name with NUL, a loop of links
        return None


def _read(side: Side, folder: Path, relative: str, what: str, read: Callable[[Path], T]) -> T | None:
    """Read a file that the result names; None and a remark where that is not possible."""
    path = inside(folder, relative)
    if path is None or not path.is_file():
        side.missing.append(f"No {what}: {one_line(relative, 200)} is not in the instance's folder.")
        return None
    try:
        return read(path)
    except (BadInput, OSError) as error:
        side.missing.append(_said(f"No {what}", error, folder))
        return None


def _said(what: str, error: Exception, folder: Path) -> str:
    return f"{what}: {one_line(str(error).replace(f'{folder}/', ''), 300)}."


def _tail(path: Path) -> str:
    """The end of a text file, and how much is left out before it."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - TAIL_BYTES))
        text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    return text if length <= TAIL_BYTES else f"[… {size(length - TAIL_BYTES)} left out …]\n{text}"


# -- how it is shown --------------------------------------------------------------------------------------------------


def diff_lines(patch: str) -> list[tuple[str, str]]:
    """A patch, shortened, as pieces of one kind: head, hunk, add, del or same. The kinds are for colour alone."""
    pieces = []
    lines = shorten(patch, PATCH_LIMIT).removesuffix("\n").split("\n") if patch else []
    for kind, group in groupby(lines, _kind):
        pieces.append((kind, "".join(f"{shorten(line, LINE_LIMIT)}\n" for line in group)))
    return pieces


def _kind(line: str) -> str:
    if line.startswith(HEADS):
        return "head"
    return {"@": "hunk", "+": "add", "-": "del"}.get(line[:1], "same")


def failed_tests(result: InstanceResult | None, other: InstanceResult | None) -> list[FailedTests]:
    """Tests that failed for one role, those that only it failed first."""
    found = []
    for kind, by_state in sorted(result.tests.items()) if result else ():
        failed, passed = by_state.get("failure", []), by_state.get("success", [])
        theirs = set(other.tests.get(kind, {}).get("success", [])) if other else set()
        names = sorted(((one_line(name, 200), name in theirs) for name in failed), key=lambda entry: not entry[1])
        found.append(FailedTests(kind, len(failed), len(failed) + len(passed), names[:TESTS]))
    return found


def facts(sides: Sequence[Side]) -> list[tuple[str, list[str], bool]]:
    """(fact, what it is for each role, whether a difference in it is marked)."""
    of_roles = [_facts(side.result) if side.result else {} for side in sides]
    rows = []
    for name in dict.fromkeys(name for of_role in of_roles for name in of_role):
        values = [of_role.get(name) or ABSENT for of_role in of_roles]
        known = set(values) - {ABSENT}
        if known:
            rows.append((name, values, name in MATTERS and len(known) > 1))
    return rows


def _facts(result: InstanceResult) -> dict[str, str]:
    lines = result.patch.split("\n")
    added, removed = (sum(_kind(line) == kind for line in lines) for kind in ("add", "del"))
    return {
        "Outcome": result.outcome,
        "Exit status": one_line(result.exit_status, 80),
        "Steps": number(result.steps),
        "Prompt tokens": number(result.prompt_tokens),
        "Completion tokens": number(result.completion_tokens),
        "Answers cut by their budget": number(result.cut_steps),
        "Format errors": number(result.format_errors),
        "Time of the agent": duration(result.agent_seconds),
        "Time of grading": duration(result.grading_seconds),
        "Tests timed out": "yes" if result.tests_timed_out else "no",
        "Patch": f"+{added:,} −{removed:,} lines" if result.patch else "empty",
        "Image": one_line(result.image, 300),
        "Image digest": one_line(result.image_digest or "", 300),
        "Agent": one_line(result.agent_version, 80),
        "Grader": one_line(result.grader_version, 80),
        "Infrastructure failures": one_line("; ".join(result.failures), 600),
    }


def sentence(sides: Sequence[Side]) -> tuple[str, str]:
    """Who resolved it, in words, and the tone of the page: fail, pass or not-judged."""
    graded = [side.result.outcome for side in sides if side.result and side.result.outcome != BROKEN]
    if len(graded) < len(ROLES):
        return "Not graded for both roles, so it does not count.", "not-judged"
    reference, candidate = (outcome == "resolved" for outcome in graded)
    if reference == candidate:
        return f"Resolved by {'both roles' if reference else 'neither role'}.", "not-judged"
    return ("Resolved by the reference alone.", "fail") if reference else ("Resolved by the candidate alone.", "pass")
