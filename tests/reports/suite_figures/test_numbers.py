"""Figures of suites: their numbers, worked out by hand, and equal to those of the tables."""

from __future__ import annotations

import random

import pytest
from report_page import printed
from suite_runs import compared, drafted, pair

from harness.contract.pairs import Pair
from reports.drawing.charts import ChartRow, most_changed, places_of, scale
from reports.known_suites import known_suite
from reports.suite_figures import (
    divergence,
    footprint,
    language,
    speculative,
    speed,
    termination,
)
from reports.suite_tables.table import SuiteRun, nats
from reports.suite_tables.termination import tables as termination_tables

# -- thinking -------------------------------------------------------------------------------------------------------


def thought(reference: float, candidate: float, right: tuple[float, float] = (1.0, 1.0), item: str = "0") -> Pair:
    found = [
        {"thinking_tokens": tokens, **{f"score@{b}": score if tokens <= b else 0.0 for b in (100, 200, 400)}}
        for tokens, score in zip((reference, candidate), right, strict=True)
    ]
    return pair("termination", "easy-en", item, scores=right, metrics=(found[0], found[1]))


def test_scores_within_budgets_are_those_of_the_table() -> None:
    pairs = [thought(50, 150, item="0"), thought(150, 350, item="1"), thought(300, 90, (1.0, 0.0), item="2")]
    assert termination.budgets(pairs) == [(100, 1 / 3, 0.0), (200, 2 / 3, 1 / 3), (400, 1.0, 2 / 3)]
    table = next(t for t in termination_tables(SuiteRun(pairs)) if t.title == "Scores within a budget")
    assert [row[2:4] for row in table.rows] == [("33.3 %", "0.0 %"), ("66.7 %", "33.3 %"), ("100.0 %", "66.7 %")]
    (figure, *_) = termination.figures(SuiteRun(pairs))
    assert figure.finding == "They differ most within 100 tokens: 33.3 % with the reference, 0.0 % with the candidate."
    lacking = pairs[0].candidate.model_copy(update={"metrics": {"score@100": 1.0}})
    assert termination.budgets([*pairs[1:], Pair(pairs[0].reference, lacking)])[0] == (100, 0.0, 0.0)


def test_thinking_is_binned_and_every_answer_counts_once() -> None:
    bounds = termination.edges([1.0, 10.0, 10_000.0])
    assert len(bounds) == termination.BINS + 1 and bounds[0] == 1.0 and bounds[-1] == pytest.approx(10_000)
    shares = termination.histogram([0.0, 1.0, 10_000.0, 9_999.0], bounds)
    assert sum(shares) == 1 and shares[0] == shares[-1] == 0.5
    assert termination.edges([7.0])[-1] > 7
    made = [thought(10.0 * n, 20.0 * n, item=str(n)) for n in range(1, 12)]
    figure = termination.figures(SuiteRun(made))[-1]
    assert figure.finding == (
        "Half of 11 answers think more than 60 tokens with the reference, 120 with the candidate; at most 110 and 220."
    )
    assert [f.title for f in termination.figures(SuiteRun(made[:9]))] == ["Score within a budget"]  # too few to bin
    none = [thought(0.0, 0.0, item=str(n)) for n in range(20)]
    assert [f.title for f in termination.figures(SuiteRun(none))] == ["Score within a budget"]  # nobody thinks


# -- divergence -----------------------------------------------------------------------------------------------------


def test_parts_have_the_samples_kl_and_the_noise_floor() -> None:
    def one(task: str, positions: int, kl: float, role: str = "candidate") -> Pair:
        found = compared(random.Random(0), positions)
        found |= {"kl_lower_sum": kl * positions / 2, "kl_upper_sum": kl * positions}
        found |= {
            "positions@0-1k": 0.75 * positions,
            "kl_upper_sum@0-1k": 0.5 * kl * positions,
            "kl_lower_sum@0-1k": 0.0,
        }
        found |= {"positions@1k-4k": 0.25 * positions, "kl_upper_sum@1k-4k": 0.5 * kl * positions}
        return pair("divergence", task, task, metrics=({}, found), role=role)  # type: ignore[arg-type]

    run = SuiteRun(
        [one("chat-en", 100, 0.04), one("chat-ja", 300, 0.08)],
        noise=[one("chat-en", 100, 0.001, "noise")],
        kl_margin=0.05,
    )
    found = divergence.parts(run)
    assert [(p.group, p.name) for p in found] == [
        ("by position", "0-1k"),
        ("by position", "1k-4k"),
        ("by language", "en"),
        ("by language", "ja"),
    ]  # one kind of prompt is no comparison
    uppers, noise = [p.upper for p in found], [p.noise for p in found]
    assert uppers == pytest.approx([0.5 * 28 / 300, 0.5 * 28 / 100, 0.04, 0.08])
    assert [p.lower for p in found] == pytest.approx([0.0, 0.5 * 28 / 100, 0.02, 0.04])
    assert noise[:3] == pytest.approx([0.05 / 75, 0.05 / 25, 0.001]) and noise[3] is None
    bars, documents = divergence.figures(run)
    assert bars.finding == f"Highest by position: 1k-4k, {nats(0.14)} nats a position, where the noise floor is 0.0020."
    assert (
        documents.finding
        == "Half of 2 documents lie above 0.0600, the mean is 0.0700 nats a position, its margin 0.0500."
    )
    assert ("line", "margin of the mean 0.0500") in documents.legend
    assert ("ring", "noise floor") in bars.legend
    quiet = divergence.figures(SuiteRun(run.pairs))
    assert ("ring", "noise floor") not in quiet[0].legend and not any("margin" in word for _, word in quiet[1].legend)


# -- the others -----------------------------------------------------------------------------------------------------


