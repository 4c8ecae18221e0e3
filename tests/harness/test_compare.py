"""Results made elsewhere: what is paired, what is counted, what is refused, and that nothing weak is a PASS."""

import copy
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.compare import compare, results, to_json
from harness.errors import BadInput, NotComparable
from harness.policy import parse_policy
from harness.runfolder import Manifest, RunFolder, ServerFacts
from harness.samples import Item, Sample
from harness.verdict import CheckResult, Verdict

DATA = Path(os.environ.get("QUANTGATE_DATA") or Path(__file__).parents[3] / "shared" / "data")
STAMP = "2026-01-01T00-00-00.000000"
Record = dict[str, Any]


def record(item: object, score: object, **changes: Any) -> Record:
    """One line of lm-eval's samples; `None` in changes takes a key away."""
    made = {
        "doc_id": item,
        "target": "t",
        "arguments": {"gen_args_0": {"arg_0": f"question {item}", "arg_1": {"until": [], "max_gen_toks": 256}}},
        "filter": "none",
        "metrics": ["exact_match"],
        "doc_hash": f"d{item}",
        "prompt_hash": f"p{item}",
        "target_hash": "t",
        "exact_match": score,
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def records(scores: Iterable[object], **changes: Any) -> list[Record]:
    return [record(i, score, **changes) for i, score in enumerate(scores)]


def write(folder: Path, rows: Iterable[Record], task: str = "gsm8k", stamp: str = STAMP) -> Path:
    """A folder as lm-eval writes it, with the model's own folder in between."""
    path = folder / "org__model" / f"samples_{task}_{stamp}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def make(reference: Iterable[Record], candidate: Iterable[Record]) -> tuple[Path, Path]:
        return write(tmp_path / "r", reference), write(tmp_path / "c", candidate)

    return make


Both = Callable[..., tuple[Path, Path]]


def only(verdict: Verdict) -> CheckResult:
    (check,) = verdict.checks
    assert check.verdict == verdict.verdict
    return check


# -- lm-eval ------------------------------------------------------------------------------------------------------


def test_pairs_are_made_by_document_and_not_by_line(both: Both) -> None:
    scores = [1] * 300 + [0] * 100
    check = only(compare(*both(records(scores), reversed(records(scores))), 0.01))
    assert (check.verdict, check.on) == ("PASS", "lm_eval/gsm8k (exact_match)")
    assert (check.n, check.b, check.c, check.discordant, check.reference_value) == (400, 0, 0, 0, 0.75)
    assert 0 < (check.upper or 0) < 0.01


def test_a_loss_fails_and_a_small_set_is_not_enough(both: Both) -> None:
    check = only(compare(*both(records([1] * 400), records([1] * 360 + [0] * 40)), 0.01))
    assert (check.verdict, check.b, check.c, check.estimate) == ("FAIL", 40, 0, 0.1)
    assert only(compare(*both(records([1] * 40), records([1] * 40)), 0.01)).verdict == "INCONCLUSIVE"


def test_each_filter_is_judged_by_itself(both: Both) -> None:
    strict, loose = records([1] * 400, filter="strict-match"), records([1] * 400, filter="flexible-extract")
    worse = records([1] * 300 + [0] * 100, filter="strict-match")
    verdict = compare(*both(strict + loose, worse + loose), 0.01)
    assert {check.on: check.verdict for check in verdict.checks} == {
        "lm_eval/gsm8k (flexible-extract, exact_match)": "PASS",
        "lm_eval/gsm8k (strict-match, exact_match)": "FAIL",
    }
    assert verdict.verdict == "FAIL"
    one_filter = only_by_name(compare(*both(strict + loose, loose), 0.01), "strict-match")
    assert (one_filter.verdict, one_filter.missing) == ("INCONCLUSIVE", 400)


def only_by_name(verdict: Verdict, part: str) -> CheckResult:
    (check,) = (check for check in verdict.checks if part in check.on)
    return check


def test_a_task_of_one_side_only_is_named_and_counted(both: Both) -> None:
    sides = both(records([1] * 400), records([1] * 400))
    write(sides[0], records([1] * 30), task="aime")
    verdict = compare(*sides, 0.01)
    missing = only_by_name(verdict, "aime")
    assert (missing.verdict, missing.n, missing.missing) == ("INCONCLUSIVE", 0, 30)
    assert (verdict.verdict, only_by_name(verdict, "gsm8k").verdict) == ("INCONCLUSIVE", "PASS")
    assert "aime" in verdict.reason
    with pytest.raises(BadInput, match=r"no task in common: .* has gsm8k; .* has aime"):
        compare(sides[1], write(sides[0].parent / "other", records([1]), task="aime"), 0.01)


def test_the_metric_is_the_only_one_or_the_preferred_or_the_one_asked_for(both: Both) -> None:
    rows = records([1] * 400, metrics=["acc_norm", "acc"], acc=1, acc_norm=0.5, exact_match=None)
    sides = both(rows, rows)
    assert only(compare(*sides, 0.05)).on.endswith("(acc)")
    asked = only(compare(*sides, 0.05, metric="acc_norm"))
    assert asked.on.endswith("(acc_norm)") and asked.reference_value == 0.5
    with pytest.raises(BadInput, match="has no metric 'f1'; it has acc, acc_norm"):
        compare(*sides, 0.05, metric="f1")
    undecided = records([1], metrics=["f1", "bleu"], f1=1, bleu=1)
    with pytest.raises(BadInput, match="has bleu, f1: choose with --metric"):
        compare(*both(undecided, undecided), 0.05)
    single = records([True] * 400, metrics=["prompt_level_strict_acc"], prompt_level_strict_acc=True)
    assert only(compare(*both(single, single), 0.05)).verdict == "PASS"


@pytest.mark.parametrize(
    ("metric", "value", "says"),
    [
        ("word_perplexity", [-12.5, 7], "less word_perplexity is better"),
        ("wer", 0.1, "less wer is better"),
        ("rouge1", 43.5, r"jsonl:1: rouge1 is 43\.5; a score is a number from 0 to 1"),
        ("inst_level", [True, False], r"jsonl:1: inst_level is \[True, False\]; a score"),
        ("edits", 0.25, "less edits is better"),
    ],
)
def test_a_metric_that_is_no_score_is_refused(both: Both, metric: str, value: object, says: str) -> None:
    rows = records([None] * 3, metrics=[metric], **{metric: value})
    sides = both(rows, rows)
    for side in sides:
        text = json.dumps({"higher_is_better": {"gsm8k": {"edits": False}}})
        (side / "org__model" / f"results_{STAMP}.json").write_text(text, "utf-8")
    with pytest.raises(BadInput, match=says):
        compare(*sides, 0.05)


def test_the_same_text_twice_in_a_set_is_paired_by_id_too(both: Both) -> None:
    rows = [record(i, int(i != 7), doc_hash="same" if i in (7, 9) else f"d{i}") for i in range(400)]
    shifted = [row | {"doc_id": row["doc_id"] + (0 if row["doc_hash"] == "same" else 1000)} for row in rows]
    check = only(compare(*both(rows, reversed(shifted)), 0.01))
    assert (check.verdict, check.n, check.discordant, check.missing) == ("PASS", 400, 0, 0)
    check = only(compare(*both(rows, [row for row in shifted if row["doc_id"] != 9]), 0.01))
    assert (check.n, check.discordant, check.missing) == (399, 0, 1)


@pytest.mark.parametrize(
    "change",
    [{"prompt_hash": "other"}, {"target_hash": "other"}, {"arguments": {"gen_args_0": {"arg_1": {"until": ["\n"]}}}}],
)
def test_what_was_asked_must_be_equal(both: Both, change: Record) -> None:
    check = only(compare(*both(records([1] * 400), records([1] * 400, **change)), 0.01))
    assert (check.verdict, check.n, check.unequal) == ("INCONCLUSIVE", 0, 400)


FINE = records([1] * 5)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (records([1, float("nan")]), r"jsonl:2: exact_match is nan; a score"),
        (records([1, float("inf")]), r"jsonl:2: exact_match is inf"),
        ([*FINE, {**FINE[0], "doc_id": 5, "exact_match": None}], r"jsonl:6: exact_match is None"),
        (records([1, "1"]), r"jsonl:2: exact_match is '1'"),
        (records([1, {"a": 1}]), r"jsonl:2: exact_match is \{'a': 1\}"),
        (records([1, -0.5]), r"jsonl:2: exact_match is -0\.5"),
        ([*FINE, record(9, None)], r"jsonl:6: no exact_match"),
        ([*FINE, FINE[2]], r"jsonl:6: the same document and filter as line 3"),
        ([*FINE, record(9, 1, doc_hash=None, prompt_hash=None)], r"jsonl:6: no doc_hash, prompt_hash"),
        ([*FINE, record(9, 1, doc_hash=["x"])], r"jsonl:6: doc_hash \['x'\] is no text"),
        ([*FINE, record(9, 1, filter="\x1b[31m")], r"jsonl:6: filter ' \[31m' has a character"),
        ([*FINE, record(9, 1, filter="x" * 9999)], r"jsonl:6: filter 'x{60}…' is no text of 1 to 200"),
        ([*FINE, record(9, 1, metrics="acc")], r"jsonl:6: metrics is 'acc', no list"),
        ([*FINE, ["no object"]], r"jsonl:6: expected an object, found list"),
        ([], "no record is in it"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_by_file_and_line(both: Both, rows: list[Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        compare(*both(FINE, rows), 0.01)
    with pytest.raises(BadInput, match=says):
        compare(*both(rows, FINE), 0.01)


@pytest.mark.parametrize("tail", [b'{"doc_id": 7, "do', b"[" * 100_000, b"\xff\xfe\x00", b"1" * 10_000, b"x" * 3000])
def test_a_broken_line_is_named(both: Both, tail: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_BYTES", 200_000)
    sides = both(FINE, FINE)
    with (sides[1] / "org__model" / f"samples_gsm8k_{STAMP}.jsonl").open("ab") as file:
        file.write(tail)
    with pytest.raises(BadInput, match=r"jsonl:6: (not JSON, or cut off|expected an object)") as refused:
        compare(*sides, 0.01)
    assert len(str(refused.value)) < 500
    monkeypatch.setattr(results, "MAX_BYTES", 50)
    with pytest.raises(BadInput, match=r"jsonl:1: longer than"):
        compare(*sides, 0.01)


def test_two_runs_or_two_models_in_one_folder_are_ambiguous(both: Both) -> None:
    sides = both(FINE, FINE)
    write(sides[1], FINE, stamp="2026-02-02T00-00-00.000000")
    with pytest.raises(BadInput, match=r"two runs of gsm8k, samples_.*2026-01-01.* and samples_.*2026-02-02"):
        compare(*sides, 0.01)
    (sides[0] / "org__other").mkdir()
    (sides[0] / "org__other" / f"samples_aime_{STAMP}.jsonl").write_text(json.dumps(FINE[0]))
    with pytest.raises(BadInput, match=r"two models, .*org__model and .*org__other: name one"):
        compare(*sides, 0.01)


def test_a_folder_without_samples_says_what_is_needed(both: Both, tmp_path: Path) -> None:
    fine, _ = both(FINE, FINE)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="neither a run folder"):
        compare(fine, empty, 0.01)
    (empty / f"results_{STAMP}.json").write_text("{}")
    with pytest.raises(BadInput, match="run lm-eval with --log_samples"):
        compare(fine, empty, 0.01)
    with pytest.raises(BadInput, match="name the folder"):
        compare(fine, empty / f"results_{STAMP}.json", 0.01)
    with pytest.raises(BadInput, match="does not exist"):
        compare(fine, tmp_path / "nowhere", 0.01)
    with pytest.raises(BadInput, match="nothing to compare"):
        compare(fine, fine / ".." / fine.name, 0.01)


# Each of these four got a GO from another gate.


def test_ten_items_without_a_flip_are_no_proof(both: Both) -> None:
    assert only(compare(*both(records([1] * 10), records([1] * 10)), 0.005)).verdict == "INCONCLUSIVE"


def test_two_models_that_get_nothing_right_are_no_pass(both: Both) -> None:
    check = only(compare(*both(records([0] * 5000), records([0] * 5000)), 0.01))
    assert check.verdict == "INCONCLUSIVE" and "cannot show damage" in check.reason


def test_twelve_of_five_hundred_items_are_no_pass(both: Both) -> None:
    check = only(compare(*both(records([1] * 500), records([1] * 12)), 0.5))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 12, 488)


def test_other_documents_under_the_same_index_are_no_pairs(both: Both) -> None:
    others = [record(i, 1, doc_hash=f"e{i}", prompt_hash=f"q{i}") for i in range(500)]
    check = only(compare(*both(records([1] * 500), others), 0.5))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 0, 1000)


@pytest.mark.parametrize("margin", [float("nan"), -0.1, 1.5])
def test_a_margin_outside_0_to_1_is_refused(both: Both, margin: float) -> None:
    with pytest.raises(BadInput, match="max_loss"):
        compare(*both(FINE, FINE[1:]), margin)


def test_a_tight_margin_allows_no_gap_as_wide_as_itself(both: Both) -> None:
    scores = [1] * 10_000
    assert only(compare(*both(records(scores), records(scores[:-9])), 0.001)).verdict == "PASS"
    check = only(compare(*both(records(scores), records(scores[:-50])), 0.001))
    assert (check.verdict, check.missing) == ("INCONCLUSIVE", 50)


def test_what_lm_eval_itself_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.dummy import DummyLM
    from lm_eval.tasks import TaskManager

    class Dummy(DummyLM):  # type: ignore[misc]
        """lm-eval's own model, which answers "lol" to everything, without the tokenizer that it would fetch."""

        tokenizer = None

    class Silent(Dummy):
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return ["" for _ in requests]

    rows = [{"question": f"What is {i} + 0?", "answer": "lol" if i % 2 else "no"} for i in range(600)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task = {
        "task": "tiny_sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "strict", "filter": [{"function": "take_first"}]},
            {"name": "lower", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
        ],
    }
    for name, model in {"r": Dummy(), "same": Dummy(), "c": Silent()}.items():
        tracker = EvaluationTracker(output_path=str(tmp_path / name))
        found = simple_evaluate(
            model=model,
            model_args="pretrained=org/model",
            tasks=[copy.deepcopy(task)],
            log_samples=True,
            evaluation_tracker=tracker,
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),
        )
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        tracker.save_results_samples("tiny_sums", samples["tiny_sums"])
    passed = compare(tmp_path / "r", tmp_path / "same", 0.01)
    assert [check.on for check in passed.checks] == [
        f"lm_eval/tiny_sums ({f}, exact_match)" for f in ("lower", "strict")
    ]
    assert [(check.verdict, check.n, check.reference_value) for check in passed.checks] == [("PASS", 600, 0.5)] * 2
    failed = compare(tmp_path / "r", tmp_path / "c", 0.01)
    assert [(check.verdict, check.b, check.c) for check in failed.checks] == [("FAIL", 300, 0)] * 2


def test_a_real_quantized_model_fails_a_margin_of_one_point(tmp_path: Path) -> None:
    files = sorted((DATA / "quant_pairs").glob("mmlu_pro_llama3_8b_instruct_orig_vs_quant*.jsonl"))
    if not files:
        pytest.skip("no quant_pairs/mmlu_pro_llama3_8b_instruct_orig_vs_quant*.jsonl in QUANTGATE_DATA")
    rows = [json.loads(line) for line in files[0].read_text("utf-8").splitlines()]
    for name in ("original", "quantized"):
        made = [record(row["question_id"], float(row[f"pred_{name}"] == row["answer"])) for row in rows]
        write(tmp_path / name, made, task="mmlu_pro")
    check = only(compare(tmp_path / "original", tmp_path / "quantized", 0.01))
    assert (check.verdict, check.n, check.missing) == ("FAIL", len(rows), 0)
    assert (check.lower or 0) > 0.01


# -- swebench -----------------------------------------------------------------------------------------------------


def report(path: Path, **ids: Iterable[str]) -> Path:
    """A report as swebench 5 writes it. The outcome of each instance is given by list."""
    outcomes = ("resolved", "unresolved", "empty_patch", "error", "incomplete", "infra_failure", "ambiguous_failure")
    lists = {f"{name}_ids": sorted(ids.get(name, ())) for name in outcomes}
    total = sum(len(lists[f"{name}_ids"]) for name in outcomes[:5])
    counts = {key.replace("_ids", "_instances"): len(value) for key, value in lists.items()}
    made = {"total_instances": total, **counts, **lists, "failure_reasons": {}, "schema_version": 2}
    path.write_text(json.dumps(made, indent=4), "utf-8")
    return path


def ids(start: int, stop: int) -> list[str]:
    return [f"repo__repo-{i:04d}" for i in range(start, stop)]


def test_an_empty_patch_is_wrong_and_a_failure_of_the_grader_is_not(tmp_path: Path) -> None:
    reference = report(tmp_path / "r.json", resolved=ids(0, 400))
    candidate = report(
        tmp_path / "c.json",
        resolved=ids(0, 380),
        unresolved=ids(380, 388),
        empty_patch=ids(388, 394),
        error=ids(394, 397),
        infra_failure=ids(386, 388) + ids(396, 397),
        incomplete=ids(397, 400),
    )
    check = only(compare(reference, candidate, 0.05))
    assert check.on == "swebench/resolved"
    assert (check.n, check.b, check.c, check.errored, check.missing) == (392, 12, 0, 5, 3)
    assert check.verdict == "INCONCLUSIVE" and "8 of 400 pairs cannot be used" in check.reason


def test_an_instance_of_one_report_only_is_missing(tmp_path: Path) -> None:
    sides = report(tmp_path / "r.json", resolved=ids(0, 400)), report(tmp_path / "c.json", resolved=ids(2, 403))
    check = only(compare(*sides, 0.02))
    assert (check.n, check.missing) == (398, 5)


def edited(path: Path, **changes: Any) -> Path:
    made = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"infra_failure_ids": None}, "it lacks infra_failure_ids; grade the predictions again"),
        ({"schema_version": None, "error_ids": None}, "it lacks schema_version, error_ids;"),
        ({"schema_version": 1}, "schema_version is 1, 2 is understood"),
        ({"resolved_ids": "x"}, "resolved_ids is 'x', no list"),
        ({"resolved_ids": [7]}, "resolved_ids: 7 is no text"),
        ({"resolved_ids": ["a", "a"]}, "resolved_ids names a twice"),
        ({"resolved_ids": ids(0, 9)}, "resolved_instances is 10, resolved_ids holds 9"),
        ({"error_ids": ["repo__repo-0001"], "error_instances": 1}, "repo-0001 is both resolved and error"),
        ({"infra_failure_ids": ids(0, 1), "infra_failure_instances": 1}, "is an infra_failure and resolved"),
        ({"total_instances": 500}, "total_instances is 500, the lists hold 10"),
        ({"resolved_ids": [], "resolved_instances": 0}, "no instance is in it"),
    ],
)
def test_a_report_that_cannot_be_believed_is_refused(tmp_path: Path, changes: Record, says: str) -> None:
    fine = report(tmp_path / "r.json", resolved=ids(0, 10))
    with pytest.raises(BadInput, match=says):
        compare(fine, edited(report(tmp_path / "c.json", resolved=ids(0, 10)), **changes), 0.01)


