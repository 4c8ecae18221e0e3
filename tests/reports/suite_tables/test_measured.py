"""Termination, language, drafts, footprint and speed: tables against figures worked out by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest
from suite_runs import drafted, footprint, pair

from harness.contract.samples import Role
from reports.suite_tables import footprint as footprint_tables
from reports.suite_tables import language, speculative, speed, termination
from reports.suite_tables.table import SuiteRun, Table


def titled(tables: list[Table], title: str) -> Table:
    return next(table for table in tables if table.title == title)


def thought(tokens: float, markers: float, **more: float) -> dict[str, float]:
    return {
        "unterminated": 0.0,
        "looped": 0.0,
        "thinking_chars": 4 * tokens,
        "thinking_tokens": tokens,
        "markers": markers,
    } | more


def test_termination_pools_markers_and_thinking_by_tokens() -> None:
    pairs = [
        pair("termination", "hard-ja", "0", scores=(1.0, 1.0), metrics=(thought(1000, 4), thought(3000, 30))),
        pair(
            "termination", "hard-ja", "1", scores=(1.0, 0.0), metrics=(thought(3000, 4), thought(3000, 30, looped=1.0))
        ),
        pair(
            "termination",
            "easy-en",
            "0",
            scores=(1.0, 1.0),
            metrics=(thought(2000, 0), thought(2000, 2, uncommitted=1.0)),
        ),
    ]
    tables = termination.tables(SuiteRun(pairs))
    assert tables[0].rows[0] == (
        "hard-ja",
        "2",
        "0.0 %",
        "0.0 %",
        "0.0 %",
        "50.0 %",
        "–",
        "–",
        "2,000",
        "3,000",
        "1.50",
    )
    assert tables[0].rows[-1][-3:] == ("2,000", "2,667", "1.33") and tables[0].rows[1][7] == "100.0 %"
    assert titled(tables, "Over-thinking markers").rows == [
        ("ja", "2", "2.00", "10.00", "5.00"),
        ("en", "1", "0.00", "1.00", "–"),
        ("all languages", "3", "1.33", "7.75", "5.81"),
    ]
    assert titled(tables, "Scores").rows[-1][2:4] == ("100.0 %", "66.7 %")
    assert "Scores within a budget" not in [table.title for table in tables]


def test_markers_of_a_model_that_does_not_think_apart_are_of_its_whole_answer() -> None:
    metrics = {"markers": 3.0, "thinking_chars": 0.0, "thinking_tokens": 0.0}
    pairs = [pair("termination", "hard-en", metrics=(metrics, metrics), completion_tokens=1500)]
    assert titled(termination.tables(SuiteRun(pairs)), "Over-thinking markers").rows == [
        ("en", "1", "2.00", "2.00", "1.00")
    ]


def test_scores_within_budgets_are_those_of_pairs_that_both_have_them() -> None:
    pairs = [
        pair(
            "termination",
            "a-en",
            "0",
            metrics=({"score@4096": 1.0, "score@16384": 1.0}, {"score@4096": 0.0, "score@16384": 1.0}),
        ),
        pair("termination", "a-en", "1", metrics=({"score@4096": 1.0, "score@16384": 1.0}, {"score@16384": 1.0})),
    ]
    table = titled(termination.tables(SuiteRun(pairs)), "Scores within a budget")
    assert table.rows == [("4,096", "1", "100.0 %", "0.0 %", "−100.0"), ("16,384", "2", "100.0 %", "100.0 %", "0.0")]


def test_languages_count_only_answers_that_are_in_one() -> None:
    wrong = {
        "wrong_language": 1.0,
        "garbled": 1.0,
        "answer_latin": 0.75,
        "answer_kana": 0.25,
        "mixed_words": 2.0,
        "broken_characters": 1.0,
    }
    right = {
        "wrong_language": 0.0,
        "answer_latin": 0.0,
        "answer_kana": 1.0,
        "mixed_words": 0.0,
        "broken_characters": 0.0,
    }
    short = {"mixed_words": 0.0, "broken_characters": 0.0}
    pairs = [
        pair("language", "facts-ja", "0", scores=(1.0, 1.0), metrics=(right, wrong)),
        pair("language", "facts-ja", "1", scores=(1.0, 1.0), metrics=(right, short)),
    ]
    first, scripts, scores = language.tables(SuiteRun(pairs))
    assert first.columns[2:4] == ("Wrong language of the answer: reference", "Wrong language of the answer: candidate")
    assert first.rows == [("facts-ja", "2", "0.0 %", "100.0 % of 1", "–", "100.0 % of 1", "0", "2", "0", "1")]
    assert scripts.columns[1:] == ("Kana: reference", "Kana: candidate", "Latin: reference", "Latin: candidate")
    assert scripts.rows == [("facts-ja", "100.0 %", "25.0 %", "0.0 %", "75.0 %")]
    assert scores.rows[0][2] == "100.0 %"


def test_acceptance_is_pooled_over_tokens_and_shown_by_position() -> None:
    def counts(drafts: float, first: float, second: float) -> dict[str, float]:
        found = {"drafts": drafts, "draft_tokens": 2 * drafts, "accepted_tokens": first + second}
        return found | {
            "accepted_pos_0": first,
            "accepted_pos_1": second,
            "accepted_length": 1 + (first + second) / drafts,
        }

    pairs = [
        pair("speculative", "chat-en", "0", metrics=(counts(100, 80, 40), counts(300, 150, 0))),
        pair("speculative", "chat-en", "1", metrics=(counts(300, 240, 200), counts(100, 50, 0))),
    ]
    whole, by_position = speculative.tables(SuiteRun(pairs))
    assert whole.rows == [("chat-en", "2", "70.0 %", "25.0 %", "−45.0", "2.40", "1.50", "800", "800")]
    assert by_position.rows == [("1", "80.0 %", "50.0 %", "−30.0"), ("2", "60.0 %", "0.0 %", "−60.0")]


def test_a_server_that_drafts_nothing_has_no_acceptance() -> None:
    nothing = {"drafts": 0.0, "draft_tokens": 0.0}
    (table,) = speculative.tables(SuiteRun([pair("speculative", "chat-en", metrics=(nothing, nothing))]))
    assert table.note == "Not measured: neither server drafted a token in this suite's answers."
    one = pair("speculative", "chat-en", metrics=(drafted(random.Random(0), 0.8), nothing))
    row = dict(zip((table := speculative.tables(SuiteRun([one]))[0]).columns, table.rows[0], strict=True))
    assert (row["Accepted: candidate"], row["Accepted length: candidate"]) == ("–", "–")
    assert (row["Drafted tokens: candidate"], row["Difference, points"]) == ("0", "–")


def test_acceptance_of_every_suite_comes_from_the_manifest() -> None:
    counted = {"drafts": 100.0, "draft_tokens": 100.0, "accepted_tokens": 75.0}
    found: dict[str, dict[Role, dict[str, float]]] = {
        "cot": {"reference": counted, "candidate": counted | {"accepted_tokens": 50.0}},
        "ruler": {},
        "needle": {"candidate": counted},
    }
    table = titled(speculative.tables(SuiteRun([], speculative=found)), "Acceptance by suite")
    assert table.rows == [
        ("cot", "75.0 %", "50.0 %", "−25.0", "1.75", "1.50", "100", "100"),
        ("needle", "–", "75.0 %", "–", "–", "1.75", "–", "100"),
    ]


def test_footprint_has_ratios_and_gpus() -> None:
    whole, gpus = footprint_tables.tables(SuiteRun([footprint()]))
    rows = {row[0]: row[1:] for row in whole.rows}
    assert rows["Checkpoint on disk"] == ("15.2 GB", "5.57 GB", "0.366")
    assert rows["Bits per weight"] == ("16.00", "5.85", "0.366")
    assert rows["Draft head"] == ("0 B", "0 B", "–")
    assert rows["Room of the KV cache, tokens"] == ("412,304", "412,304", "1.000")
    assert "Main memory of the server" not in rows and "Main memory of the server" in whole.note
    assert gpus.rows == [("24 GiB", "4", "2"), ("80 GiB", "1", "1")]


def test_a_fact_of_one_role_is_not_measured_for_the_other() -> None:
    one = pair(
        "footprint", "checkpoint", metrics=({"bytes": 1e9, "gpus_24gib": 1.0}, {"gpus_24gib": 1.0, "gpus_80gib": 1.0})
    )
    whole, gpus = footprint_tables.tables(SuiteRun([one]))
    assert whole.rows == [("Checkpoint on disk", "1 GB", "not measured", "–")]
    assert gpus.rows == [("24 GiB", "1", "1"), ("80 GiB", "–", "1")]


def test_speed_has_the_ratio_of_means_and_the_range_of_the_rounds() -> None:
    def both(reference: float, candidate: float) -> tuple[dict[str, float], dict[str, float]]:
        return {"tokens_per_second": reference, "ttft_p50_ms": 40.0}, {
            "tokens_per_second": candidate,
            "ttft_p50_ms": 20.0,
        }

    pairs = [pair("speed", "c32", "r00", metrics=both(100, 150)), pair("speed", "c32", "r01", metrics=both(300, 600))]
    pairs += [pair("speed", "c8", "r00", metrics=both(50, 40))]
    (table,) = speed.tables(SuiteRun(pairs))
    assert [row[:6] for row in table.rows] == [
        ("8", "1", "50.0", "40.0", "0.80", "0.80 to 0.80"),
        ("32", "2", "200.0", "375.0", "1.88", "1.50 to 2.00"),
    ]
    assert table.rows[0][6:] == ("40", "20", "0.50", "0.50 to 0.50", "–", "–", "–", "–")


@pytest.mark.parametrize("suite", [termination, language, speculative, footprint_tables, speed])
def test_samples_without_metrics_are_not_measured(suite: Any) -> None:
    tables = suite.tables(SuiteRun([pair("x", "a-en")]))
    assert all(not table.rows and table.note.startswith("Not measured: ") for table in tables)
