"""Divergence and decoding: the tables against numpy over the same positions, and a published survival table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_page import reports_of
from suite_runs import pair, store

from harness.contract.pairs import Pair
from harness.contract.samples import Role
from harness.endpoint.client import Scores
from harness.runs.positions import CONFIDENCES, position_summary
from reports.render import read_report
from reports.suite_tables import decoding, divergence
from reports.suite_tables.table import SuiteRun, Table
from suites.divergence.kl_bounds import Comparison, compare_scores
from suites.divergence.parquet_files import rounded, write_trajectory


def scored(seed: int, n: int, shift: float, ids: np.ndarray | None = None) -> Scores:
    """Top-8 lists of n positions of a model near another one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 40)) + shift * np.random.default_rng(seed + 1).normal(0, 1, (n, 40))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    top = np.argsort(-logprobs, axis=1)[:, :8].astype(np.int32)
    there = top[:, 0] if ids is None else ids
    rows = np.arange(n)
    return rounded(
        Scores(
            there.astype(np.int32),
            logprobs[rows, there].astype(np.float32),
            top,
            np.take_along_axis(logprobs, top.astype(np.int64), axis=1).astype(np.float32),
        )
    )


def stored_run(folder: Path, role: Role, shift: float, n: int = 1500) -> tuple[list[Pair], list[Comparison]]:
    """Pairs of three trajectories as the suite writes them, with their files."""
    pairs, found = [], []
    for place, task in enumerate(("chat-en", "code-en", "chat-ja")):
        reference = scored(place, n, 0.0)
        other = scored(place, n, shift, reference.token_ids)
        compared = compare_scores(reference, other)
        write_trajectory(folder / f"{task}-01.{role}.parquet", [1], other, task, compared)
        pairs.append(pair("divergence", task, f"{task}-01", metrics=({}, compared.totals()), role=role))
        found.append(compared)
    return pairs, found


def cells(table: Table, column: int = 1) -> dict[str, str]:
    return {row[0]: row[column] for row in table.rows}


def test_every_figure_is_that_of_all_positions(tmp_path: Path) -> None:
    pairs, found = stored_run(tmp_path, "candidate", 0.3)
    noise, _ = stored_run(tmp_path, "noise", 0.01)
    positions = {role: summary for role in ("candidate", "noise") if (summary := position_summary(tmp_path, role))}
    tables = divergence.tables(SuiteRun(pairs, (), noise, positions))  # type: ignore[arg-type]
    whole = cells(tables[0])
    lower, upper = (np.concatenate([getattr(one, f"kl_{side}") for one in found]) for side in ("lower", "upper"))

    def said(value: float) -> str:
        return f"{value:.4f}" if value >= 0.001 else f"{value:#.2g}"

    assert whole["Positions"] == "4,500" and whole["Answers"] == "3"
    assert whole["Mean KL, nats a position"] == f"{said(lower.mean())} to {said(upper.mean())}"
    for name, share in (("Median KL", 0.5), ("99 % of positions below", 0.99), ("99.9 % of positions below", 0.999)):
        assert whole[name] == f"{said(np.quantile(lower, share))} to {said(np.quantile(upper, share))}"
    assert whole["Largest KL"] == f"{said(lower.max())} to {said(upper.max())}"
    flips = np.concatenate([one.flips for one in found])
    assert whole["Same likeliest token"] == f"{100 * (1 - flips.mean()):.2f} %"
    assert whole["Flips of the likeliest token"] == f"{100 * flips.mean():.2f} % ({flips.sum():,})"
    ours, theirs = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("logprobs", "reference_logprobs")
    )
    change = np.exp(ours) - np.exp(theirs)
    assert whole["RMS change of the token's probability"] == f"{100 * np.sqrt((change**2).mean()):.2f} %"
    assert whole["Mean change of the token's probability"] == f"{100 * change.mean():.2f} %".replace("-", "−")
    assert whole["Perplexity ÷ the reference's"] == f"{np.exp((theirs - ours).mean()):.4f}"
    floor = cells(tables[0], 2)
    assert all(floor[name] not in ("not measured", whole[name]) for name in whole if "KL" in name or "RMS" in name)
    assert "Percentiles" not in tables[0].note
    confidence = "By the reference's probability of its likeliest token"
    titles = ["By position in the answer", confidence, "By language", "By kind of prompt"]
    assert [table.title for table in tables[1:]] == titles
    sure = np.concatenate([one.confidence for one in found])
    there = [part for low, high in CONFIDENCES.values() if (part := upper[(low <= sure) & (sure < high)]).size]
    for row, part in zip(tables[2].rows, there, strict=True):
        assert row[1] == f"{part.size:,}" and row[2].endswith(f" to {said(part.mean())}")
    for name, attribute in (
        ("Total variation, mean of answers", "tv"),
        ("Jensen–Shannon in nats, mean of answers", "js"),
    ):
        means = [np.mean([getattr(one, f"{attribute}_{side}").mean() for one in found]) for side in ("lower", "upper")]
        assert whole[name] == f"{said(means[0])} to {said(means[1])}"
    capped = [np.mean([np.minimum(getattr(c, f"kl_{s}"), 1).mean() for c in found]) for s in ("lower", "upper")]
    assert whole["KL of at most 1 nat, mean of answers"] == f"{said(capped[0])} to {said(capped[1])}"
    first = np.concatenate([one.kl_upper[:1024] for one in found])
    assert [row[:2] for row in tables[1].rows] == [("0-1k", "3,072"), ("1k-4k", "1,428")]
    assert tables[1].rows[0][2].endswith(f" to {said(first.mean())}")
    assert tables[1].rows[0][3].endswith(f" to {said(np.quantile(first, 0.99))}")
    assert [row[:2] for row in tables[3].rows] == [("en", "3,000"), ("ja", "1,500")]
    assert [row[:2] for row in tables[4].rows] == [("chat", "3,000"), ("code", "1,500")]


