"""Samples of older versions get what their stored lists still tell, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from next_tokens import draw, top

from harness.contract.samples import Sample
from suites.divergence.kl_bounds import compare_scores
from suites.divergence.older import with_missing_sums
from suites.divergence.parquet_files import rounded, write_trajectory

NEW = ("tv_", "js_", "kl_capped_")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[Path, Sample, dict[str, float]]]:
    p, q = draw(5, n=9)
    reference, candidate = rounded(top(p, 6)), rounded(top(q, 6))
    write_trajectory(tmp_path / "chat-en-01.reference.parquet", [1, 2], reference)
    write_trajectory(tmp_path / "chat-en-01.candidate.parquet", [1, 2], candidate)
    totals = compare_scores(reference, candidate).totals()
    old = {name: value for name, value in totals.items() if not name.startswith(NEW) and "@p" not in name}
    names = {"suite": "divergence", "task": "chat-en", "item": "chat-en-01", "prompt_sha256": "x"}
    yield tmp_path, Sample(role="candidate", metrics=old, **names), totals


def completed(sample: Sample, folder: Path) -> Sample:
    (found,) = with_missing_sums([sample], folder)
    return found


def test_stored_lists_make_up_for_what_was_not_measured(run: tuple[Path, Sample, dict[str, float]]) -> None:
    folder, old, totals = run
    assert "tv_upper_sum" not in old.metrics
    found = completed(old, folder)
    assert found.metrics == totals and found.model_copy(update={"metrics": old.metrics}) == old
    assert completed(found, folder) is found  # measured already


def test_what_the_files_do_not_tell_stays_missing(run: tuple[Path, Sample, dict[str, float]]) -> None:
    folder, old, _ = run
    for update in ({"item": "chat-en-02"}, {"item": "../chat-en-01"}, {"role": "noise"}):
        changed = old.model_copy(update=update)
        assert completed(changed, folder) is changed
    other = old.model_copy(update={"metrics": old.metrics | {"kl_lower_sum": old.metrics["kl_lower_sum"] + 0.1}})
    assert completed(other, folder) is other  # the files are of another run
    reference = old.model_copy(update={"role": "reference", "metrics": {"positions": 9.0}})
    assert completed(reference, folder) is reference
    (folder / "chat-en-01.reference.parquet").write_bytes(b"PAR1 no more")
    assert completed(old, folder) is old
