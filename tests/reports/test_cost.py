"""What a run took and what its models fit on: words at the top of the page."""

from __future__ import annotations

from pathlib import Path

from report_page import page_of
from report_runs import make_run, manifest, sample
from suite_runs import footprint, pair, store

from harness.contract.samples import Sample
from harness.runs.manifest import Baseline, Stage
from reports.cost import costs
from reports.samples.pairs import StoredPairs, collect
from reports.suite_tables.footprint import fits_on


def of(*samples: Sample) -> StoredPairs:
    return collect(samples)


def test_time_gpu_hours_and_tokens_of_all_roles() -> None:
    facts = manifest()
    facts.stages = [Stage(name="cot", seconds=5400), Stage(name="cot", seconds=1800), Stage(name="x", seconds=-9)]
    facts.hardware = {"gpus": [{"name": "H100"}, {"name": "H100"}, {"name": "A10"}, "odd"]}
    stored = of(
        sample("reference", "cot", "t", "1", prompt_tokens=1_000_000, completion_tokens=200),
        sample("candidate", "cot", "t", "1", prompt_tokens=500_000, completion_tokens=None),
        sample("noise", "cot", "t", "1", prompt_tokens=1000, completion_tokens=34),
    )
    assert costs(facts, stored) == [
        ("Time", "2 h 00 min"),
        ("GPU-hours", "6, on 2 × H100, 1 × A10"),
        ("Tokens read and written", "1.5 M and 234"),
    ]


def test_a_reused_reference_cost_nothing_and_says_so() -> None:
    facts = manifest()
    facts.baseline = Baseline(run_id="before", created="2025-01-01", path="/runs/before")
    stored = of(
        sample("reference", "cot", "t", "1", prompt_tokens=900, completion_tokens=900),
        sample("candidate", "cot", "t", "1", prompt_tokens=10, completion_tokens=5),
        sample("noise", "cot", "t", "1", prompt_tokens=900, completion_tokens=900),
    )
    assert costs(facts, stored)[1:] == [("Tokens of the candidate", "10 and 5")]


def test_what_is_not_known_is_not_made_up() -> None:
    facts = manifest()
    facts.stages, facts.hardware = [], {"gpus": "two"}
    assert costs(facts, of()) == [("Time", "not recorded")]
    assert fits_on(of()) == {}
    bare = pair("footprint", "checkpoint", metrics=({"bytes": 1.0}, {"gpus_24gib": 0.0, "gpus_48gib": 1e9}))
    assert fits_on(of(*bare)) == {}


def test_the_fewest_gpus_of_each_size_that_helps() -> None:
    made = {
        "gpus_192gib": 1.0,
        "gpus_24gib": 8.0,
        "gpus_48gib": 4.0,
        "gpus_80gib": 4.0,
        "gpus_141gib": 1.0,
        "gpus_x": 1.0,
    }
    both = pair("footprint", "checkpoint", metrics=(made, {"gpus_24gib": 1.0, "gpus_48gib": 1.0}))
    assert fits_on(of(*both)) == {
        "reference": "8 × 24 GiB or 4 × 48 GiB or 1 × 141 GiB",
        "candidate": "1 × 24 GiB",
    }


def test_the_page_says_them_below_the_verdict_and_folds_the_stages(tmp_path: Path) -> None:
    page = page_of(store(tmp_path / "run", [footprint()]))
    assert "Fits on GPUs 4 × 24 GiB or 1 × 80 GiB 2 × 24 GiB or 1 × 80 GiB" in page.words
    assert "Time 7 min 02 s" in page.words and "Where the time went quantize" in page.words
    assert page.words.index("Fits on GPUs") < page.words.index("No checks to show") < page.words.index("Time 7 min 02")
    without = page_of(make_run(tmp_path / "other"))
    assert "Fits on GPUs" not in without.words and "GPU-hours" not in without.words
    assert "Tokens read and written" in without.words
