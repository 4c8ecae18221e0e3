"""A run's own items bring its policy; what cannot be scored is refused before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from offline_cases import POLICY, SEALED, items_of, right, score, write_lines

from harness.contract.errors import BadInput
from harness.contract.policy import parse_policy
from harness.contract.samples import Item, read_samples
from harness.offline.scoring import score_answers
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter

# -- a run's own items -----------------------------------------------------------------------------------------------


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    """A run with the items of cot, by a policy that is not demo's, of a model whose template opens the thinking."""
    folder = RunFolder(tmp_path / "run")
    facts: dict[str, Any] = {"run_id": "r", "created": "c", "quantgate_version": "0", "command": []}
    manifest = Manifest(**facts, policy_name="small", policy_sha256=SEALED.sha256, thinking_opened=True)
    folder.create(manifest, SEALED)
    manifest.items_sha256["cot"] = folder.write_items("cot", items_of(made, "cot"))
    folder.write_manifest(manifest)
    return folder


def test_a_runs_items_bring_its_policy_and_its_template(run: RunFolder, made: Path, tmp_path: Path) -> None:
    item = items_of(made, "cot")[0]
    answers = write_lines(tmp_path / "a.jsonl", [right(item, text="so it is #### 1, no end of thinking")])
    out = tmp_path / "s.jsonl"
    scores = score_answers("cot", run.items_path("cot"), answers, Reporter(), out=out)
    assert scores.policy_sha256 == SEALED.sha256
    (sample,) = read_samples(out)
    assert sample.metrics["unterminated"] == 1 and sample.score is None and sample.text == ""
    other = parse_policy(POLICY.replace("name: small", "name: other"))
    assert score_answers("cot", run.items_path("cot"), answers, Reporter(), sealed=other).policy == "other"


def test_a_runs_items_that_were_edited_are_refused(run: RunFolder, made: Path, tmp_path: Path) -> None:
    path = run.items_path("cot")
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "cot")[0])])
    path.write_bytes(path.read_bytes().replace(b'"target":"', b'"target":"1', 1))
    with pytest.raises(BadInput, match="is not the file that the manifest names"):
        score_answers("cot", path, answers, Reporter())


# -- refused ---------------------------------------------------------------------------------------------------------


def test_a_suite_that_measures_a_server_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="suite divergence cannot be scored offline: it measures a server"):
        score(made, "divergence", [{"item": "x", "text": "x"}], tmp_path)


def test_a_suite_that_the_policy_does_not_name_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="policy small names no suite 'nosuch'; it names cot, ruler, divergence"):
        score_answers("nosuch", made / "cot.jsonl", tmp_path / "a", Reporter(), sealed=SEALED)


def test_one_bad_line_and_nothing_is_scored_or_written(made: Path, tmp_path: Path) -> None:
    lines = [right(item) for item in items_of(made, "cot")]
    for bad in ("{", lines[0], right(items_of(made, "ruler")[0])):
        with pytest.raises(BadInput, match=r"answers\.jsonl:7: "):
            score(made, "cot", [*lines, bad], tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_items_of_another_suite_are_refused(made: Path, tmp_path: Path) -> None:
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "ruler")[0])])
    with pytest.raises(BadInput, match="item niah_single_1@2048/0000"):
        score_answers("cot", made / "ruler.jsonl", answers, Reporter(), sealed=SEALED, out=tmp_path / "s.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "cot")[0])])
    with pytest.raises(BadInput, match=r"item word_problems/00000 is none of suite ruler.*niah_single_1@2048, vt@2048"):
        score_answers("ruler", made / "cot.jsonl", answers, Reporter(), sealed=SEALED)


@pytest.mark.parametrize(
    ("target", "why"), [(5, "TypeError"), ([], "ZeroDivisionError"), ([5], "AttributeError"), (None, "TypeError")]
)
def test_an_item_that_the_scorer_cannot_use_is_named(tmp_path: Path, target: Any, why: str) -> None:
    item = Item(task="vt@2048", item="1\x1b[2J", prompt=[], prompt_sha256="a", target=target)
    write_lines(tmp_path / "ruler.jsonl", [item.model_dump_json()])
    says = rf"item vt@2048/1 \[2J cannot be scored by suite ruler \({why}: .*\); is it of this suite and policy\?"
    with pytest.raises(BadInput, match=says):
        score(tmp_path, "ruler", [{"item": item.item, "text": "x"}], tmp_path)
    assert not (tmp_path / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "items.jsonl: no item is in it"),
        (["{"], "items.jsonl:1: not an item"),
        (['{"task": "t", "item": "1", "prompt": [], "prompt_sha256": "a"}'] * 2, "item t/1 is there twice"),
    ],
)
def test_broken_items_are_refused(tmp_path: Path, lines: list[Any], says: str) -> None:
    items = write_lines(tmp_path / "items.jsonl", lines)
    with pytest.raises(BadInput, match=says):
        score_answers("cot", items, tmp_path / "a.jsonl", Reporter(), sealed=SEALED)


def test_out_never_replaces_what_is_read(made: Path, tmp_path: Path) -> None:
    items = tmp_path / "cot.jsonl"
    items.write_bytes((made / "cot.jsonl").read_bytes())
    answers = write_lines(tmp_path / "a.jsonl", [right(items_of(made, "cot")[0])])
    for out in (items, answers, tmp_path, tmp_path / "." / "cot.jsonl"):
        before = items.read_bytes(), answers.read_bytes()
        with pytest.raises(BadInput, match="name another file"):
            score_answers("cot", items, answers, Reporter(), sealed=SEALED, out=out)
        assert (items.read_bytes(), answers.read_bytes()) == before