def test_without_the_files_sums_say_what_they_can(tmp_path: Path) -> None:
    pairs, _ = stored_run(tmp_path, "candidate", 0.3, n=200)
    whole = divergence.tables(SuiteRun(pairs))[0]
    missing = {name for name, cell in cells(whole).items() if cell == "not measured"}
    assert missing == {"Median KL", "99 % of positions below", "99.9 % of positions below"}
    assert whole.columns == ("", "Candidate") and "there are none that can be" in whole.note


def test_files_of_other_positions_are_told(tmp_path: Path) -> None:
    pairs, _ = stored_run(tmp_path, "candidate", 0.3, n=200)
    summary = position_summary(tmp_path)
    assert summary is not None
    whole = divergence.tables(SuiteRun(pairs[:2], positions={"candidate": summary}))[0]
    assert "Percentiles are of the 600 positions stored" in whole.note and cells(whole)["Positions"] == "400"


def test_the_report_reads_the_files_and_names_a_broken_one(tmp_path: Path) -> None:
    pairs, _ = stored_run(tmp_path / "run" / "divergence", "candidate", 0.3, n=200)
    folder = store(tmp_path / "run", pairs)
    view = next(view for view in read_report(folder).suites if view.name == "divergence")
    assert cells(view.tables[0])["Median KL"] != "not measured"
    (folder.path / "divergence" / "chat-en-01.candidate.parquet").write_bytes(b"PAR1")
    report = read_report(folder)
    assert any(note.startswith("divergence/chat-en-01.candidate.parquet: not a traj") for note in report.notes)
    view = next(view for view in report.suites if view.name == "divergence")
    assert cells(view.tables[0])["Median KL"] == "not measured"
    assert "Percentiles are read from the files under divergence/" in reports_of(folder)["index.html"]


def test_older_runs_have_one_task_and_fewer_sums() -> None:
    metrics = {"positions": 100.0, "kl_lower_sum": 1.0, "kl_upper_sum": 2.0, "flips": 3.0}
    tables = divergence.tables(SuiteRun([pair("divergence", "trajectories", metrics=({}, metrics))]))
    assert len(tables) == 1 and cells(tables[0])["Mean KL, nats a position"] == "0.0100 to 0.0200"
    assert cells(tables[0])["RMS change of the token's probability"] == "not measured"


