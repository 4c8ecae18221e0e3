"""A run of an older version, judged by a policy that asks for what it did not measure."""

from pathlib import Path

import numpy as np
import pytest
from next_tokens import draw, top
from suite_runs import pair, store

from harness.contract.policy import parse_policy
from harness.gate.pipeline import judge_run
from harness.runs.folder import RunFolder
from reports.render import read_report
from suites.divergence.kl_bounds import compare_scores
from suites.divergence.parquet_files import rounded, write_trajectory

POLICY = parse_policy("""
name: newer
suites: {divergence: {}}
checks:
  - {metric: kl_mean, on: divergence, max: 20}
  - {metric: tv_mean, on: divergence, max: 0.999}
  - {metric: end_of_thinking, on: divergence, max_loss: 0.5}
""")


def older_run(path: Path, files: bool) -> tuple[RunFolder, list[float]]:
    """A run of ten documents whose samples say nothing of TV; and the upper TV of each."""
    pairs, found = [], []
    for i in range(10):
        p, q = draw(i, n=6)
        both = [rounded(top(logprobs, 20)) for logprobs in (p, q)]
        compared = compare_scores(*both)
        known = ("positions", "kl_lower_sum", "kl_upper_sum", "flips", "confident_flips")
        metrics = {name: compared.totals()[name] for name in known}
        name = f"chat-en-{i:02d}"
        pairs.append(pair("divergence", "chat-en", name, metrics=({"positions": 6.0}, metrics)))
        found.append(float(compared.tv_upper.mean()))
        for role, scores in zip(("reference", "candidate"), both, strict=True):
            if files:
                compared_too = compared if role == "candidate" else None
                write_trajectory(path / "divergence" / f"{name}.{role}.parquet", [1], scores, "chat-en", compared_too)
    return store(path, pairs), found


@pytest.mark.parametrize("files", [True, False])
def test_total_variation_comes_from_the_stored_lists_or_is_missing(tmp_path: Path, files: bool) -> None:
    run, upper = older_run(tmp_path / "run", files)
    kl, tv, end = judge_run(run, POLICY).checks
    assert kl.n == 10 and kl.estimate is not None
    if files:
        assert tv.n == 10 and tv.estimate == pytest.approx(np.mean(upper), rel=1e-6) and tv.upper is not None
    else:
        assert (tv.verdict, tv.n, tv.errored) == ("INCONCLUSIVE", 0, 10)
    assert (end.verdict, end.errored) == ("INCONCLUSIVE", 10)  # it takes a tokenizer
    table = next(view for view in read_report(run).suites if view.name == "divergence").tables[0]
    assert {row[0]: row[1] for row in table.rows}["Total variation, mean of answers"] == "not measured"
