"""Commands of the report: a shell takes them as they stand, and they name what they should."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from report_page import Page, page_of
from report_runs import make_run, manifest

from harness.commands import app
from harness.contract.samples import Role
from harness.runs.manifest import Baseline, Manifest, ServerFacts
from reports.provenance import provenance
from reports.rerun_commands import repeat, started


def lines(facts: Manifest) -> dict[str, list[str]]:
    return {command.title: shlex.split(command.text) for command in repeat(facts)}


def gate(*words: str, models: dict[Role, tuple[str, str]] | None = None) -> list[str]:
    """The words that repeat a gate command; `models` are name and path by role."""
    facts = manifest()
    facts.command = ["quantgate", "gate", *words]
    for role, (name, path) in (models or {}).items():
        facts.models[role].name, facts.models[role].path = name, path
    return lines(facts)["The whole run"]


AGAIN = ["--policy", "policy.yaml", "--out", "../2025-11-21T22-04-11-qwen2.5-0.5b-w4a16-again"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["M"], ["M"]),
        (["M", "--policy", "ci", "--out", "o"], ["M"]),
        (["--policy=ci", "M", "--resume", "--out=o"], ["M"]),
        (["M", "--baseline", "b", "--reference", "R"], ["M", "--reference", "R"]),
        (["M", "--out"], ["M"]),
        (["a b'c", "--candidate-url", "http://u:secret@h/"], ["a b'c", "--candidate-url", "http://(hidden)@h/"]),
    ],
)
def test_a_run_is_repeated_with_its_sealed_policy_and_into_a_new_folder(words: list[str], kept: list[str]) -> None:
    assert gate(*words) == ["quantgate", "gate", *kept, *AGAIN]


def test_a_folder_is_named_so_that_it_is_found_from_anywhere() -> None:
    found = gate(
        "./my/model",
        models={"reference": ("./my/model", "/home/me/my/model"), "candidate": ("./my/model w4a16", "/c/q")},
    )
    assert found[2] == "/home/me/my/model"
    assert gate("demo", models={"reference": ("demo", "/cache/SmolLM2")})[2] == "demo"
    assert (
        gate("owner/name", models={"reference": ("owner/name", "/cache/models--owner--name/snapshots/1")})[2]
        == "owner/name"
    )


def test_a_baseline_is_used_again() -> None:
    facts = manifest()
    facts.baseline = Baseline(run_id="may", created="c", path="/runs/may")
    assert lines(facts)["The whole run"][-2:] == ["--baseline", "/runs/may"]


def test_files_that_questions_come_from_are_named_where_a_suite_may_read_some() -> None:
    facts = manifest()
    assert "export QUANTGATE_DATA=FOLDER first" in repeat(facts)[0].remark
    facts.planned = {"divergence/chat-en": 4, "swebench/instances": 2}
    assert repeat(facts)[0].remark == ""


def test_each_server_is_served_alone_and_the_rest_needs_none() -> None:
    facts = manifest()
    facts.models["candidate"].quantization, facts.models["candidate"].name = "compressed-tensors", "demo w4a16"
    facts.models["candidate"].path = "/cache/q"
    found = lines(facts)
    assert found["Serve the candidate"] == shlex.split("quantgate serve /cache/q --role candidate --policy policy.yaml")
    assert found["Serve the reference"][2] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert found["Judge the stored answers again"] == ["quantgate", "judge", "."]
    assert found["Write this report again"] == ["quantgate", "report", "."]
    facts.servers = {"reference": ServerFacts(url="http://h"), "candidate": ServerFacts(url="http://g")}
    assert not [title for title in lines(facts) if title.startswith("Serve")]  # attached: not ours to start
    facts.command = ["python", "own_script.py"]
    assert "The whole run" not in lines(facts)


def test_options_of_the_commands_exist() -> None:
    import typer

    known = {
        name: {option for parameter in command.params for option in getattr(parameter, "opts", [])}
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    facts = manifest()
    facts.baseline = Baseline(run_id="may", created="c", path="/runs/may")
    for words in lines(facts).values():
        assert {word for word in words if word.startswith("--")} <= known[words[1]], words


def test_a_server_is_started_with_its_environment_and_without_its_secrets() -> None:
    server = ServerFacts(
        url="http://h",
        command=["vllm", "serve", "a b", "--api-key", "k"],
        environment={"B": "x y", "A": "1", "HF_TOKEN": "hf_verysecret"},
    )
    words, remark = started(server)
    assert words == ["env", "A=1", "B=x y", "vllm", "serve", "a b", "--api-key", "(hidden)"]
    assert remark == "set HF_TOKEN first; put in what is (hidden) first"
    assert started(ServerFacts(url="u", command=["vllm"])) == (["vllm"], "")
    facts = manifest()
    facts.servers["candidate"] = server
    shown = provenance(facts).commands["candidate"]
    assert shlex.split(" ".join(word.text for word in shown)) == words
    assert [word.text for word in shown if word.differs][:1] == ["A=1"]


def test_the_page_shows_every_line_and_what_must_be_done_first(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", planned={"cot/word_problems": 2}))
    shown = [pre for pre in page.all("pre") if pre.get("class") == "line"]
    assert len(shown) == 5 + 3 and all(pre.get("tabindex") == "0" for pre in shown)
    for said in ("quantgate judge .", "--policy policy.yaml --out ../2025-11-21", "set HF_TOKEN first"):
        assert said in page.words, said
    assert isinstance(page, Page) and "hf_verysecret" not in page.words
