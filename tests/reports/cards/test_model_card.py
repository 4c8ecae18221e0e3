"""The model card: metadata that the hub's own library reads back, honest limits, and a README that stays its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from report_runs import edited, judge_run, make_run, result, verdict_of

from harness.contract.datasets import SWEBENCH
from harness.contract.errors import BadInput
from harness.contract.samples import Role
from harness.runs.folder import RunFolder
from reports.cards.card_file import BEGIN, END, merge_into
from reports.cards.licence import origin
from reports.cards.model_card import render_model_card
from reports.cards.model_index import TASK, front_matter
from reports.cards.sources import of_swebench
from reports.render import read_report
from reports.view import Report

OWN = """---
# our own card
license: "apache-2.0"   # the base model's
tags: [llama, ours]
model-index:
- name: ours
  results:
  - task: {type: text-generation}
    dataset: {type: x/y, name: Y}
    metrics: [{type: acc, value: 1}]

# how it is found
pipeline_tag: text-generation
---
# Our model

Some words  \n"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", planned={"cot/word_problems": 48, "ruler/vt@2048": 8, "ruler/cwe@2048": 8})


def card(report: Report) -> Any:
    return ModelCard(render_model_card(report))


def data_of(text: str) -> Any:
    """The metadata, as the hub's library reads them: attributes by the names of the keys."""
    return ModelCard(text).data


def test_the_hub_reads_back_what_the_run_holds(run: RunFolder) -> None:
    report = read_report(run)
    data = card(report).data
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen2.5-0.5B-Instruct", "quantized")
    assert data.model_name == "qwen2.5-0.5b-w4a16" and data.license is None
    found = {(r.dataset_name, r.metric_type): r for r in data.eval_results}
    assert {r.task_name for r in data.eval_results} == {TASK}
    scores = [s.score or 0.0 for s in run.samples() if s.role == "candidate" and s.suite == "cot"]
    accuracy = found["word_problems", "accuracy"]
    assert accuracy.metric_value == pytest.approx(sum(scores) / len(scores), abs=1e-6)
    assert accuracy.metric_args == {"n": 48, "items": 48} and accuracy.dataset_type == "quantgate-word_problems"
    pooled = [s.score or 0.0 for s in run.samples() if s.role == "candidate" and s.suite == "ruler"]
    assert found["ruler", "accuracy"].metric_value == pytest.approx(sum(pooled) / 16, abs=1e-6)
    assert found["ruler", "accuracy"].metric_args["tasks"] == 2
    check = next(c for c in run.verdict().checks if (c.metric, c.on) == ("accuracy", "ruler"))
    loss = found["ruler", "accuracy_loss"]
    assert loss.metric_value == pytest.approx(check.estimate, abs=1e-6)
    assert loss.metric_args["upper"] == pytest.approx(check.upper, abs=1e-6)
    assert loss.metric_args["verdict"] == check.verdict
    assert all(result.source_url is None for result in data.eval_results)


def test_a_source_is_named_where_the_report_is_published(run: RunFolder) -> None:
    report = read_report(run)
    found = data_of(render_model_card(report, "https://example.org/report/")).eval_results
    assert {result.source_url for result in found} == {"https://example.org/report/"}
    with pytest.raises(BadInput, match="give the http"):
        render_model_card(report, "javascript:alert(1)")


def test_the_data_set_of_swebench_is_that_of_the_policy() -> None:
    assert of_swebench({}, "instances") == SWEBENCH
    assert of_swebench({"dataset": "rows.jsonl"}, "instances") is None
    assert of_swebench(None, "instances") is None  # without its policy nobody knows what was asked


def test_the_section_has_tables_and_says_what_they_do_not_show(run: RunFolder) -> None:
    text = render_model_card(read_report(run))
    body = text.split("---\n", 2)[2].replace("\\", "")
    assert "Only this was asked: cot/word_problems, ruler/vt@2048, ruler/cwe@2048." in body
    assert "Not run: divergence," not in body and "Not run: needle, divergence, decoding," in body
    assert "one-sided at 95 %" in body and "temperature 0.0" in body and "max_tokens 256" in body
    assert "Not of a published data set: the items of cot, ruler were generated" in body
    assert "Other tasks, languages and longer contexts are unknown." in body
    unanswered = [c.name for c in run.verdict().checks if c.verdict == "INCONCLUSIVE"]
    assert unanswered and f"{len(unanswered)} check" in body and unanswered[0] in body
    assert "Public data" not in body


