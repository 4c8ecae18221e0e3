"""report.json: the whole decision for machines, filled from the view and the manifest.

Numbers are numbers and a number that is not known is null; texts of models and data are visible as in every report.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from pydantic import JsonValue

from harness.contract.model_facts import ModelFacts
from harness.contract.secrets import hide_secret, hide_secrets
from harness.runs.manifest import Manifest
from reports.check_rows import CheckRow
from reports.formats.report_schema import (
    SCHEMA_VERSION,
    CheckJson,
    DataFileJson,
    Decision,
    DifferenceJson,
    Failures,
    ModelJson,
    Notice,
    PairCounts,
    PolicySeal,
    ReportJson,
    RoleScore,
    Servers,
    SuiteJson,
    SuiteKl,
    TaskScore,
    Timing,
)
from reports.kl import KlSummary
from reports.metric_words import recovery
from reports.samples.pairs import KINDS
from reports.scores import RoleScores
from reports.suite_view import Coverage, SuiteView
from reports.text import one_line
from reports.view import Report


def render_json(report: Report, manifest: Manifest) -> str:
    """report.json of one run: a line of JSON for each field's part, without NaN or infinity."""
    return report_json(report, manifest).model_dump_json(indent=2) + "\n"


def report_json(report: Report, manifest: Manifest) -> ReportJson:
    """What report.json holds, from the view (words, checks, suites) and the manifest (numbers)."""
    kinds = [str(kind) for kind in KINDS]
    return ReportJson(
        schema_version=SCHEMA_VERSION,
        run_id=one_line(report.run_id),
        created=one_line(manifest.created),
        quantgate_version=one_line(manifest.quantgate_version),
        command=[one_line(word, 2000) for word in hide_secrets(manifest.command)],
        verdict=Decision(
            outcome=report.outcome,
            sentence=one_line(report.sentence, 4000),
            exit_code=report.exit_code,
            after_the_fact=report.after_the_fact,
            checks=dict(report.tally),
        ),
        policy=PolicySeal(
            name=one_line(report.policy_name),
            sha256=report.policy_sha256,
            sealed_sha256=report.sealed_sha256,
            confidence=report.confidence,
            sampling=dict(report.sampling),
        ),
        models={role: _model(facts) for role, facts in manifest.models.items()},
        checks=[_check(row) for row in report.checks],
        suites=[_suite(suite) for suite in report.suites],
        servers=Servers(
            facts=len(report.provenance.facts),
            differences=[
                DifferenceJson(
                    name=one_line(fact.name),
                    reference=one_line(fact.reference, 600),
                    candidate=one_line(fact.candidate, 600),
                    state=fact.state,
                )
                for fact in report.provenance.differing
            ],
            unread=[one_line(name) for name in report.provenance.unread.names],
        ),
        versions={one_line(name): one_line(version) for name, version in manifest.versions.items()},
        hardware={one_line(name): _plain(name, value) for name, value in manifest.hardware.items()},
        data=[
            *(DataFileJson(kind="items", suite=s, sha256=sha, lines=None) for s, sha in manifest.items_sha256.items()),
            *(
                DataFileJson(kind="samples", suite=s, sha256=file.sha256, lines=file.lines)
                for s, file in manifest.samples.items()
            ),
        ],
        pairs=dict(Counter(kinds[row.kind] for row in report.pairs.rows)),
        timings=[Timing(stage=one_line(stage.name), seconds=_number(stage.seconds) or 0) for stage in manifest.stages],
        seconds=_number(report.seconds) or 0,
        reused_from=one_line(manifest.baseline.run_id) if manifest.baseline else None,
        notices=[
            Notice(title=one_line(banner.title, 1000), lines=[one_line(line, 1000) for line in banner.lines])
            for banner in report.banners
        ],
        remarks=[one_line(remark, 1000) for remark in report.remarks],
        notes=[one_line(note, 1000) for note in report.notes],
    )


def _model(facts: ModelFacts) -> ModelJson:
    return ModelJson(
        name=one_line(facts.name),
        sha256=facts.sha256 or None,
        bytes=facts.bytes or None,
        parameters=facts.parameters or None,
        bits_per_weight=_number(facts.bits_per_weight or None),
        linear_bits=_number(facts.linear_bits or None),
        quantization=None if facts.quantization is None else one_line(facts.quantization),
        claimed={one_line(source): one_line(text, 1000) for source, text in facts.claimed.items()},
        doubts=[one_line(doubt, 1000) for doubt in facts.doubts],
    )


def _check(row: CheckRow) -> CheckJson:
    result = row.result
    texts = {name: one_line(getattr(result, name), 4000) for name in ("name", "metric", "on", "reason", "method")}
    texts["title"] = one_line(row.title)
    found = result.model_dump()
    tasks = [task | {"task": one_line(task["task"])} for task in found["tasks"]]
    share = _number(recovery(result.metric, result.reference_value, result.candidate_value))
    return CheckJson.model_validate(found | texts | {"tasks": tasks, "remarks": row.remarks, "recovery": share})


def _suite(suite: SuiteView) -> SuiteJson:
    kl = suite.divergence if suite.divergence and suite.divergence.documents else None
    return SuiteJson(
        name=one_line(suite.name),
        coverage=_coverage(suite.coverage),
        tasks=[
            TaskScore(
                task=one_line(task.task),
                items=task.items,
                n=task.n,
                reference=_role(task.reference),
                candidate=_role(task.candidate),
                difference=_number(task.difference),
                worse=task.worse,
                better=task.better,
            )
            for task in suite.tasks
            if task.n
        ],
        kl=None if kl is None else _kl(kl),
        errors=_failures(suite.errors),
        unscored=_failures(suite.unscored),
    )


def _kl(kl: KlSummary) -> SuiteKl:
    return SuiteKl(
        documents=len(kl.documents), positions=kl.positions, lower=_number(kl.lower), upper=_number(kl.upper)
    )


def _coverage(coverage: Coverage) -> PairCounts:
    return PairCounts(**{name: getattr(coverage, name) for name in PairCounts.model_fields})


def _role(scores: RoleScores) -> RoleScore:
    return RoleScore(
        score=_number(scores.score),
        score_completed=_number(scores.score_completed),
        completed=scores.completed,
        cap_hit_rate=_number(scores.cap_hit_rate),
        limit_rate=_number(scores.limit_rate),
        tokens=_number(scores.tokens),
    )


def _failures(counts: list[tuple[str, str, int]]) -> list[Failures]:
    return [Failures(role=role, what=one_line(what), count=count) for role, what, count in counts]


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(name: str, value: Any) -> JsonValue:
    """Hardware as it was recorded, with texts made visible and nothing that JSON lacks."""
    if isinstance(value, dict):
        return {one_line(str(key)): _plain(str(key), each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(name, each) for each in value]
    if isinstance(value, float):
        return _number(value)
    return value if value is None or isinstance(value, bool | int) else one_line(hide_secret(name, str(value)), 1000)
