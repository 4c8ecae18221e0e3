"""Two lm-eval folders: what is paired, what is counted, and that nothing weak is a PASS."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from foreign_results import DATA, Both, Record, only, record, records, write

from harness.contract.errors import BadInput
from harness.judging.results import CheckResult
from harness.judging.verdict import Verdict
from harness.offline.compare import compare, compare_results
from harness.offline.compare_policy import policy_of

pytestmark = pytest.mark.slow  # lm-eval is imported


def test_pairs_are_made_by_document_and_not_by_line(both: Both) -> None:
    scores = [1] * 300 + [0] * 100
    check = only(compare_results(*both(records(scores), reversed(records(scores))), 0.01))
    assert (check.verdict, check.on) == ("PASS", "lm_eval/gsm8k (exact_match)")
    assert (check.n, check.b, check.c, check.discordant, check.reference_value) == (400, 0, 0, 0, 0.75)
    assert 0 < (check.upper or 0) < 0.01


def test_a_loss_fails_and_a_small_set_is_not_enough(both: Both) -> None:
    check = only(compare_results(*both(records([1] * 400), records([1] * 360 + [0] * 40)), 0.01))
    assert (check.verdict, check.b, check.c, check.estimate) == ("FAIL", 40, 0, 0.1)
    assert only(compare_results(*both(records([1] * 40), records([1] * 40)), 0.01)).verdict == "INCONCLUSIVE"


def test_each_filter_is_judged_by_itself(both: Both) -> None:
    strict, loose = records([1] * 400, filter="strict-match"), records([1] * 400, filter="flexible-extract")
    worse = records([1] * 300 + [0] * 100, filter="strict-match")
    verdict = compare_results(*both(strict + loose, worse + loose), 0.01)
    assert {check.on: check.verdict for check in verdict.checks} == {
        "lm_eval/gsm8k (flexible-extract, exact_match)": "PASS",
        "lm_eval/gsm8k (strict-match, exact_match)": "FAIL",
    }
    assert verdict.verdict == "FAIL"
    one_filter = only_by_name(compare_results(*both(strict + loose, loose), 0.01), "strict-match")
    assert (one_filter.verdict, one_filter.missing) == ("INCONCLUSIVE", 400)


def only_by_name(verdict: Verdict, part: str) -> CheckResult:
    (check,) = (check for check in verdict.checks if part in check.on)
    return check


def test_a_task_of_one_side_only_is_named_and_counted(both: Both) -> None:
    sides = both(records([1] * 400), records([1] * 400))
    write(sides[0], records([1] * 30), task="aime")
    verdict = compare_results(*sides, 0.01)
    missing = only_by_name(verdict, "aime")
    assert (missing.verdict, missing.n, missing.missing) == ("INCONCLUSIVE", 0, 30)
    assert (verdict.verdict, only_by_name(verdict, "gsm8k").verdict) == ("INCONCLUSIVE", "PASS")
    assert "aime" in verdict.reason
    with pytest.raises(BadInput, match=r"no task in common: .* has gsm8k; .* has aime"):
        compare_results(sides[1], write(sides[0].parent / "other", records([1]), task="aime"), 0.01)


def test_the_metric_is_the_only_one_or_the_preferred_or_the_one_asked_for(both: Both) -> None:
    rows = records([1] * 400, metrics=["acc_norm", "acc"], acc=1, acc_norm=0.5, exact_match=None)
    sides = both(rows, rows)
    assert only(compare_results(*sides, 0.05)).on.endswith("(acc)")
    asked = only(compare_results(*sides, 0.05, metric="acc_norm"))
    assert asked.on.endswith("(acc_norm)") and asked.reference_value == 0.5
    with pytest.raises(BadInput, match="has no metric 'f1'; it has acc, acc_norm"):
        compare_results(*sides, 0.05, metric="f1")
    undecided = records([1], metrics=["f1", "bleu"], f1=1, bleu=1)
    with pytest.raises(BadInput, match="has bleu, f1: choose with --metric"):
        compare_results(*both(undecided, undecided), 0.05)
    single = records([True] * 400, metrics=["prompt_level_strict_acc"], prompt_level_strict_acc=True)
    assert only(compare_results(*both(single, single), 0.05)).verdict == "PASS"


def test_the_same_text_twice_in_a_set_is_paired_by_id_too(both: Both) -> None:
    rows = [record(i, int(i != 7), doc_hash="same" if i in (7, 9) else f"d{i}") for i in range(400)]
    shifted = [row | {"doc_id": row["doc_id"] + (0 if row["doc_hash"] == "same" else 1000)} for row in rows]
    check = only(compare_results(*both(rows, reversed(shifted)), 0.01))
    assert (check.verdict, check.n, check.discordant, check.missing) == ("PASS", 400, 0, 0)
    check = only(compare_results(*both(rows, [row for row in shifted if row["doc_id"] != 9]), 0.01))
    assert (check.n, check.discordant, check.missing) == (399, 0, 1)


@pytest.mark.parametrize(
    "change",
    [{"prompt_hash": "other"}, {"target_hash": "other"}, {"arguments": {"gen_args_0": {"arg_1": {"until": ["\n"]}}}}],
)
def test_what_was_asked_must_be_equal(both: Both, change: Record) -> None:
    check = only(compare_results(*both(records([1] * 400), records([1] * 400, **change)), 0.01))
    assert (check.verdict, check.n, check.unequal) == ("INCONCLUSIVE", 0, 400)


# Each of these four got a GO from another gate.


def test_ten_items_without_a_flip_are_no_proof(both: Both) -> None:
    assert only(compare_results(*both(records([1] * 10), records([1] * 10)), 0.005)).verdict == "INCONCLUSIVE"


def test_two_models_that_get_nothing_right_are_no_pass(both: Both) -> None:
    check = only(compare_results(*both(records([0] * 5000), records([0] * 5000)), 0.01))
    assert check.verdict == "INCONCLUSIVE" and "cannot show damage" in check.reason


def test_twelve_of_five_hundred_items_are_no_pass(both: Both) -> None:
    check = only(compare_results(*both(records([1] * 500), records([1] * 12)), 0.5))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 12, 488)


def test_other_documents_under_the_same_index_are_no_pairs(both: Both) -> None:
    others = [record(i, 1, doc_hash=f"e{i}", prompt_hash=f"q{i}") for i in range(500)]
    check = only(compare_results(*both(records([1] * 500), others), 0.5))
    assert (check.verdict, check.n, check.missing) == ("INCONCLUSIVE", 0, 1000)


def test_a_tight_margin_allows_no_gap_as_wide_as_itself(both: Both) -> None:
    scores = [1] * 10_000
    assert only(compare_results(*both(records(scores), records(scores[:-2])), 0.001)).verdict == "PASS"
    check = only(compare_results(*both(records(scores), records(scores[:-9])), 0.001))
    assert (check.verdict, check.missing) == ("INCONCLUSIVE", 9)  # nine losses would break it


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
    passed = compare_results(tmp_path / "r", tmp_path / "same", 0.01)
    assert [check.on for check in passed.checks] == [
        f"lm_eval/tiny_sums ({f}, exact_match)" for f in ("lower", "strict")
    ]
    assert [(check.verdict, check.n, check.reference_value) for check in passed.checks] == [("PASS", 600, 0.5)] * 2
    failed = compare_results(tmp_path / "r", tmp_path / "c", 0.01)
    assert [(check.verdict, check.b, check.c) for check in failed.checks] == [("FAIL", 300, 0)] * 2


RULER = """\
task: niah_single_1
dataset_path: json
dataset_kwargs: {data_files: {test: %(data)s}, cache_dir: %(cache)s}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function own.process_results
metric_list:
  - {metric: "4096", aggregation: !function own.aggregate_metrics, higher_is_better: true}
  - {metric: "8192", aggregation: !function own.aggregate_metrics, higher_is_better: true}