def test_token_caps_and_step_limits_stand_apart(run: RunFolder) -> None:
    path, limited = run.samples_path("ruler"), []
    for one in run.samples():
        if one.suite == "ruler":
            limited.append(one.model_copy(update={"finish_reason": "limit" if one.role == "candidate" else "stop"}))
    assert "step or time limit" not in render_model_card(read_report(run))
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in limited))
    card = render_model_card(read_report(run))
    assert "| Hit the token cap: reference, quantized | Hit a step or time limit |" in card
    assert "0.0 %, 0.0 % | 0.0 %, 100.0 % |" in card
    assert "that hit a step or time limit: ruler/vt" in card.replace("\\", "")


def test_a_model_that_did_not_pass_says_so_and_so_does_one_judged_after_the_fact(run: RunFolder) -> None:
    verdict_of(run, result(verdict="FAIL"))
    assert "**This model did not pass its release checks.**" in render_model_card(read_report(run))
    judge_run(run, edited(run, "max_loss: 0.10", "max_loss: 0.90"))
    assert "Judged after the fact: the margins were not all set" in render_model_card(read_report(run))
    verdict_of(run, result())
    text = render_model_card(read_report(run))
    assert "did not pass" not in text and "after the fact" not in text


# -- base model and licence ------------------------------------------------------------------------------------


def with_cards(run: RunFolder, tmp_path: Path, cards: dict[Role, str]) -> Report:
    """The run with checkpoints that are here, and have these front matters."""
    facts = run.manifest()
    for role, front in cards.items():
        folder = tmp_path / role
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text(f"---\n{front}\n---\n# x\nlicense: not-this\n", "utf-8")
        facts.models[role].path = str(folder)
    run.write_manifest(facts)
    return read_report(run)


def test_an_unknown_licence_is_said_to_be_unknown(run: RunFolder) -> None:
    text = render_model_card(read_report(run))
    assert "# license: not known to quantgate; name it here.\n---" in text
    assert "The licence is not known to this report" in text and "look it up before publishing" in text


def test_a_licence_comes_from_the_cards_of_the_checkpoints(run: RunFolder, tmp_path: Path) -> None:
    front = "license: other\nlicense_name: 'tongyi qianwen'\nlicense_link: https://example.org/LICENSE\nlanguage: [en]"
    report = with_cards(run, tmp_path, {"reference": front})
    (tmp_path / "reference" / "NOTICE.txt").write_text("n")
    found = card(report)
    assert (found.data.license, found.data.license_name) == ("other", "tongyi qianwen")
    assert found.data.license_link == "https://example.org/LICENSE"
    assert "Licence: other tongyi qianwen, https&#58;//example.org/LICENSE, as the reference's card says" in found.text
    assert "Keep beside the weights: NOTICE.txt." in found.text


def test_cards_that_disagree_leave_the_licence_open(run: RunFolder, tmp_path: Path) -> None:
    report = with_cards(run, tmp_path, {"reference": "license: apache-2.0", "candidate": "license: mit"})
    found = card(report)
    assert found.data.license is None
    assert "disagree about the licence: apache-2.0 (reference), mit (candidate)" in found.text


@pytest.mark.parametrize(
    "front", ["license: &a [mit]", "license: {x: y}", "license: |\n  mit", "license: <script>\n  x: [" + "[" * 9999, ""]
)
def test_a_strange_card_says_nothing(run: RunFolder, tmp_path: Path, front: str) -> None:
    licence = origin(with_cards(run, tmp_path, {"reference": front}).models).licence
    assert licence in ({}, {"license": "<script>"})
    assert "<script>" not in card(read_report(run)).text


@pytest.mark.parametrize(
    ("name", "path", "claimed", "base", "is_reference"),
    [
        ("owner/name", "/cache/models--owner--name/snapshots/x", {}, "owner/name", True),
        ("owner/name", "/home/me/owner/name", {}, None, False),
        ("/home/me/model", "/home/me/model", {"card: base_model": "owner/base"}, "owner/base", False),
        ("demo", "/cache/m", {"card: base_model": "/home/me/model"}, None, False),
    ],
)
def test_the_base_model_is_one_that_a_hub_can_know(
    run: RunFolder, name: str, path: str, claimed: dict[str, str], base: str | None, is_reference: bool
) -> None:
    facts = run.manifest()
    facts.models["reference"].name, facts.models["reference"].path = name, path
    facts.models["reference"].claimed = claimed
    run.write_manifest(facts)
    report = read_report(run)
    found = origin(report.models)
    assert (found.base, found.is_reference) == (base, is_reference)
    assert front_matter(report, found).get("base_model") == base
    section = render_model_card(report).split("### Licence")[1]
    assert "/home/me" not in section and ("sha256 `7ae557604adf`" in section)


