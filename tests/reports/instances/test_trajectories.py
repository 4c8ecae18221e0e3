"""Trajectories and the pages of instances: what is stored is shown, and nothing hostile gets out of its place."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instance_runs import change, instance_run, place, store_samples, store_trajectory
from report_page import Page

from benchmarks.trajectories import patch, trajectory, write_instance
from harness.contract.errors import BadInput
from harness.runs.folder import RunFolder
from reports.instances.pages import NAME, write_pages
from reports.instances.sides import TESTS, diff_lines, inside, read_side
from reports.instances.trajectories import (
    FILE_LIMIT,
    FIRST_STEPS,
    LAST_STEPS,
    OUTPUT_LIMIT,
    Trajectory,
    read_trajectory,
)
from reports.render import render

HOSTILE = "</pre><script>owned()</script><img src=x onerror=owned()> \x00\x1b[31m \u202egnp.exe \ud800 {{7*7}} \u2028 &"
ONE = "django__django-1"


@pytest.fixture(scope="module", params=["backticks", "tool_calls"])
def of_the_agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """A trajectory that mini-swe-agent itself has saved, in each of its formats."""
    folder = tmp_path_factory.mktemp("agent")
    environment = os.environ | {"MSWEA_SILENT_STARTUP": "1", "MSWEA_GLOBAL_CONFIG_DIR": str(folder)}
    script = Path(__file__).with_name("real_agent.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, env=environment, cwd=folder)
    return read_trajectory(folder / f"{request.param}.traj.json")


def read(tmp_path: Path, data: Any) -> Trajectory:
    path = tmp_path / "made.traj.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return read_trajectory(path)


def step(command: str, output: str, **extra: object) -> list[dict[str, Any]]:
    """Two messages: an answer with one command, and what it printed."""
    return [
        {"role": "assistant", "content": "thought", "extra": {"actions": [{"command": command}]}},
        {"role": "user", "content": "seen", "extra": {"raw_output": output, "returncode": 0, **extra}},
    ]


def one_page(folder: RunFolder, name: str = ONE) -> str:
    """The page of an instance, as it was written."""
    write_pages(folder, [name])
    return (folder.report_path / "swebench" / f"{name}.html").read_text("utf-8")


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_trajectory_of_the_agent_itself(of_the_agent: Trajectory) -> None:
    found = of_the_agent
    assert "x is a, not b" in found.task and "You have a shell" not in found.task
    assert (found.count, found.exit_status, found.problem) == (4, "Submitted", "")
    look, nothing, fails, last = found.steps
    assert [s.number for s in found.steps] == [1, 2, 3, 4]
    assert [s.thought for s in found.steps] == ["I look around.", "No command from me.", "It fails.", "Done."]
    assert {s.reasoning for s in found.steps} == {"Let me think."}
    (call,) = look.calls
    assert (call.command, call.status, call.length) == ("seq 1 2000", "0", 8893)
    assert call.output and call.output.startswith("1\n2\n") and call.output.endswith("\n2000\n") and not call.short
    assert f"[… {8893 - OUTPUT_LIMIT:,} characters left out …]" in call.output
    assert nothing.refused and nothing.finish_reason == "length" and not nothing.calls
    assert re.search("No tool calls found|Expected exactly 1 action", nothing.notices[0])
    assert [(c.command, c.output, c.status, c.short) for c in fails.calls] == [
        ("echo broken; exit 3", "broken\n", "3", True)
    ]
    assert last.calls[0].command.startswith("echo COMPLETE_TASK") and last.calls[0].output is None
    assert not any(s.notices for s in (look, fails, last))


def test_outputs_find_their_commands_by_id(tmp_path: Path) -> None:
    actions = [{"command": c, "tool_call_id": f"id-{c}"} for c in ("first", "second", "third")]
    outputs = [
        {"role": "tool", "tool_call_id": f"id-{c}", "extra": {"raw_output": f"of {c}", "returncode": n}}
        for n, c in enumerate(("third", "first"))
    ]
    messages = [{"role": "assistant", "content": None, "extra": {"actions": actions}}, *outputs]
    (found,) = read(tmp_path, {"messages": messages}).steps
    assert [(c.command, c.output, c.status) for c in found.calls] == [
        ("first", "of first", "1"),
        ("second", None, ""),
        ("third", "of third", "0"),
    ]


def test_a_command_that_ran_out_of_time_says_so(tmp_path: Path) -> None:
    messages = step("sleep 99", "", returncode=-1, exception_info="timed out after 60 s")
    (call,) = read(tmp_path, {"messages": messages}).steps[0].calls
    assert (call.problem, call.status, call.output) == ("timed out after 60 s", "-1", "")


def test_an_exception_that_ended_it_is_shown(tmp_path: Path) -> None:
    info = {"exit_status": "RuntimeError", "exception_str": "no container"}
    found = read(tmp_path, {"messages": [], "info": info})
    assert (found.count, found.exit_status, found.problem) == (0, "RuntimeError", "no container")


def test_long_trajectories_and_texts_are_cut_and_say_by_how_much(tmp_path: Path) -> None:
    messages = [m for n in range(1000) for m in step(f"c{n}", "x" * 100_000 if n == 5 else "")]
    messages[0]["extra"]["actions"] = [{"command": str(n)} for n in range(50)]
    found = read(tmp_path, {"messages": messages})
    assert found.count == 1000 and len(found.steps) == FIRST_STEPS + LAST_STEPS
    assert found.steps[FIRST_STEPS].left_out_before == 700 and found.steps[FIRST_STEPS].number == 901
    assert sum(s.left_out_before for s in found.steps) == 700
    assert (len(found.steps[0].calls), found.steps[0].calls_left_out) == (10, 40)
    assert found.steps[5].calls[0].length == 100_000
    assert len(found.steps[5].calls[0].output or "") < OUTPUT_LIMIT + 60


@pytest.mark.parametrize("text", ["", "{", '{"messages": [{"role":', "[1]", '{"messages": 3}', "[" * 100_000, "\x00"])
def test_what_is_no_trajectory_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"^made\.traj\.json [^\n]+$"):
        read(tmp_path, text)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.traj.json"
    with path.open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    with pytest.raises(BadInput, match=r"big\.traj\.json has 64 MiB, more than the 64 that are read"):
        read_trajectory(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    *(
        "role",
        "content",
        "extra",
        "actions",
        "tool_calls",
        "response",
        "choices",
        "message",
        "command",
        "finish_reason",
    ),
    *("interrupt_type", "raw_output", "returncode", "tool_call_id", "exception_info", "function", "text"),
)
ODD = st.recursive(
    JSON | st.sampled_from(["assistant", "tool", "user", "exit", "FormatError"]),
    lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(messages=st.lists(ODD, max_size=6), info=ODD)
@settings(max_examples=300, deadline=None)
def test_no_json_makes_reading_fail(tmp_path_factory: pytest.TempPathFactory, messages: list[Any], info: Any) -> None:
    found = read(tmp_path_factory.getbasetemp(), {"messages": messages, "info": info})
    for one in found.steps:
        assert isinstance(one.thought, str) and all(isinstance(c.command, str) for c in one.calls)


# -- pages ------------------------------------------------------------------------------------------------------------


def test_a_page_has_both_roles_patches_tests_and_steps(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "unresolved")})
    made = change(folder, "candidate", ONE, cut_steps=3, failures=["image could not be pulled"])
    page = Page(one_page(folder))
    assert "Resolved by the reference alone." in page.words
    for said in ("Outcome resolved unresolved", "Exit status Submitted Submitted", "Answers cut by their budget 0 3"):
        assert said in page.words
    assert "Infrastructure failures – image could not be pulled" in page.words
    assert "Patch +8 −8 lines +8 −8 lines" in page.words
    assert " ".join(made.patch.split()) in page.words
    assert "FAIL_TO_PASS: 0 of 3 failed PASS_TO_PASS: 0 of 200 failed" in page.words
    assert "FAIL_TO_PASS: 3 of 3 failed test_0 passes for the other role" in page.words
    steps = [tag for tag in page.all("li") if tag.get("class") == "step"]
    results = [read_side(folder.path, role, ONE).result for role in ("reference", "candidate")]
    assert len(steps) == sum(result.steps for result in results if result)
    columns = [tag["id"] for tag in page.all("div") if str(tag.get("id", "")).startswith("steps-")]
    assert columns == ["steps-reference", "steps-candidate"]
    assert "sed -n '1,81p' pkg/core.py" in page.words and "ended as Submitted" in page.words
    assert "34 kB left out" in page.words  # of the 40 that the tests printed
    kinds = {str(span.get("class")) for span in page.all("span")}
    assert {"d-head", "d-hunk", "d-add", "d-del"} <= kinds


def test_no_request_and_no_script_leave_the_page(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    page = Page(one_page(folder))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'; style-src 'sha256-") and "script-src" not in policy
    assert not page.all("script") and len(page.raw["style"]) == 1
    for tag, attributes in page.elements:
        assert "style" not in attributes and not [name for name in attributes if name.startswith("on")]
        target = attributes.get("href") or "#"
        assert "src" not in attributes and (target[0] == "#" or target in ("data:,", "../index.html#suites")), tag


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    folder, rng = instance_run(tmp_path / "run", {ONE: ("unresolved", "unresolved")})
    made = trajectory(rng, ONE, patch(rng), HOSTILE)
    messages = [
        *step(HOSTILE, HOSTILE, exception_info=HOSTILE, returncode=HOSTILE),
        {"role": "user", "content": HOSTILE},
    ]
    refused = {"role": "user", "content": HOSTILE, "extra": {"interrupt_type": "FormatError", "response": HOSTILE}}
    store_trajectory(
        folder, "candidate", ONE, made | {"messages": [{"role": "user", "content": HOSTILE}, *messages, refused]}
    )
    plain = HOSTILE.replace("\ud800", "")  # result.json is UTF-8
    listed = {"FAIL_TO_PASS": {"success": [], "failure": [plain]}, plain: {"success": [], "failure": [plain]}}
    fields = {"exit_status": plain, "image": plain, "failures": [plain], "tests": listed, "agent_version": plain}
    change(folder, "candidate", ONE, patch=f"--- a\n+++ b\n@@ @@\n-{plain}\n+{plain}\n {plain}\n", **fields)
    (place(folder, "candidate", ONE) / "grading" / "test_output.txt").write_bytes(b"\xff\xfe" + plain.encode())
    store_samples(folder)
    index = render(folder.path)
    for text in (one_page(folder), index.read_text("utf-8")):
        page = Page(text)
        assert not page.all("img") and not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", text)
        assert "onerror=owned()>" in page.words and "⟨U+202E⟩gnp.exe" in page.words
    page = Page(one_page(folder))
    assert not page.all("script") and page.words.count("<script>owned()</script>") >= 12
    assert "␀␛[31m ⟨U+202E⟩gnp.exe ⟨U+D800⟩ {{7*7}} ⟨U+2028⟩ &" in page.words


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.unlink(), "candidate: No trajectory: agent/django__django-1/django__django-1.traj.json is not in"),
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "traj.json is not JSON, or was cut off"),
        (lambda p: p.write_bytes(b"\xff\x00"), "traj.json is not JSON, or was cut off"),
        (lambda p: (p.unlink(), p.mkdir()), "candidate: No trajectory: agent/"),
        (lambda p: (p.unlink(), p.symlink_to("/etc/passwd")), "candidate: No trajectory: agent/"),
        (lambda p: (p.unlink(), p.symlink_to(p.name)), "candidate: No trajectory: agent/"),
    ],
)
def test_a_trajectory_that_cannot_be_read_is_named(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    damage(place(folder, "candidate", ONE) / "agent" / ONE / f"{ONE}.traj.json")
    page = Page(one_page(folder))
    assert said in page.words and "No trajectory can be shown." in page.words
    assert "Resolved by both roles." in page.words and ":0:0:" not in page.words
    assert [t for t in page.all("li") if t.get("class") == "step"]  # the reference's


def test_a_role_without_anything_and_one_without_a_result(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", None)})
    words = Page(one_page(folder)).words
    assert "candidate: The run folder holds nothing of this role." in words
    assert "Not graded for both roles, so it does not count." in words
    (place(folder, "reference", ONE) / "result.json").unlink()
    words = Page(one_page(folder)).words
    assert "reference: No result: result.json: No such file or directory." in words
    assert "ended as Submitted" in words and "Neither role has a result." in words  # what the agent left is shown


def test_a_result_of_another_instance_is_not_taken(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    change(folder, "candidate", ONE, instance_id="other__other-1")
    side = read_side(folder.path, "candidate", ONE)
    assert side.result is None
    assert side.missing[0] == "No result: result.json is that of candidate other__other-1."


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../secret.txt", "agent/../../../../secret.txt", "\x00", "", "agent"]
)
def test_paths_in_a_result_do_not_lead_out_of_its_folder(tmp_path: Path, path: str) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    (folder.path / "secret.txt").write_text("very secret")
    change(folder, "candidate", ONE, trajectory=path or None, test_output=path or None)
    words = Page(one_page(folder)).words
    assert "very secret" not in words and ":0:0:" not in words
    side = read_side(folder.path, "candidate", ONE)
    assert side.trajectory is None and side.test_output is None and side.missing


def test_a_folder_that_leads_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    real = place(folder, "candidate", ONE)
    real.rename(tmp_path / "elsewhere")
    real.symlink_to(tmp_path / "elsewhere")
    assert inside(folder.path / "swebench", f"candidate/{ONE}") is None
    assert read_side(folder.path, "candidate", ONE).missing == ["The run folder holds nothing of this role."]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "a b", "a\x00", "é", "", "a\n", "x" * 201])
def test_names_that_are_no_file_names_have_no_page(tmp_path: Path, name: str) -> None:
    assert not NAME.fullmatch(name)
    folder, rng = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    if not re.search("[/\x00]|^[.]*$", name) and len(name) < 200:  # it can be there all the same
        write_instance(folder.path, "candidate", name, rng, "resolved")
    before = sorted(tmp_path.rglob("*"))
    assert write_pages(folder, [name]).links == {}
    assert sorted(tmp_path.rglob("*")) == before


def test_pages_of_instances_that_are_gone_are_removed_and_rendering_again_gives_the_same(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved"), "b__b-1": ("resolved", None)})
    store_samples(folder)
    first = render(folder.path).read_bytes()
    pages = {page.name: page.read_bytes() for page in (folder.report_path / "swebench").iterdir()}
    assert set(pages) == {f"{ONE}.html", "b__b-1.html"}
    stale = folder.report_path / "swebench" / "old__old-1.html"
    stale.write_text("old")
    assert render(folder.path).read_bytes() == first and not stale.exists()
    assert {page.name: page.read_bytes() for page in (folder.report_path / "swebench").iterdir()} == pages


def test_failed_tests_are_cut_and_those_of_one_role_come_first(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "unresolved")})
    names = [f"t{n:03d}" for n in range(TESTS + 20)]
    change(folder, "reference", ONE, tests={"FAIL_TO_PASS": {"success": ["t069"], "failure": names[:-1]}})
    change(folder, "candidate", ONE, tests={"FAIL_TO_PASS": {"success": [], "failure": names}})
    words = Page(one_page(folder)).words
    assert "FAIL_TO_PASS: 70 of 70 failed t069 passes for the other role t000 t001" in words
    assert words.count("t048") == 2 and "t049 20 more" not in words and "20 more are left out here." in words


def test_a_diff_is_told_apart_by_lines_and_cut() -> None:
    lines = diff_lines("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n same\n-old\n-older\n+new\n\n")
    assert [(kind, text.count("\n")) for kind, text in lines] == [
        ("head", 3),
        ("hunk", 1),
        ("same", 1),
        ("del", 2),
        ("add", 1),
        ("same", 1),
    ]
    assert diff_lines("") == []
    assert sum(len(text) for _, text in diff_lines("+" + "x" * 10_000_000)) < 2500
    assert 60_000 < sum(len(text) for _, text in diff_lines("+x\n" * 1_000_000)) < 61_000


def test_huge_outputs_cost_neither_page_nor_time(tmp_path: Path) -> None:
    folder, _ = instance_run(tmp_path / "run", {ONE: ("resolved", "resolved")})
    huge = "\x1b[31m<b>" * 1_400_000
    store_trajectory(folder, "candidate", ONE, {"messages": step("cat big", huge) * 3})
    with (place(folder, "candidate", ONE) / "grading" / "test_output.txt").open("w") as file:
        file.writelines(huge for _ in range(3))
    start = time.process_time()
    text = one_page(folder)
    assert time.process_time() - start < 5
    assert len(text) < 1_000_000 and "Output, 11,200,000 characters" in Page(text).words


def test_memory_stays_flat_over_many_instances(tmp_path: Path) -> None:
    names = [f"a__a-{n}" for n in range(12)]
    folder, _ = instance_run(tmp_path / "run", dict.fromkeys(names, ("resolved", "unresolved")))

    def peak(of: list[str]) -> int:
        tracemalloc.start()
        write_pages(folder, of)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(names[:1])  # what is loaded once
    assert peak(names) < 1.5 * max(peak([name]) for name in names)


def test_made_up_trajectories_are_like_real_ones(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(4):
        made = trajectory(rng, ONE, patch(rng))
        found = read(tmp_path, made)
        assert 30 <= found.count == made["info"]["model_stats"]["api_calls"] <= 60
        assert all(len(s.calls) == 1 and not s.notices and not s.refused for s in found.steps)
        assert all(s.calls[0].output for s in found.steps[:-1]) and found.steps[-1].calls[0].output is None
        assert not any("mswea_bash_command" in s.thought for s in found.steps)