"""


def test_groups_lengths_and_perplexities_as_lm_eval_writes_them(tmp_path: Path) -> None:
    """Groups of both kinds, RULER's own scoring and a rolling likelihood, run and written by lm-eval itself."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    import yaml
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.dummy import DummyLM
    from lm_eval.tasks import TaskManager

    class Wrong(DummyLM):  # type: ignore[misc]
        """Answers "lol" but for the first questions of a call."""

        tokenizer = None

        def __init__(self, wrong: int) -> None:
            super().__init__()
            self.wrong = wrong

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return ["" if i < self.wrong else "lol" for i, _ in enumerate(requests)]

    tasks = tmp_path / "tasks"
    tasks.mkdir()

    def data(name: str, n: int) -> dict[str, str]:
        lines = [
            {"question": f"{name} {i}", "answer": "lol", "max_length": 4096 * (1 + i % 2), "outputs": ["lol", "o"]}
            for i in range(n)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return {"data": str(tmp_path / f"{name}.jsonl"), "cache": str(tmp_path / "cache")}

    def put(name: str, **content: Any) -> None:
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(content), "utf-8")

    for name, n in (("a_small", 40), ("a_large", 160), ("b_small", 40), ("b_large", 160), ("wikitext", 5)):
        of = data(name, n)
        rolling = {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "metric_list": [{"metric": "word_perplexity"}],
        }
        exact = {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "metric_list": [{"metric": "exact_match"}],
        }
        files = {"data_files": {"test": of["data"]}, "cache_dir": of["cache"]}
        common = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
        put(name, **common, doc_to_target="{{answer}}", **(rolling if name == "wikitext" else exact))
    for group, by_size in (("a", True), ("b", False)):
        metrics = [{"metric": "exact_match", "weight_by_size": by_size}]
        put(group, group=group, task=[f"{group}_small", f"{group}_large"], aggregate_metric_list=metrics)
    (tasks / "own.py").write_text("from lm_eval.tasks.ruler.common_utils import aggregate_metrics, process_results\n")
    (tasks / "niah.yaml").write_text(RULER % data("niah", 30))
    for name, wrong in (("r", 30), ("c", 60)):
        tracker = EvaluationTracker(output_path=str(tmp_path / name))
        found = simple_evaluate(
            model=Wrong(wrong),
            model_args=f"pretrained=org/{name}",
            tasks=["a", "b", "niah_single_1", "wikitext"],
            log_samples=True,
            evaluation_tracker=tracker,
            bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        )
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task, rows)
    published = json.loads(next((tmp_path / "c" / "org__c").glob("results_*.json")).read_text("utf-8"))
    compared = compare(tmp_path / "r", tmp_path / "c", policy_of(0.02))
    checks = {check.on: check for check in compared.verdict.checks}
    assert list(checks) == ["a", "b", "lm_eval/niah_single_1 (4096)", "lm_eval/niah_single_1 (8192)"]
    for group in "ab":
        assert [task.task for task in checks[group].tasks] == [
            f"{group}_large (exact_match)",
            f"{group}_small (exact_match)",
        ]
    assert checks["a"].candidate_value == published["groups"]["a"]["exact_match,none"] == 140 / 200
    loss = {name: published["results"][name]["exact_match,none"] for name in ("b_small", "b_large")}
    assert published["groups"]["b"]["exact_match,none"] == pytest.approx(sum(loss.values()) / 2)
    assert compared.results.models == ("org/r", "org/c")
    assert len(compared.notes) == 1 and compared.notes[0].startswith("wikitext is not judged: of word_perplexity")


def test_a_real_quantized_model_fails_a_margin_of_one_point(tmp_path: Path) -> None:
    files = sorted((DATA / "quant_pairs").glob("mmlu_pro_llama3_8b_instruct_orig_vs_quant*.jsonl"))
    if not files:
        pytest.skip("no quant_pairs/mmlu_pro_llama3_8b_instruct_orig_vs_quant*.jsonl in QUANTGATE_DATA")
    rows = [json.loads(line) for line in files[0].read_text("utf-8").splitlines()]
    for name in ("original", "quantized"):
        made = [record(row["question_id"], float(row[f"pred_{name}"] == row["answer"])) for row in rows]
        write(tmp_path / name, made, task="mmlu_pro")
    check = only(compare_results(tmp_path / "original", tmp_path / "quantized", 0.01))
    assert (check.verdict, check.n, check.missing) == ("FAIL", len(rows), 0)
    assert (check.lower or 0) > 0.01
