"""The run folder: sealed, whole or absent, and refused with one clear line when somebody changed it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.contract.errors import BadInput, RunFailed
from harness.contract.model_facts import ModelFacts
from harness.contract.policy import SealedPolicy, load_policy, parse_policy
from harness.contract.samples import Item, Sample, sha256_of
from harness.judging.verdict import Verdict
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest, Stage

POLICY = """\
name: test  # ü 日本
suites: {cot: {tasks: {word_problems: {limit: 4}}}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""
SEALED = parse_policy(POLICY)


def manifest(sealed: SealedPolicy = SEALED, **more: Any) -> Manifest:
    return Manifest(
        run_id="r1",
        created="2026-01-01T00:00:00+00:00",
        quantgate_version="0.1.0",
        command=["quantgate", "gate"],
        policy_name=sealed.policy.name,
        policy_sha256=sealed.sha256,
        **more,
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "r1")
    folder.create(manifest(), SEALED)
    return folder


def items(count: int = 3) -> list[Item]:
    messages = [[{"role": "user", "content": f"{i} \u2028 日本 \r\n"}] for i in range(count)]
    return [
        Item(task="t", item=f"{i}", prompt=m, prompt_sha256=sha256_of(m), target=["a"], data={"x": [1.5, None]})
        for i, m in enumerate(messages)
    ]


def test_the_policy_is_sealed_by_its_bytes(run: RunFolder) -> None:
    stored = (run.path / "policy.yaml").read_bytes()
    assert stored == POLICY.encode("utf-8")
    assert run.sealed_policy() == SEALED
    assert run.manifest().policy_sha256 == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_seal_holds_whatever_the_line_ends_are(tmp_path: Path, ending: str) -> None:
    source = tmp_path / "mine.yaml"
    source.write_bytes(POLICY.replace("\n", ending).encode("utf-8"))
    sealed = load_policy(source)
    folder = RunFolder(tmp_path / "r2")
    folder.create(manifest(sealed), sealed)
    assert (folder.path / "policy.yaml").read_bytes() == source.read_bytes()
    assert folder.sealed_policy() == sealed


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.replace(b"0.01", b"0.50"),
        lambda t: t + b"\n",
        lambda t: t.replace(b"\n", b"\r\n"),
        lambda t: t + b"# \xff\n",
    ],
)
def test_an_edited_policy_is_refused(run: RunFolder, edit: Any) -> None:
    path = run.path / "policy.yaml"
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(BadInput, match="edited after the run began"):
        run.sealed_policy()


def test_a_folder_that_holds_a_run_is_not_begun_again(run: RunFolder) -> None:
    before = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()}
    with pytest.raises(BadInput, match="already holds a run; add --resume"):
        run.create(manifest(), SEALED)
    assert {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()} == before


def test_a_folder_that_cannot_be_written_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(RunFailed, match="cannot be written"):
        RunFolder(tmp_path / "file" / "r1").create(manifest(), SEALED)


def test_what_is_no_run_folder_is_bad_input(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for read in (folder.sealed_policy, folder.manifest, folder.verdict, lambda: folder.items("cot")):
        with pytest.raises(BadInput, match="No such file"):
            read()
    assert list(folder.samples()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"run_id": 7}', "\x00", '{"run_id": "r1", "colour": "red"}', "null"]
)
def test_a_broken_manifest_is_named(run: RunFolder, text: str) -> None:
    run.manifest_path.write_text(text, "utf-8")
    with pytest.raises(BadInput, match=r"manifest\.json: "):
        run.manifest()
    with pytest.raises(BadInput):
        run.sealed_policy()


def test_a_manifest_keeps_all_it_was_given(run: RunFolder) -> None:
    full = manifest(
        models={"reference": ModelFacts(name="m", path="/m", sha256="aa", bytes=5, parameters=3, bits_per_weight=16.0)},
        hardware={"cpus": [0, 1]},
        planned={"cot/gsm8k": 7},
        stages=[Stage(name="cot", seconds=1.5)],
    )
    run.write_manifest(full)
    assert run.manifest() == full
    assert json.loads(run.manifest_path.read_text("utf-8"))["schema_version"] == 1  # a public format


def test_a_verdict_is_read_back(run: RunFolder) -> None:
    verdict = Verdict(
        verdict="PASS", reason="ok", policy_name="p", policy_sha256="a", sealed_policy_sha256="b", checks=[]
    )
    run.write_verdict(verdict)
    assert run.verdict() == verdict and run.verdict().after_the_fact


def test_items_are_those_that_were_stored_byte_for_byte(run: RunFolder) -> None:
    digest = run.write_items("cot", items())
    assert digest == hashlib.sha256(run.items_path("cot").read_bytes()).hexdigest()
    run.write_manifest(manifest(items_sha256={"cot": digest}))
    stored = run.items("cot")
    assert [run.load("cot", ref) for ref in stored] == items()
    assert [ref.pair("cot") for ref in stored] == [("cot", i.task, i.item, i.repeat) for i in items()]
    path = run.items_path("cot")
    path.write_bytes(path.read_bytes().replace(b'["a"]', b'["b"]'))
    with pytest.raises(BadInput, match="not the file that the manifest names"):
        run.items("cot")
    with pytest.raises(BadInput, match="was changed while it was read"):
        run.load("cot", stored[0]._replace(offset=3))


def test_samples_are_read_suite_by_suite(run: RunFolder) -> None:
    for suite in ("ruler", "cot"):
        log = run.log(suite)
        for i in range(2):
            log.append(Sample(suite=suite, task="t", item=str(i), role="candidate", prompt_sha256="a"))
        log.close()
    assert [(s.suite, s.item) for s in run.samples()] == [("cot", "0"), ("cot", "1"), ("ruler", "0"), ("ruler", "1")]


HOLD = """
import sys
from pathlib import Path
from harness.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_only_one_process_works_on_a_run_and_the_lock_ends_with_it(run: RunFolder) -> None:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        with pytest.raises(RunFailed, match="being worked on by another quantgate"), run.lock():
            pass
        other.kill()
        other.wait()
        with run.lock():
            pass
    with run.lock():
        pass
