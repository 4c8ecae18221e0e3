"""report.json: what it says is what the run holds, and the committed schema describes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from report_runs import make_run, result, sample, small_run, verdict_of

from harness.contract.samples import ROLES
from harness.judging.results import CheckResult
from harness.judging.verdict import EXIT_CODES
from harness.runs.folder import RunFolder
from harness.runs.manifest import Baseline
from reports.formats.report_schema import SCHEMA_VERSION, ReportJson, schema_text
from reports.metric_words import WORDS
from reports.render import render

SCHEMA = Path(__file__).parents[3] / "docs" / "report.schema.json"


def load(folder: RunFolder) -> dict[str, Any]:
    """The rendered file: strict JSON (no NaN), in the shape that the committed schema describes."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    render(folder.path)
    found = json.loads((folder.report_path / "report.json").read_text("utf-8"), parse_constant=refuse)
    jsonschema.validate(found, json.loads(SCHEMA.read_text("utf-8")), jsonschema.Draft202012Validator)
    return dict(found)


def test_the_committed_schema_is_the_one_that_the_code_makes() -> None:
    assert SCHEMA.read_text("utf-8") == schema_text(), (
        "python -m reports.formats.report_schema >docs/report.schema.json"
    )
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert set(schema["required"]) == set(ReportJson.model_fields)  # a field that may be absent is null instead
    described = schema["$defs"]["Decision"]["properties"]["exit_code"]["description"]
    assert "quantgate gate" in described


def test_a_finished_run_is_whole_in_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    facts, verdict = folder.manifest(), folder.verdict()
    found = load(folder)
    assert set(found) == set(ReportJson.model_fields)
    assert (found["run_id"], found["created"]) == (facts.run_id, facts.created)
    assert found["verdict"]["outcome"] == verdict.verdict
    assert found["verdict"]["exit_code"] == EXIT_CODES[verdict.verdict]
    assert sum(found["verdict"]["checks"].values()) == len(verdict.checks)
    assert found["policy"]["sha256"] == found["policy"]["sealed_sha256"] == facts.policy_sha256
    assert found["policy"]["sampling"]["max_tokens"] == "256"
    assert found["models"]["candidate"]["bytes"] == 457_130_112
    assert found["models"]["reference"]["linear_bits"] is None
    stored = {(check.name, check.on): check.model_dump(mode="json") for check in verdict.checks}
    assert len(found["checks"]) == len(stored)
    for check in found["checks"]:
        assert isinstance(check.pop("remarks"), list)
        values, share = (check["reference_value"], check["candidate_value"]), check.pop("recovery")
        assert share == (values[1] / values[0] if check["metric"] == "accuracy" else None)
        assert check.pop("title") == WORDS[check["metric"]]
        assert check == stored[check["name"], check["on"]]
    candidates = [s.score or 0.0 for s in folder.samples() if s.role == "candidate" and s.suite == "cot"]
    cot = next(suite for suite in found["suites"] if suite["name"] == "cot")
    assert cot["tasks"][0]["candidate"]["score"] == pytest.approx(sum(candidates) / len(candidates))
    assert cot["coverage"]["planned"] == cot["coverage"]["usable"] == 48 and cot["kl"] is None
    divergence = next(suite for suite in found["suites"] if suite["name"] == "divergence")
    assert divergence["kl"]["documents"] == 16 and divergence["tasks"] == []
    assert [(d["name"], d["state"]) for d in found["servers"]["differences"] if d["state"] == "allowed"] == [
        ("model", "allowed"),
        ("quantization", "allowed"),
    ]
    assert {d["suite"]: d["sha256"] for d in found["data"] if d["kind"] == "items"} == facts.items_sha256
    assert sum(found["pairs"].values()) == 88
    assert found["timings"][0] == {"stage": "quantize", "seconds": 74.2}
    assert found["seconds"] == pytest.approx(422.2)
    assert found["versions"] == facts.versions and found["hardware"]["memory_gib"] == 23
    assert "hf_verysecret" not in json.dumps(found)


def test_what_is_missing_is_null_and_named(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 3})
    found = load(folder)
    assert found["verdict"]["outcome"] == "NOT JUDGED" and found["verdict"]["exit_code"] is None
    assert found["checks"] == [] and found["pairs"] == {}
    assert "There are no samples." in found["notes"]
    facts = folder.manifest()
    facts.models, facts.servers, facts.hardware = (
        {},
        {},
        {"load": math.inf, "gpus": [{"name": "x\u202e", "w": math.nan}]},
    )
    facts.baseline = Baseline(run_id="may", created="2025-05-02", path="/r")
    folder.write_manifest(facts)
    raw = (folder.path / "manifest.json").read_text("utf-8")
    (folder.path / "manifest.json").write_text(raw.replace('"load": null', '"load": Infinity'), "utf-8")
    found = load(folder)
    assert found["models"] == {} and found["servers"] == {"facts": 0, "differences": [], "unread": []}
    assert found["hardware"] == {"load": None, "gpus": [{"name": "x⟨U+202E⟩", "w": None}]}
    assert found["reused_from"] == "may"


def test_after_the_fact_and_banners_are_in_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", planned={"cot/word_problems": 2}, verdict=False)
    verdict_of(folder, result(), policy_sha256="ab" * 32)
    found = load(folder)
    assert found["verdict"]["after_the_fact"] and found["policy"]["sha256"] == "ab" * 32
    assert found["notices"][0]["title"].startswith("Judged after the fact")


def test_hostile_texts_are_visible_and_secrets_hidden(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", {"cot/word_problems": 1})
    facts = folder.manifest()
    facts.command += ["--api-key", "hf_verysecret"]
    facts.models["candidate"].name = "a\u202eb\x00"
    folder.write_manifest(facts)
    log = folder.log("cot")
    for role in ROLES:
        log.append(sample(role, "cot", "t\x1b[31m", "0"))
    log.close()
    verdict_of(folder, result(name="n\u2028", reason="r\u202e"))
    found = load(folder)
    text = json.dumps(found, ensure_ascii=False)
    assert not {"\u202e", "\x1b", "\x00", "\u2028"} & set(text) and "hf_verysecret" not in text
    assert found["models"]["candidate"]["name"] == "a⟨U+202E⟩b␀"
    assert found["checks"][0]["name"] == "n⟨U+2028⟩"
    assert CheckResult.model_validate({k: v for k, v in found["checks"][0].items() if k != "remarks"})