def test_scripts_are_means_over_answers_by_the_language_asked_for() -> None:
    def one(task: str, item: str, kana: tuple[float, float]) -> Pair:
        found = [{"answer_kana": share, "answer_han": 1 - share, "answer_latin": 0.0} for share in kana]
        return pair("language", task, item, metrics=(found[0], found[1]))

    pairs = [
        one("facts-ja", "0", (0.6, 0.2)),
        one("cross-en-ja", "1", (0.8, 0.4)),
        one("facts-zh", "0", (0.001, 0.001)),
    ]
    rows = language.script_shares(pairs, "answer")
    assert [(row.group, row.label) for row in rows] == [("Japanese", "Kana"), ("Japanese", "Han"), ("Chinese", "Han")]
    assert [row.reference for row in rows] == pytest.approx([0.7, 0.3, 0.999])
    assert [row.candidate for row in rows] == pytest.approx([0.3, 0.7, 0.999])
    assert language.script_shares(pairs, "reasoning") == []
    (figure,) = [f for f in language.figures(SuiteRun(pairs)) if "answers" in f.title]
    assert figure.finding == (
        "Most changed: Kana where Japanese is asked for, 70.0 % with the reference and 30.0 % with the candidate."
    )


def test_exit_statuses_are_shares_of_the_graded_pairs() -> None:
    ends = [
        ("Submitted", "Submitted"),
        ("Submitted", "LimitsExceeded"),
        ("Submitted", "LimitsExceeded"),
        ("x", "Submitted"),
    ]
    made = [
        pair("swebench", "t", str(n), scores=(1.0, 1.0), metrics=({f"exit {r}": 1.0}, {f"exit {c}": 1.0}))
        for n, (r, c) in enumerate(ends)
    ]
    made.append(pair("swebench", "t", "ungraded", scores=(None, 1.0), metrics=({"exit y": 1.0}, {"exit y": 1.0})))
    (figure,) = known_suite("swebench").figures(SuiteRun(made))
    assert figure.finding == (
        "Most changed: LimitsExceeded, 0.0 % of trajectories with the reference and 50.0 % with the candidate."
    )
    words = printed(figure.draw("x"))
    assert [w for w in words if not w.isdigit()] == ["share of the trajectories, %", "Submitted", "LimitsExceeded", "x"]
    same = [made[0], pair("swebench", "t", "z", scores=(0.0, 0.0), metrics=({"exit x": 1.0},) * 2)]
    assert known_suite("swebench").figures(SuiteRun(same))[0].finding == "Both roles' trajectories ended alike."


def test_acceptance_is_summed_over_answers() -> None:
    rng = random.Random(5)
    pairs = [pair("speculative", "t", str(n), metrics=(drafted(rng, 0.8), drafted(rng, 0.6))) for n in range(3)]
    found = speculative.acceptance(SuiteRun(pairs))
    for place, reference, candidate in found:
        for share, role in ((reference, "reference"), (candidate, "candidate")):
            metrics = [getattr(p, role).metrics for p in pairs]
            assert share == sum(m[f"accepted_pos_{place}"] for m in metrics) / sum(m["drafts"] for m in metrics)
    assert [place for place, *_ in found] == [0, 1]


def test_speed_is_the_mean_of_rounds_that_both_have_by_concurrency() -> None:
    def one(task: str, item: str, reference: float, candidate: float | None) -> Pair:
        more = {} if candidate is None else {"tokens_per_second": candidate}
        return pair("speed", task, item, metrics=({"tokens_per_second": reference}, more))

    pairs = [one("c8", "0", 100, 150), one("c8", "1", 200, 250), one("c8", "2", 999, None), one("c1", "0", 10, 12)]
    run = SuiteRun(pairs)
    assert speed.means(run, "tokens_per_second") == {1: (10, 12), 8: (150, 200)}
    (figure,) = speed.figures(run)
    assert figure.finding == (
        "Reference and candidate: 10.0 and 12.0 tokens a second with 1 request; 150 and 200 tokens a second with 8 "
        "requests at once. More is better."
    )


def test_sizes_are_shares_of_the_references_and_zero_is_left_out() -> None:
    reference = {"bytes": 1000.0, "bits_per_weight": 16.0, "load_bytes": 0.0, "resident_bytes": 10.0}
    candidate = {"bytes": 250.0, "bits_per_weight": 4.0, "load_bytes": 5.0, "resident_bytes": 1000.0}
    run = SuiteRun([pair("footprint", "checkpoint", metrics=(reference, candidate))])
    assert [(s.words, s.reference, s.candidate, s.ratio) for s in footprint.shares(run)] == [
        ("Checkpoint on disk", "1 kB", "250 B", 0.25),
        ("Bits per weight", "16.00", "4.00", 0.25),
    ]  # 100 times as much would flatten the figure, and a share of nothing is none
    assert footprint.figures(run)[0].finding == "Of the reference's: checkpoint on disk 25 %; bits per weight 25 %."


def test_rows_stand_in_groups_and_scales_leave_room() -> None:
    places, headings, height = places_of(["a", "a", "b"])
    assert (places, headings, height) == ([1, 2, 4.35], [(0, "a"), (3.35, "b")], 5.35)
    assert places_of(["", ""]) == ([0, 1], [], 2)
    assert scale([1.0, 3.0]) == pytest.approx((0.76, 3.24))
    assert scale([1.0, 3.0], 0.0) == pytest.approx((0.0, 3.36))
    assert scale([0.0]) == (-1.0, 1.0)
    rows = [ChartRow("", "a", 0.5, 0.5), ChartRow("", "b", 0.5, 0.5004)]
    assert most_changed(rows) is None
    assert most_changed([*rows, ChartRow("", "c", 0.1, 0.2)]) == ChartRow("", "c", 0.1, 0.2)
