"""Two quantgate runs: their candidates are compared, if both were asked and served alike and left unedited."""

from pathlib import Path

import pytest
from foreign_results import POLICY, make_run, only

from harness.contract.errors import BadInput, NotComparable
from harness.offline.compare import compare_results
from harness.runs.folder import RunFolder


def test_the_candidates_of_two_runs_are_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", 400)
    check = only(compare_results(first, make_run(tmp_path / "b", 400), 0.01))
    assert (check.verdict, check.on, check.n, check.reference_value) == ("PASS", "cot/sums", 400, 1.0)
    check = only(compare_results(first, make_run(tmp_path / "c", 350), 0.01))
    assert (check.verdict, check.b, check.c) == ("FAIL", 50, 0)
    check = only(compare_results(first, make_run(tmp_path / "d", 400, asked=100), 0.01))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 100, 300)
    check = only(compare_results(first, make_run(tmp_path / "e", 400, asked=0), 0.01))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 0, 400)
    check = only(compare_results(first, make_run(tmp_path / "f", 400, prompt="q"), 0.01))
    assert (check.verdict, check.n, check.unequal) == ("INCONCLUSIVE", 0, 400)


def test_items_that_neither_run_asked_are_missing(tmp_path: Path) -> None:
    check = only(compare_results(make_run(tmp_path / "a", 0, asked=0), make_run(tmp_path / "b", 0, asked=0), 0.01))
    assert (check.verdict, check.on, check.missing) == ("INCONCLUSIVE", "cot/sums", 400)


def test_a_run_that_was_edited_is_not_compared(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", 400), make_run(tmp_path / "b", 300)
    path = RunFolder(second).samples_path("cot")
    path.write_text(path.read_text("utf-8").replace('"score":0.0', '"score":1.0'), "utf-8")
    with pytest.raises(BadInput, match=r"cot\.jsonl is not what the run wrote"):
        compare_results(first, second, 0.01)


def test_runs_that_were_asked_or_served_differently_are_not_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", 400, kv_cache_dtype="auto")
    longer = POLICY.replace("256", "512")
    with pytest.raises(NotComparable, match=r"sampling\.max_tokens is 256 in .*a and 512 in .*b"):
        compare_results(first, make_run(tmp_path / "b", 400, policy=longer), 0.01)
    fewer = POLICY.replace("limit: 400", "limit: 40")
    with pytest.raises(NotComparable, match=r"suites\.cot\.tasks\.word_problems\.limit is 400 .* and 40"):
        compare_results(first, make_run(tmp_path / "c", 400, policy=fewer), 0.01)
    with pytest.raises(NotComparable, match=r"kv_cache_dtype is 'auto' in .*a and 'fp8' in .*d"):
        compare_results(first, make_run(tmp_path / "d", 400, kv_cache_dtype="fp8"), 0.01)
