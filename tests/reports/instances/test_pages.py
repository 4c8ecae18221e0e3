"""Pages of instances: what is stored is shown, and nothing hostile gets out of its place."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hangs import no_hang
from instance_runs import change, instance_run, place, step, store_samples, store_trajectory
from report_page import Page

from benchmarks.trajectories import patch, trajectory, write_instance
from harness.contract.samples import ROLES
from harness.runs.folder import RunFolder
from reports.instances.pages import NAME, write_pages
from reports.instances.sides import TESTS, diff_lines, inside, read_side
from reports.render import render

HOSTILE = "</pre><script>owned()</script><img src=x onerror=owned()> \x00\x1b[31m \u202egnp.exe \ud800 {{7*7}} \u2028 &"
ONE = "django__django-1"


def one_page(folder: RunFolder, name: str = ONE) -> str:
    """The page of an instance, as it was written."""
    write_pages(folder, [name])
    return (folder.report_path / "swebench" / f"{name}.html").read_text("utf-8")


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
    results = [read_side(folder.path, role, ONE).result for role in ROLES]
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
    with no_hang():
        text = one_page(folder)
    assert len(text) < 1_000_000 and "Output, 11,200,000 characters" in Page(text).words


@pytest.mark.long
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