def ended(*probabilities: tuple[float, float] | None) -> SuiteRun:
    """Documents with the closing tag's probability by (reference, candidate); None: thinking was not closed."""
    pairs = []
    for i, row in enumerate(probabilities):
        one = {"positions": 10.0, "kl_lower_sum": 0.1, "kl_upper_sum": 0.2, "flips": 0.0, "thinking_closed": 0.0}
        both = [one | ({"thinking_closed": 1.0, "end_of_thinking": p} if row else {}) for p in row or (0.0, 0.0)]
        pairs.append(pair("divergence", "chat-en", f"chat-en-{i:02d}", metrics=(both[0], both[1])))
    return SuiteRun(pairs)


def test_the_end_of_thinking_is_shown_where_the_reference_closed_it() -> None:
    table = divergence.tables(ended((0.9, 0.5), None, (0.7, 0.6)))[-1]
    assert table.title == "The end of thinking"
    assert table.rows == [("Reference", "2", "80.00 %", "70.00 %"), ("Candidate", "2", "55.00 %", "50.00 %")]


def test_a_model_that_does_not_think_is_said_to_have_no_end_of_it() -> None:
    table = divergence.tables(ended(None, None))[-1]
    assert (table.rows, table.note) == ((), "Not applicable: the reference closed no thinking in any answer.")


# -- decoding -------------------------------------------------------------------------------------------------------

REMISSION = [6, 6, 6, 7, 10, 13, 16, 22, 23], [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
"""Weeks of remission under 6-mercaptopurine (Freireich et al. 1963): ended, and still going on when last seen."""


def test_the_median_is_that_of_a_published_survival_table() -> None:
    ended, going_on = REMISSION
    assert decoding.median_time([*ended, *going_on], [True] * len(ended) + [False] * len(going_on)) == 23


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_without_cut_off_answers_it_is_the_lower_median(times: list[int]) -> None:
    assert decoding.median_time(times, [True] * len(times)) == sorted(times)[(len(times) - 1) // 2]


def test_half_that_never_part_have_no_median() -> None:
    assert decoding.median_time([3.0, 9.0, 9.0], [True, False, False]) is None


def parted(task: str, item: str, first: int, diverged: bool, role: Role = "candidate") -> Pair:
    metrics = {
        "first_divergence": float(first),
        "diverged": float(diverged),
        "decode_positions": float(first + diverged),
    }
    return pair("decoding", task, item, metrics=({}, metrics), role=role)


def test_greedy_answers_stand_beside_the_noise_floor() -> None:
    pairs = [parted("chat-en", "0", 10, True), parted("chat-en", "1", 30, True), parted("code-en", "0", 64, False)]
    noise = [parted("chat-en", "0", 48, True, "noise")]
    (table,) = decoding.tables(SuiteRun(pairs, (), noise))
    assert table.columns[2:4] == ("Never parted: candidate", "Never parted: noise")
    assert table.rows == [
        ("chat-en", "2", "0.0 %", "0.0 %", "10", "48", "4.76 %", "2.04 %"),
        ("code-en", "1", "100.0 %", "–", "more than 64", "–", "0.00 %", "–"),
        ("all tasks", "3", "33.3 %", "0.0 %", "30", "48", "1.89 %", "2.04 %"),
    ]
    (alone,) = decoding.tables(SuiteRun(pairs[:2]))
    assert alone.rows == [("chat-en", "2", "0.0 %", "10", "4.76 %")]


@pytest.mark.parametrize("metrics", [{}, {"first_divergence": 3.0}])
def test_decoding_without_metrics_is_not_measured(metrics: dict[str, float]) -> None:
    (table,) = decoding.tables(SuiteRun([pair("decoding", "chat-en", metrics=({}, metrics))]))
    assert not table.rows