def test_a_true_near_tie_is_decided_by_its_discordant_pairs(tmp_path: Path) -> None:
    path = DATA / "swebench_results" / "per_instance_resolved.jsonl"
    if not path.exists():
        pytest.skip("no swebench_results/per_instance_resolved.jsonl in QUANTGATE_DATA")
    systems = [json.loads(line)["resolved"] for line in path.read_text("utf-8").splitlines()]
    near = {sum(system.values()): system for system in systems if sum(system.values()) in (371, 372)}
    sides = [
        report(
            tmp_path / f"{total}.json",
            resolved=[i for i, right in near[total].items() if right],
            unresolved=[i for i, right in near[total].items() if not right],
        )
        for total in (372, 371)
    ]
    check = only(compare(sides[0], sides[1], 0.01))
    assert (check.verdict, check.n, check.b, check.c, check.discordant) == ("INCONCLUSIVE", 500, 29, 28, 57)
    assert only(compare(sides[0], sides[1], 0.03)).verdict == "PASS"


# -- runs ---------------------------------------------------------------------------------------------------------

POLICY = """\
name: test
sampling: {max_tokens: 256}
suites: {cot: {tasks: {word_problems: {limit: 400}}}, divergence: {}}
checks:
  - {metric: accuracy, on: cot/*, max_loss: 0.01}
"""