# -- into a README ---------------------------------------------------------------------------------------------


def merged(run: RunFolder, path: Path, text: str | None) -> tuple[str, list[str]]:
    if text is not None:
        path.write_bytes(text.encode())
    stayed = merge_into(read_report(run), path).stayed
    return path.read_bytes().decode(), stayed


def test_a_card_keeps_everything_that_is_not_ours(run: RunFolder, tmp_path: Path) -> None:
    text, stayed = merged(run, tmp_path / "README.md", OWN)
    for line in ("# our own card", 'license: "apache-2.0"   # the base model\'s', "# how it is found", "Some words  "):
        assert line in text.splitlines(), line
    assert text.index("# how it is found\npipeline_tag") > text.index("model-index:")
    assert stayed == []
    data = data_of(text)
    assert data.tags == ["llama", "ours", "quantized", "quantgate"] and data.license == "apache-2.0"
    assert [r.dataset_type for r in data.eval_results][:2] == ["x/y", "quantgate-word_problems"]
    assert text.count(BEGIN) == text.count(END) == 1 and text.endswith(f"{END}\n")


def test_a_second_time_changes_nothing_and_another_run_replaces_ours_alone(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    first, _ = merged(run, path, OWN)
    before = path.stat().st_mtime_ns
    assert merged(run, path, None)[0] == first
    assert path.stat().st_mtime_ns == before
    path.write_text(first.replace(f"{END}\n", f"{END}\n\nAfter it.\n"), "utf-8")
    verdict_of(run, result(on="cot/word_problems", estimate=0.25))
    second, _ = merged(run, path, None)
    assert second.endswith(f"{END}\n\nAfter it.\n") and second.count("## Evaluation of the quantized model") == 1
    losses = [r.metric_value for r in data_of(second).eval_results if r.metric_type == "accuracy_loss"]
    assert losses == [0.25]
    assert [r.dataset_type for r in data_of(second).eval_results].count("x/y") == 1


def test_the_owner_of_a_card_has_the_last_word(run: RunFolder, tmp_path: Path) -> None:
    text, stayed = merged(run, tmp_path / "README.md", "---\nbase_model: other/base\n---\nx\n")
    assert stayed == ["base_model stays 'other/base'; the report says 'Qwen/Qwen2.5-0.5B-Instruct'"]
    data = data_of(text)
    assert data.base_model == "other/base" and data.get("base_model_relation") is None


STYLED = """---
license: 'mit' # chosen
base_model: # what it was made of
  - "Qwen/Qwen2.5-0.5B-Instruct"   # first
  - other/part
tags:
  # found by these
  - "llama"   # family
  - 'ours'
model-index:
  - name: "ours" # by hand
    results:
      # the first one
      - task: {type: "text-generation"}
        dataset: {type: 'x/y', name: Y} # kept
        metrics: [{type: acc, value: 1.0e-05}]
datasets: [a, "b"]
---
# Ours
"""


def test_comments_quotes_style_and_a_list_of_base_models_survive(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    text, stayed = merged(run, path, STYLED)
    assert stayed == []  # the list names the report's base model
    lines = text.splitlines()
    for line in STYLED.splitlines():
        assert line in lines, line
    assert lines.index("  - 'ours'") + 1 == lines.index("  - quantized")
    data = data_of(text)
    assert data.base_model_relation == "quantized" and len(data.eval_results) > 1
    assert [type(result.metric_value) for result in data.eval_results[:1]] == [float]
    assert merged(run, path, None)[0] == text
    flow, _ = merged(run, tmp_path / "flow.md", "---\ntags: [llama, 'ours']  # flow\n---\n")
    assert "tags: [llama, 'ours', quantized, quantgate]" in flow and "# flow" in flow


def test_a_card_that_is_changed_is_kept_as_it_was(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert merge_into(read_report(run), path).backup is None  # there was none
    path.write_text(OWN, "utf-8")
    backup = merge_into(read_report(run), path).backup
    assert backup == tmp_path / "README.md.bak" and backup.read_text("utf-8") == OWN
    assert merge_into(read_report(run), path).backup is None  # nothing changed
    path.write_text("# Another", "utf-8")
    second = merge_into(read_report(run), path).backup
    assert second and second != backup and backup.read_text("utf-8") == OWN and second.read_text() == "# Another"


def test_only_markdown_is_written_into_unless_it_is_wanted(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("x = 1\n", "utf-8")
    with pytest.raises(BadInput, match=r"no Markdown file.*--anyway"):
        merge_into(read_report(run), path)
    assert path.read_text("utf-8") == "x = 1\n" and not list(tmp_path.glob("*.bak"))
    assert merge_into(read_report(run), path, anyway=True).backup == tmp_path / "train.py.bak"
    assert "x = 1" in path.read_text("utf-8") and BEGIN in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("claimed", "quantization", "relation"),
    [
        ({"card: base_model": "owner/base"}, "gptq", "quantized"),
        ({"card: base_model": "owner/base", "card: base_model_relation": "quantized"}, "gptq", "quantized"),
        ({"card: base_model": "owner/base", "card: base_model_relation": "finetune"}, "gptq", None),
        ({"card: base_model": "owner/base"}, None, None),
    ],
)
def test_the_relation_is_written_where_the_candidates_own_card_names_its_base(
    run: RunFolder, claimed: dict[str, str], quantization: str | None, relation: str | None
) -> None:
    facts = run.manifest()
    facts.models["reference"].name = "/home/me/base"
    facts.models["candidate"].claimed, facts.models["candidate"].quantization = claimed, quantization
    run.write_manifest(facts)
    report = read_report(run)
    made = front_matter(report, origin(report.models))
    assert (made["base_model"], made.get("base_model_relation")) == ("owner/base", relation)


@pytest.mark.parametrize(
    "text", [None, "", "# Only words\n", "---\n---\n# Body", "---\n# nothing\n---\n", "---\nx: 1\n---"]
)
def test_cards_without_metadata_get_some(run: RunFolder, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "README.md"
    made, _ = merged(run, path, text)
    assert made.startswith("---\n") and data_of(made).eval_results and BEGIN in made
    assert ("# Only words" in made) == (text == "# Only words\n") and ("# Body" in made) == (text == "---\n---\n# Body")
    assert merged(run, path, None)[0] == made


def test_windows_line_ends_and_links_stay(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "real.md").write_bytes(OWN.replace("\n", "\r\n").encode())
    (tmp_path / "README.md").symlink_to(tmp_path / "real.md")
    made, _ = merged(run, tmp_path / "README.md", None)
    assert not re.search(r"(?<!\r)\n", made) and (tmp_path / "README.md").is_symlink()
    assert made.count("pipeline_tag: text-generation\r\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\na: 1\n", "does not end with a line ---"),
        ("---\na: [1\n---\n", "not YAML"),
        ("---\n- a\n---\n", "holds no keys"),
        ("---\na: 1\na: 2\n---\n", "not YAML"),
        ("---\ntags: {a: 1}\n---\n", "tags is no list"),
        ("---\nmodel-index: 7\n---\n", "model-index is not what a model hub reads"),
        ("---\nmodel-index: [{name: x}]\n---\n", "model-index is not what a model hub reads"),
        (f"{BEGIN}\n", "not one begin and one end"),
        (f"{END}\n{BEGIN}\n", "not one begin and one end"),
        (f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n", "not one begin and one end"),
        ("---\nx: &x [a]\ntags: *x\n---\n", "tags is written in a way that cannot be changed in part"),
        ("---\n{tags: [a], b: 1}\n---\n", "cannot be changed in part|not YAML"),
    ],
)
def test_a_card_that_cannot_be_changed_safely_is_left_alone(
    run: RunFolder, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "README.md"
    with pytest.raises(BadInput, match=says):
        merged(run, path, text)
    assert path.read_text("utf-8") == text


def test_a_card_that_is_no_text_is_refused(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="not UTF-8"):
        merge_into(read_report(run), path)


def test_a_hostile_name_stays_inside_the_section(run: RunFolder, tmp_path: Path) -> None:
    facts = run.manifest()
    facts.models["candidate"].name = f"x\n{END}\n---\nlicense: mit\n<script>"
    run.write_manifest(facts)
    path = tmp_path / "README.md"
    made, _ = merged(run, path, OWN)
    assert made.count(END) == 1 and "<script>" not in made.split("---\n", 2)[2]
    assert data_of(made).license == "apache-2.0" and merged(run, path, None)[0] == made
