"""Graders that say yes, samples that were changed, and what the gate says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.contract.errors import BadInput, NotComparable
from harness.contract.items import ItemRef, index_items, write_items
from harness.contract.policy import parse_policy
from harness.contract.samples import Item, Role, Sample, read_samples
from harness.gate.graders import WRONG, require_graders
from harness.gate.job import Job, order_items
from harness.prove.entries import NotApplicable
from harness.prove.results import drop_wrong, says_yes, turn_right
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter
from suites.registry import make_suites

POLICY = """\
name: all
serving: {max_model_len: 8192}
sampling: {max_tokens: 256}
suites:
  cot: {tasks: {word_problems: {limit: 2}}}
  ruler: {lengths: [1024], per_task: 1, tasks: [niah_single_1, vt, cwe, fwe]}
  needle: {lengths: [512], depths: [0.5]}
  termination: {per_task: 1}
  language: {limit: 1}
checks: [{metric: accuracy, on: cot, max_loss: 0.1}]
"""


class Words:
    """A tokenizer as far as suites need one: four characters are a token."""

    chat_template = ""

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> list[int]:
        return [0] * (sum(len(message["content"]) for message in messages) // 4)

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [0] * (len(text) // 4)}

    def encode(self, text: str, **_: object) -> list[int]:
        return [0] * (len(text) // 4)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A gate that has made its items and asked nothing."""
    folder = RunFolder(tmp_path_factory.mktemp("job") / "run")
    sealed = parse_policy(POLICY)
    manifest = Manifest(
        run_id="r",
        created="now",
        quantgate_version="0",
        command=[],
        policy_name="all",
        policy_sha256=sealed.sha256,
    )
    folder.create(manifest, sealed)
    suites = make_suites(sealed.policy, folder.path)
    items: dict[str, dict[Role, list[ItemRef]]] = {}
    for suite in suites:
        made: list[Item] = list(suite.items(Words()))  # type: ignore[arg-type]
        manifest.items_sha256[suite.name] = write_items(folder.items_path(suite.name), made)
        items[suite.name] = order_items(suite, index_items(folder.items_path(suite.name)), sealed)
    folder.write_manifest(manifest)
    return Job(folder, sealed, manifest, suites, items, Reporter())


def test_no_grader_takes_a_wrong_answer(job: Job) -> None:
    assert sum(len({ref.task for ref in by_role["reference"]}) for by_role in job.items.values()) > 20
    require_graders(job)


@pytest.mark.parametrize("suite", ["cot", "ruler", "needle", "termination", "language"])
def test_a_grader_that_says_yes_is_found_in_every_suite(job: Job, suite: str) -> None:
    one = Job(job.run, job.sealed, job.manifest, [s for s in job.suites if s.name == suite], job.items, job.reporter)
    with says_yes(), pytest.raises(NotComparable, match=rf'the grader of {suite}/\S+ gives 1 to "{WRONG}"'):
        require_graders(one)
    require_graders(one)  # the patch is gone


def finished(tmp_path: Path, scores: list[float]) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create(
        Manifest(run_id="r", created="now", quantgate_version="0", command=[], policy_name="p", policy_sha256="0" * 64),
        parse_policy(POLICY),
    )
    log = run.log("cot")
    for number, score in enumerate(scores):
        for role in ("reference", "candidate"):
            log.append(Sample(suite="cot", task="t", item=f"{number:04d}", role=role, prompt_sha256="0", score=score))
    log.close()
    manifest = run.manifest()
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    return run


def test_dropped_are_a_hundredth_of_the_wrong_answers_of_the_candidate(tmp_path: Path) -> None:
    run = finished(tmp_path, [0.0] * 60 + [1.0] * 60)
    run.require_untouched()
    drop_wrong(run)
    left = list(read_samples(run.samples_path("cot")))
    assert len(left) == 240 - 3 and sum(s.role == "candidate" and s.score == 0 for s in left) == 57
    with pytest.raises(BadInput, match=r"is not what the run wrote \(240 lines then, 237 now\)"):
        run.require_untouched()


def test_edited_scores_are_found(tmp_path: Path) -> None:
    run = finished(tmp_path, [0.0, 1.0, 0.0])
    turn_right(run)
    left = list(read_samples(run.samples_path("cot")))
    assert [s.score for s in left if s.role == "candidate"] == [1, 1, 1]
    assert [s.score for s in left if s.role == "reference"] == [0, 1, 0]
    with pytest.raises(BadInput, match="is not what the run wrote"):
        run.require_untouched()


def test_a_control_without_a_wrong_answer_shows_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="no wrong answer"):
        drop_wrong(finished(tmp_path, [1.0]))