def make_run(path: Path, right: int, asked: int = 400, prompt: str = "p", **facts: Any) -> Path:
    """A run whose candidate gets `right` of `asked` items right, of 400; its reference knows nothing."""
    run, sealed = RunFolder(path), parse_policy(facts.pop("policy", POLICY))
    named: dict[str, Any] = {"run_id": "r", "created": "c", "quantgate_version": "0", "command": []}
    manifest = Manifest(**named, policy_name="test", policy_sha256=sealed.sha256)
    run.create(manifest, sealed)
    items = [Item(task="sums", item=str(i), prompt=[], prompt_sha256=f"{prompt}{i}", target="7") for i in range(400)]
    manifest.items_sha256 = {"cot": run.write_items("cot", items)}
    talk = [item.model_copy(update={"task": "chat", "target": None}) for item in items[:3]]
    manifest.items_sha256["divergence"] = run.write_items("divergence", talk)
    manifest.servers = {"candidate": ServerFacts(url="u", readback={"model": path.name} | facts)}
    for suite, of_suite in (("cot", items[:asked]), ("divergence", talk)):
        log = run.log(suite)
        for i, item in enumerate(of_suite):
            fields: dict[str, Any] = {"suite": suite, "task": item.task, "item": item.item}
            fields["prompt_sha256"] = item.prompt_sha256
            log.append(Sample(**fields, role="reference", score=0.0))
            score = float(i < right) if suite == "cot" else None
            log.append(Sample(**fields, role="candidate", score=score))
        log.close()
    manifest.samples = run.sample_files()
    run.write_manifest(manifest)
    return path


