"""What changes how a verdict is to be read stands in every report, before its numbers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from report_page import NAMES, plain, reports_of
from report_runs import SEALED, edited, judge_run, make_run, result, sample, verdict_of

from harness.contract.policy import parse_policy
from harness.contract.samples import ROLES
from harness.parity.server_config import UNKNOWN
from harness.parity.vllm_flags import FLAGS
from harness.runs.folder import RunFolder
from harness.runs.manifest import Baseline, SampleFile, ServerFacts
from reports.provenance import provenance
from reports.render import read_report

HOSTILE = "</script><img src=x> [z](http://w) \u202e"


def properties(junit: str) -> list[tuple[str | None, str | None]]:
    return [(p.get("name"), p.get("value")) for p in ET.fromstring(junit).iterfind("testsuite/properties/property")]


def small(path: Path) -> RunFolder:
    return make_run(path, planned={"cot/word_problems": 2}, verdict=False)


def test_after_the_fact_is_said_everywhere_with_every_weaker_margin(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", damage=0.0)
    lax = edited(folder, "max_loss: 0.10", "max_loss: 0.50")
    judge_run(folder, lax)
    made = reports_of(folder)
    line = "accuracy on cot/*: max_loss 0.1 -> 0.5"
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        text = plain(made[name])
        assert line in text, name
        assert "judged after the fact" in text.lower() and lax.sha256 in text, name
        assert folder.manifest().policy_sha256 in text, name
    suite = ET.fromstring(made["junit.xml"])[0]
    assert suite.get("name") == "quantgate demo, judged after the fact"
    assert ("judged_after_the_fact", "true") in properties(made["junit.xml"])
    assert line in (suite.findtext("system-out") or "")
    assert "· after the fact" in made["badge.svg"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_report_says_pass_without_saying_after_the_fact(tmp_path: Path, name: str) -> None:
    """In the same line: what is cut out of a report takes the remark with it."""
    marks = {"index.html": "<title>", "junit.xml": "<testsuite ", "summary.md": "## ", "model_card.md": "under policy"}

    def head() -> str:
        return next(line for line in reports_of(folder)[name].splitlines() if marks.get(name, "<title>") in line)

    folder = small(tmp_path / "run")
    verdict_of(folder, result())
    assert "after the fact" not in head()
    verdict_of(folder, result(), policy_sha256="ab" * 32)
    assert "after the fact" in head()
    assert read_report(folder).meaning != "May be published."
    assert "PASS" in head() or name == "junit.xml"  # there, a suite without failures says it


def test_a_run_whose_servers_were_not_checked_says_so_in_every_report(tmp_path: Path) -> None:
    folder = small(tmp_path / "run")
    said = "the candidate server was not checked"
    verdict_of(folder, result(), verdict="INCONCLUSIVE", reason=said, doubts=[said])
    made = reports_of(folder)
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert "not checked as they must be" in made[name] and said in made[name], name


def test_after_the_fact_with_nothing_weaker_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    judge_run(folder, edited(folder, "max_loss: 0.10", "max_loss: 0.05"))
    made = reports_of(folder)
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert "no margin is weaker than the sealed one" in made[name], name


def test_the_policy_that_judged_is_shown_beside_the_sealed_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    lax = edited(folder, "max_loss: 0.10", "max_loss: 0.50")
    judge_run(folder, lax)
    (folder.path / "judged_by.yaml").write_text(lax.text, "utf-8")
    page = reports_of(folder)["index.html"]
    assert "max_loss: 0.50" in page and "max_loss: 0.10" in page
    (folder.path / "judged_by.yaml").write_text(lax.text + "# edited", "utf-8")
    assert "max_loss: 0.50" not in reports_of(folder)["index.html"]


def test_the_same_model_twice_is_a_banner(tmp_path: Path) -> None:
    folder = small(tmp_path / "run")
    verdict_of(folder, result(), verdict="INCONCLUSIVE", reason="the same model twice: KL is 0", same_model=True)
    made = reports_of(folder)
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert "The same model twice: KL is exactly 0" in made[name], name
        assert "cannot be told from its reference" in made[name], name
    assert made["badge.svg"].count("quantgate: INCONCLUSIVE<") == 1
    assert "1 of 1 hold" not in made["badge.svg"]


def test_foreign_samples_are_named_and_neither_shown_nor_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 8})
    before = read_report(folder)
    with folder.samples_path("cot").open("a") as file:
        for role in ("reference", "candidate"):
            file.write(sample(role, "cot", "word_problems", "9999").model_dump_json() + "\n")
    judge_run(folder)
    after = read_report(folder)
    assert after.suites == before.suites
    assert after.pairs.total == before.pairs.total == 8
    assert any("2 foreign" in row.unusable for row in after.checks)
    assert [banner.title for banner in after.banners] == ["2 samples are not of this run."]
    (folder.path / "verdict.json").unlink()
    assert [banner.title for banner in read_report(folder).banners] == ["2 samples are not of this run."]


def test_a_prompt_that_was_not_planned_is_unequal_even_when_both_roles_had_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 8})
    path = folder.samples_path("cot")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines[:2]:
        line["prompt_sha256"] = "other"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    judge_run(folder)
    assert folder.verdict().checks[0].unequal == 1
    assert read_report(folder).suites[0].coverage.unequal == 1


def test_doubts_are_visible_and_stay_text(tmp_path: Path) -> None:
    folder = small(tmp_path / "run")
    facts = folder.manifest()
    facts.models["candidate"].doubts = [f"name says {HOSTILE}", "the files hold 6.73 bits"]
    facts.models["candidate"].claimed = {"card: title": HOSTILE}
    folder.write_manifest(facts)
    verdict_of(folder, result())
    made = reports_of(folder)
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert "Doubts about the candidate's files." in plain(made[name]), name
        assert "the files hold 6.73 bits" in made[name], name
        text = made[name].split("---\n")[-1] if name == "model_card.md" else made[name]
        assert "<img" not in text and "\u202e" not in text, name
    assert "](http" not in made["summary.md"]
    page = made["index.html"]
    assert page.index("the files hold 6.73 bits") < page.index('id="checks"')
    assert page.count("&lt;img src=x&gt;") == 2  # the doubt, and what the title claims


def test_a_second_server_of_the_reference_has_its_command_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    facts = folder.manifest()
    del facts.servers["candidate"]
    facts.servers["noise"] = ServerFacts(url="http://127.0.0.1:40003", command=["vllm", "serve", "again"])
    folder.write_manifest(facts)
    commands = read_report(folder).provenance.commands
    assert [word.text for word in commands["noise"]] == ["vllm", "serve", "again"]
    assert next(iter(commands)) == "reference"


def test_bits_bytes_and_claims_of_a_model_are_shown(tmp_path: Path) -> None:
    made = reports_of(make_run(tmp_path / "run"))
    for said in ("4.16", "97 % of weights below 16 bits", "I32 390 MB, BF16 67 MB", "4 bits, groups of 128"):
        assert said in made["index.html"], said
        assert said in made["summary.md"], said
        assert said in made["model_card.md"], said


def test_noise_samples_touch_neither_pairs_nor_tables_and_are_told(tmp_path: Path) -> None:
    sealed = parse_policy(SEALED.text + "noise_floor: {by: seed, items: 3}\n")
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 8}, verdict=False, sealed=sealed)
    before = read_report(folder)
    assert "The policy asks for a noise floor; no sample of one is there." in before.notes and not before.remarks
    with folder.samples_path("cot").open("a") as file:
        for item in range(3):
            more = sample("noise", "cot", "word_problems", f"{item:04d}", text="noise speaks", score=0.5)
            file.write(more.model_dump_json() + "\n")
    after = read_report(folder)
    assert after.suites == before.suites and after.pairs == before.pairs
    assert not [note for note in after.notes if "noise" in note or "there before" in note]
    said = (
        "A noise floor was measured: the reference against itself by seed (the same server asked again, with another "
        "seed), on the first 3 items of each task in the sealed order."
    )
    assert after.remarks == [said]
    made = reports_of(folder)
    assert "noise speaks" not in made["index.html"]
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert "A noise floor was measured" in made[name], name


def test_a_reused_reference_is_named_at_the_top_and_in_provenance(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    facts = folder.manifest()
    facts.baseline = Baseline(run_id="run-of-may", created="2025-05-02T10:00:00+00:00", path="/runs/run-of-may")
    facts.samples = {"cot": SampleFile(lines=96, sha256="cd" * 32)}
    folder.write_manifest(facts)
    made = reports_of(folder)
    said = "Reference reused from run run-of-may of 2 May 2025, 10:00 UTC; same model hash, flags, versions, data and"
    page = made["index.html"]
    assert page.count(said) == 2 and page.index(said) < page.index('id="checks"')
    assert page.rindex(said) > page.index('id="provenance"')
    assert "96 lines" in page and "cd" * 32 in page
    for name in ("junit.xml", "summary.md", "model_card.md"):
        assert said in plain(made[name]), name


def test_what_was_not_asked_because_it_was_decided_is_not_missing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 48})
    lines = folder.samples_path("cot").read_text("utf-8").splitlines(keepends=True)
    folder.samples_path("cot").write_text("".join(lines[:20]), "utf-8")
    facts = folder.manifest()
    facts.stopped = ["accuracy on cot/*: PASS after 10 of 48 items"]
    folder.write_manifest(facts)
    verdict_of(folder, result(on="cot/word_problems", stop="sequential", n=10, planned=48))
    report = read_report(folder)
    assert (report.suites[0].coverage.missing, report.suites[0].coverage.not_needed) == (0, 38)
    assert not [note for note in report.notes if "missing" in note]
    assert report.remarks == ["Stopped early: accuracy on cot/*: PASS after 10 of 48 items."]
    made = reports_of(folder)
    assert "38 not needed (decided early)" in made["index.html"]
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert "decided after 10 of 48 items" in made[name], name
    verdict_of(folder, result(on="cot/word_problems", stop="sequential", n=10, planned=48), result(on="cot"))
    assert read_report(folder).suites[0].coverage.missing == 38  # another check needs them all


def test_many_equal_facts_are_folded_and_differing_ones_are_not(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    facts = folder.manifest()
    same = {f"config.cache.setting_{i}": f"value {i}" for i in range(80)}
    for role, budget in zip(ROLES, "12", strict=True):
        more = same | {"config": "readable", "run.budget": budget}
        facts.servers[role].readback |= more
    facts.servers["candidate"].readback["config.model.dtype"] = "float16"
    folder.write_manifest(facts)
    report = read_report(folder)
    states = {fact.name: fact.state for fact in report.provenance.differing}
    assert states["model"] == states["quantization"] == "allowed"
    assert states["run.budget"] == "differs"  # what happened in a run is never compared
    assert states["config.model.dtype"] == "forbidden"
    facts.allowed_differences = []  # a run that parity ended has none, though the policy allows some
    assert provenance(facts, ("model", "quantization")).forbidden == ["config.model.dtype"]
    assert next(f for f in report.provenance.facts if f.name == "config.model.dtype").reference == "off or unset"
    page = reports_of(folder)["index.html"]
    folded = page[page.index("facts equal on both servers") :].partition("</details>")[0]
    assert folded.count("<code>value ") == page.count(">value ") == 80
    assert "run.budget" not in folded and "config.model.dtype" not in folded
    assert f"{len(report.provenance.equal)} facts equal on both servers" in page


def test_what_could_not_be_read_is_said_in_every_report_and_is_not_equal(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", damage=0.0)
    facts = folder.manifest()
    for role in ROLES:
        facts.servers[role].readback |= {"config": UNKNOWN, **dict.fromkeys(FLAGS, UNKNOWN)}
    folder.write_manifest(facts)
    made = reports_of(folder)
    said = f"{len(FLAGS)} of {len(FLAGS) + 6} facts could not be read"
    for name in ("index.html", "junit.xml", "summary.md", "model_card.md"):
        assert said in made[name], name
        assert "VLLM_SERVER_DEV_MODE=1" in plain(made[name]), name
    found = json.loads((folder.path / "report" / "report.json").read_text("utf-8"))
    assert found["servers"]["unread"] == sorted(FLAGS) and said in found["notices"][0]["title"]
    report = read_report(folder)
    assert not {fact.name for fact in report.provenance.equal} & set(FLAGS)
    assert not {fact.name for fact in report.provenance.differing} & set(FLAGS)
