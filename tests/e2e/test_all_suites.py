"""Every suite in one gate on real vLLM servers: asked of both roles, measured, judged and shown.

Tasks whose data are not this project's are asked where QUANTGATE_DATA (or ../shared/data) has them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from browser_page import check_page

from harness.contract.pairs import Pair, pair_samples
from harness.contract.samples import ROLES, Role, Sample
from harness.judging.verdict import EXIT_CODES
from harness.offline.answer_files import Answer
from harness.offline.scoring import score_answers
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from suites.registry import SUITES
from tests.e2e.conftest import SUITE_SETTINGS

pytestmark = pytest.mark.e2e

IN_CONTAINERS = {"swebench"}
"""Suites that need an engine: test_swebench.py."""
UNREADABLE = {"wrong_language_rate", "acceptance", "accepted_length"}
"""Checks that leave a pair out where an answer is too short to tell its language, or had no draft."""

Samples = dict[str, dict[Role, list[Sample]]]


@pytest.fixture(scope="module")
def run(finished: tuple[RunFolder, int, str]) -> RunFolder:
    return finished[0]


@pytest.fixture(scope="module")
def samples(run: RunFolder) -> Samples:
    """By suite and role."""
    found: Samples = defaultdict(lambda: defaultdict(list))
    for sample in run.samples():
        found[sample.suite][sample.role].append(sample)
    return found


@pytest.fixture(scope="module")
def pairs(run: RunFolder) -> dict[str, list[Pair]]:
    """By suite."""
    found: dict[str, list[Pair]] = defaultdict(list)
    for key, pair in pair_samples(run.samples(), run.planned()).pairs.items():
        found[key[0]].append(pair)
    return found


def test_every_planned_item_was_answered_by_both_roles(finished: tuple[RunFolder, int, str]) -> None:
    run, status, printed = finished
    assert status == EXIT_CODES[run.verdict().verdict], printed
    found, planned = list(run.samples()), run.planned()
    assert {key[0] for key in planned} == SUITE_SETTINGS.keys() == SUITES.keys() - IN_CONTAINERS
    assert not [sample.error for sample in found if sample.error]
    assert Counter((s.key.pair, s.role) for s in found) == Counter((key, role) for key in planned for role in ROLES)
    pairing = pair_samples(found, planned)
    assert len(pairing.pairs) == len(planned) and not pairing.unusable and not pairing.foreign
    for facts in run.manifest().servers.values():
        assert facts.readback["run.restarts"] == "none"
        assert facts.readback["run.budget"].startswith("arrives as asked")  # the benchmark's requests are among them


def test_every_check_was_judged(run: RunFolder) -> None:
    checks = run.verdict().checks
    assert len(checks) == len(run.sealed_policy().policy.checks)
    for check in checks:
        assert check.n > 0 and check.estimate is not None, check.reason
        assert check.missing == check.unequal == check.foreign == 0
        assert check.errored == 0 or check.metric in UNREADABLE, check.reason


def test_the_report_shows_every_suite(run: RunFolder) -> None:
    page = (run.report_path / "index.html").read_text("utf-8")
    shown = {}
    for section in page.split('<section class="suite"')[1:]:
        heading = re.search(r"<h3[^>]*>(.*?)</h3>", section)
        bodies = re.findall(r"<tbody>(.*?)</tbody>", section.split("</section>")[0], re.DOTALL)
        assert heading
        shown[heading[1]] = [len(re.findall(r"<td[^>]*>[^<]*\d", body)) for body in bodies]
    assert shown.keys() == SUITE_SETTINGS.keys()
    assert all(cells and cells[0] > 0 for cells in shown.values()), shown  # the first table has figures


@pytest.mark.parametrize("suite", ["cot", "ruler", "needle", "termination", "language"])
def test_stored_answers_are_scored_alike_without_a_server(
    run: RunFolder, samples: Samples, suite: str, tmp_path: Path
) -> None:
    live = samples[suite]["candidate"]
    answers, out = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    lines = [sample.model_dump_json(include=set(Answer.model_fields)) for sample in live]
    answers.write_text("\n".join(lines) + "\n", "utf-8")
    scores = score_answers(suite, run.items_path(suite), answers, Reporter(), out=out)
    assert not scores.errors and not scores.missing
    assert [Sample.model_validate_json(line) for line in out.read_text("utf-8").splitlines()] == live


def test_divergence_and_decoding_compare_position_by_position(pairs: dict[str, list[Pair]]) -> None:
    for _, candidate in pairs["divergence"]:
        found = candidate.metrics
        assert 0 < found["kl_lower_sum"] <= found["kl_upper_sum"]
        assert 0 <= found["flips"] <= found["positions"] == found["positions@0-1k"] <= 32
    assert sum(candidate.metrics["flips"] for _, candidate in pairs["divergence"]) > 0
    for reference, candidate in pairs["decoding"]:
        found = candidate.metrics
        assert found["decode_positions"] == found["first_divergence"] + found["diverged"] <= 32
        assert found["diverged"] or candidate.text == reference.text
    assert sum(candidate.metrics["diverged"] for _, candidate in pairs["decoding"]) > 0


def test_answers_say_how_they_ended_and_in_which_script(samples: Samples) -> None:
    for role in ROLES:
        for sample in (sample for suite in ("cot", "ruler", "needle") for sample in samples[suite][role]):
            assert sample.score is not None and {"unterminated", "looped"} <= sample.metrics.keys()
        for sample in samples["termination"][role]:
            assert {"answered", "uncommitted", "markers", "greedy"} <= sample.metrics.keys()
            assert "score@4096" not in sample.metrics  # nobody had such a budget
        scripts = []
        for sample in samples["language"][role]:
            shares = {name: share for name, share in sample.metrics.items() if name.startswith("answer_")}
            assert not shares or sum(shares.values()) == pytest.approx(1)
            scripts.append(shares)
        for script in ("answer_kana", "answer_latin"):
            assert any(shares.get(script, 0) > 0.5 for shares in scripts)
    # The reference is a working model: it finds needles and knows the capital of France.
    for suite in ("needle", "language"):
        assert sum(sample.score or 0 for sample in samples[suite]["reference"]) > 0


def test_drafts_are_counted_for_each_answer_and_each_suite(run: RunFolder, samples: Samples) -> None:
    drafted = run.manifest().speculative
    assert drafted.keys() <= SUITES.keys() and {"cot", "speculative", "speed"} <= drafted.keys()
    for role in ROLES:
        answers = samples["speculative"][role]
        for name in ("drafts", "draft_tokens", "accepted_tokens"):
            total = sum(sample.metrics.get(name, 0) for sample in answers)
            assert drafted["speculative"][role][name] == total > 0
        for sample in answers:
            found = sample.metrics
            lengths = [found.get(f"accepted_pos_{p}", 0.0) for p in range(3)]
            assert lengths == sorted(lengths, reverse=True) and sum(lengths) == found["accepted_tokens"]
            assert found["draft_tokens"] <= 3 * found["drafts"]
            assert 1 <= found.get("accepted_length", 1.0) <= 4


def test_footprint_and_speed_are_measured(pairs: dict[str, list[Pair]]) -> None:
    ((reference, candidate),) = pairs["footprint"]
    assert reference.metrics["bits_per_weight"] == 16 and 6 < candidate.metrics["bits_per_weight"] < 7.5
    assert 0.4 < candidate.metrics["bytes"] / reference.metrics["bytes"] < 0.5
    for found in (reference.metrics, candidate.metrics):
        assert found["kv_bytes"] == 2**30 and found["gpus_24gib"] == 1 and found["resident_bytes"] > found["bytes"]
        # 30 layers x 3 KV heads x 64 x 2 (K and V) x 4 bytes for each token, in whole blocks
        assert found["kv_tokens"] == pytest.approx(2**30 / 46_080, rel=0.02)
    ((reference, candidate),) = pairs["speed"]
    for sample in (reference, candidate):
        found = sample.metrics
        assert (sample.task, sample.item) == ("c4", "r00")
        assert (found["completed"], found["failed"], found["output_tokens"]) == (8, 0, 24 * 8)
        assert found["input_tokens"] == pytest.approx(160 * 8, rel=0.05)
        assert 1 < found["tokens_per_second"] < found["total_tokens_per_second"]
        assert 0 < found["ttft_p50_ms"] <= found["ttft_p99_ms"] and found["tpot_p50_ms"] > 0


def test_the_report_is_fit_to_be_published(run: RunFolder) -> None:
    check_page(run.report_path / "index.html")
