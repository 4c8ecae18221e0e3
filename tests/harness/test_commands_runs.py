"""The commands on a stored run: judged again, reported, its card, its place in a history."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import POLICY, Quantgate, last_line

from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES, Item, Sample
from harness.gate import pipeline as gate
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest

# -- judging again -------------------------------------------------------------------------------------------


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    """Store a run with so many pairs; pages are not rendered here."""
    monkeypatch.setattr(gate, "render_run", lambda run, *_: run.report_path / "index.html")

    def make(both: int, lost: int = 0) -> RunFolder:
        folder, sealed = RunFolder(tmp_path / "run"), parse_policy(POLICY)
        facts: dict[str, Any] = {"run_id": "r", "created": "c", "quantgate_version": "0", "command": []}
        manifest = Manifest(**facts, policy_name="test", policy_sha256=sealed.sha256)
        folder.create(manifest, sealed)
        items = [Item(task="word_problems", item=str(i), prompt=[], prompt_sha256="a") for i in range(both + lost)]
        manifest.items_sha256["cot"] = folder.write_items("cot", items)
        folder.write_manifest(manifest)
        log = folder.log("cot")
        for i in range(both + lost):
            for role in ROLES:
                score = float(role == "reference" or i < both)
                fields: dict[str, Any] = {"suite": "cot", "task": "word_problems", "item": str(i), "role": role}
                log.append(Sample(**fields, prompt_sha256="a", score=score))
        log.close()
        return folder

    return make


@pytest.mark.parametrize(
    ("both", "lost", "status", "word"), [(400, 0, 0, "PASS"), (0, 40, 1, "FAIL"), (10, 0, 2, "INCONCLUSIVE")]
)
def test_judging_again_ends_with_the_verdict(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], both: int, lost: int, status: int, word: str
) -> None:
    run = make_run(both, lost)
    ended = quantgate("judge", run.path)
    assert ended.status == status and ended.err == ""
    assert f"{word}: " in ended.out and "cot/word_problems" in ended.out and "index.html" in ended.out
    assert run.verdict().verdict == word and not run.verdict().after_the_fact


def test_judging_with_another_policy_is_marked_as_after_the_fact(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = make_run(10)
    (tmp_path / "lax.yaml").write_text(POLICY.replace("0.01", "0.9"), "utf-8")
    ended = quantgate("judge", run.path, "--policy", "lax.yaml")
    assert ended.status == 0 and "after the fact" in ended.out
    assert run.verdict().after_the_fact
    assert quantgate("judge", run.path).status == 2  # the sealed policy is still the sealed one


def test_a_run_whose_policy_was_edited_is_not_judged(quantgate: Quantgate, make_run: Callable[..., RunFolder]) -> None:
    run = make_run(10)
    policy = run.path / "policy.yaml"
    policy.write_text(policy.read_text("utf-8").replace("0.01", "0.9"), "utf-8")
    ended = quantgate("judge", run.path)
    assert ended.status == 3 and "edited after the run began" in last_line(ended)


def test_a_run_with_a_broken_sample_is_not_judged(quantgate: Quantgate, make_run: Callable[..., RunFolder]) -> None:
    run = make_run(3)
    path = run.samples_path("cot")
    path.write_text(path.read_text("utf-8").replace('"score":1.0', '"score":7.0', 1), "utf-8")
    ended = quantgate("judge", run.path)
    assert ended.status == 3 and "cot.jsonl:1: not a sample (score" in last_line(ended)


# -- stored runs ---------------------------------------------------------------------------------------------


def test_a_report_is_asked_for_with_or_without_files_beside_it(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(gate, "render_run", lambda run, single_file: asked.append(single_file))
    run = make_run(1)
    assert [quantgate("report", run.path, *more).status for more in ([], ["--single-file"])] == [0, 0]
    assert asked == [False, True]


def test_a_card_is_printed_or_laid_into_a_file(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = make_run(400)
    quantgate("judge", run.path)
    printed = quantgate("card", run.path)
    assert printed.status == 0 and printed.out.startswith("---\n") and "## Evaluation" in printed.out
    (tmp_path / "README.md").write_text("# Mine\n", "utf-8")
    for said in (f"as it was: {tmp_path / 'README.md.bak'}\n", ""):
        ended = quantgate("card", run.path, "--into", "README.md")
        assert (ended.status, ended.out) == (0, f"{said}README.md\n")
        text = (tmp_path / "README.md").read_text("utf-8")
        assert text.count("## Evaluation") == 1 and "\n# Mine\n" in text
    assert quantgate("card", run.path, "--into", "card.txt").status == 3
    assert quantgate("card", run.path, "--into", "card.txt", "--anyway").status == 0
    refused = quantgate("card", run.path, "--source-url", "file:///etc")
    assert refused.status == 3 and "give the http(s) address" in last_line(refused)


def test_a_history_names_what_is_not_on_it(
    quantgate: Quantgate, make_run: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = make_run(4)
    ended = quantgate("history", run.path)
    assert ended.status == 0 and ended.out.startswith(f"not shown: {tmp_path.name}/run: no verdict")
    quantgate("judge", run.path)
    ended = quantgate("history", tmp_path, "--out", "new/h.html")
    assert (ended.status, ended.out) == (0, "new/h.html\n")
    assert "1 run of 1 model" in (tmp_path / "new" / "h.html").read_text("utf-8")