def test_the_candidates_of_two_runs_are_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", 400)
    check = only(compare(first, make_run(tmp_path / "b", 400), 0.01))
    assert (check.verdict, check.on, check.n, check.reference_value) == ("PASS", "cot/sums", 400, 1.0)
    check = only(compare(first, make_run(tmp_path / "c", 350), 0.01))
    assert (check.verdict, check.b, check.c) == ("FAIL", 50, 0)
    check = only(compare(first, make_run(tmp_path / "d", 400, asked=100), 0.01))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 100, 300)
    check = only(compare(first, make_run(tmp_path / "e", 400, asked=0), 0.01))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 0, 400)
    check = only(compare(first, make_run(tmp_path / "f", 400, prompt="q"), 0.01))
    assert (check.verdict, check.n, check.unequal) == ("INCONCLUSIVE", 0, 400)


def test_items_that_neither_run_asked_are_missing(tmp_path: Path) -> None:
    check = only(compare(make_run(tmp_path / "a", 0, asked=0), make_run(tmp_path / "b", 0, asked=0), 0.01))
    assert (check.verdict, check.on, check.missing) == ("INCONCLUSIVE", "cot/sums", 400)


def test_a_run_that_was_edited_is_not_compared(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", 400), make_run(tmp_path / "b", 300)
    path = RunFolder(second).samples_path("cot")
    path.write_text(path.read_text("utf-8").replace('"score":0.0', '"score":1.0'), "utf-8")
    with pytest.raises(BadInput, match=r"cot\.jsonl is not what the run wrote"):
        compare(first, second, 0.01)


def test_runs_that_were_asked_or_served_differently_are_not_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", 400, kv_cache_dtype="auto")
    longer = POLICY.replace("256", "512")
    with pytest.raises(NotComparable, match=r"sampling\.max_tokens is 256 in .*a and 512 in .*b"):
        compare(first, make_run(tmp_path / "b", 400, policy=longer), 0.01)
    fewer = POLICY.replace("limit: 400", "limit: 40")
    with pytest.raises(NotComparable, match=r"suites\.cot\.tasks\.word_problems\.limit is 400 .* and 40"):
        compare(first, make_run(tmp_path / "c", 400, policy=fewer), 0.01)
    with pytest.raises(NotComparable, match=r"kv_cache_dtype is 'auto' in .*a and 'fp8' in .*d"):
        compare(first, make_run(tmp_path / "d", 400, kv_cache_dtype="fp8"), 0.01)


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def quantgate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Run `quantgate compare` in this process: (status, standard output, standard error)."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["quantgate", "compare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("right", "status", "word"), [(400, 0, "PASS"), (300, 1, "FAIL"), (396, 2, "INCONCLUSIVE")])
def test_the_exit_code_is_the_verdict(
    both: Both, quantgate: Callable[..., Any], right: int, status: int, word: str
) -> None:
    sides = both(records([1] * 400), records([1] * right + [0] * (400 - right)))
    code, out, err = quantgate(*sides, "--max-loss", "0.01")
    assert (code, err) == (status, "") and f"\n{word}: " in out and "lm_eval/gsm8k (exact_match)" in out
    code, out, err = quantgate(*sides, "--max-loss", "0.01", "--json", "--metric", "exact_match")
    found = json.loads(out)
    assert (code, err, found["verdict"]) == (status, "", word) and found["reason"]
    (task,) = found["tasks"]
    assert (task["suite"], task["task"], task["verdict"]) == ("lm_eval", "gsm8k (exact_match)", word)
    assert (task["n"], task["b"], task["c"], task["discordant"]) == (400, 400 - right, 0, 400 - right)
    assert task["lower"] <= task["estimate"] <= task["upper"] and task["reason"]
    assert (task["missing"], task["errored"], task["unequal"]) == (0, 0, 0)


def test_bad_input_is_one_line(both: Both, quantgate: Callable[..., Any], tmp_path: Path) -> None:
    folder, other = both(FINE, [*FINE, record(9, "high")])
    swebench, run = report(tmp_path / "r.json", resolved=ids(0, 9)), make_run(tmp_path / "run", 400)
    for arguments, says in (
        ([folder, swebench], f"{folder} is an lm-eval folder, {swebench} is a swebench report; give two of one kind"),
        ([run, folder], f"{run} is a quantgate run, {folder} is an lm-eval folder"),
        ([folder, other], f"samples_gsm8k_{STAMP}.jsonl:6: exact_match is 'high'"),
        ([swebench, report(tmp_path / "c.json", resolved=ids(0, 9)), "--metric", "acc"], "has one score"),
        ([folder, tmp_path / "nowhere", "--json"], "nowhere does not exist"),
        ([folder, other, "--max-loss", "2"], "--max-loss"),
        ([folder], "Missing argument"),
    ):
        code, out, err = quantgate("--max-loss", "0.01", *arguments)
        assert (code, out, err.count("\n")) == (3, "", 1) and says in err, arguments
    assert quantgate(folder, other)[0] == 3  # the margin is the user's to choose


def test_a_file_that_cannot_be_read_is_status_4(both: Both, quantgate: Callable[..., Any]) -> None:
    folder, other = both(FINE, FINE)
    path = other / "org__model" / f"samples_gsm8k_{STAMP}.jsonl"
    path.unlink()
    path.symlink_to(path.name)
    code, out, err = quantgate(folder, other, "--max-loss", "0.01")
    assert (code, out, err.count("\n")) == (4, "", 1) and "symbolic link" in err


def test_json_is_plain_ascii(both: Both) -> None:
    text = to_json(compare(*both(records([1] * 9, filter="厳密"), records([1] * 9, filter="厳密")), 0.01))
    assert text.isascii() and json.loads(text)["tasks"][0]["n"] == 9
