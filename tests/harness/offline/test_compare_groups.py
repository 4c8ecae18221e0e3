"""Groups of lm-eval are judged as one check, their tasks shown under it: equal models pass, a broken task shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_results import DATA, near, record, summary, write

from harness.judging.verdict import Verdict
from harness.offline.compare import Comparison, compare, compare_results
from harness.offline.compare_policy import policy_of

SUBJECTS = {f"mmlu_subject_{i:02}": 60 + 13 * i for i in range(10)} | {"mmlu_law": 600}
Answers = Mapping[str, Sequence[object]]


def lay(folder: Path, answers: Answers, metric: str = "acc") -> Path:
    for task, right in answers.items():
        rows = [record(f"{task}-{i}", None, metrics=[metric], **{metric: float(x)}) for i, x in enumerate(right)]  # type: ignore[arg-type]
        write(folder, rows, task=task)
    return folder


def draw(
    rng: np.random.Generator, rates: Mapping[str, float] | None = None, flips: float = 0.0
) -> tuple[Answers, Answers]:
    """Two equally good models that agree on all but a share of 2 × `flips`; `rates`: losses of single tasks."""
    reference, candidate = {}, {}
    for task, n in SUBJECTS.items():
        right = rng.random(n) < 0.6
        loss = (rates or {}).get(task, flips)
        worse, better = rng.random(n) < loss / 0.6, rng.random(n) < flips / 0.4
        reference[task] = right.tolist()
        candidate[task] = np.where(right, ~worse, better).tolist()
    return reference, candidate


def judged(tmp_path: Path, reference: Answers, candidate: Answers, margin: float = 0.01, **more: bool) -> Comparison:
    sides = lay(tmp_path / "r", reference), lay(tmp_path / "c", candidate)
    return compare(*sides, policy_of(margin), **more)  # type: ignore[arg-type]


def test_identical_answers_pass_though_no_subject_alone_is_large_enough(tmp_path: Path) -> None:
    answers, _ = draw(np.random.default_rng(0))
    found = judged(tmp_path, answers, answers)
    (check,) = found.verdict.checks
    assert (found.verdict.verdict, check.on, check.n) == ("PASS", "mmlu", sum(SUBJECTS.values()))
    assert len(check.tasks) == len(SUBJECTS) and {task.verdict for task in check.tasks} == {"INCONCLUSIVE", "PASS"}
    again = judged(tmp_path, answers, answers, per_task=True).verdict
    assert (again.verdict, len(again.checks)) == ("INCONCLUSIVE", len(SUBJECTS))


@pytest.mark.slow
def test_equally_good_models_pass_and_do_not_fail(tmp_path: Path) -> None:
    """At 2 % of flips each way and 1,785 items a margin of two points has 99 % power; a FAIL is chance."""
    rng, verdicts = np.random.default_rng(1), []
    for i in range(4):
        verdicts.append(judged(tmp_path / str(i), *draw(rng, flips=0.02), margin=0.02).verdict.verdict)
    assert verdicts.count("FAIL") == 0 and verdicts.count("PASS") >= 3


def test_one_broken_subject_keeps_the_group_from_passing(tmp_path: Path) -> None:
    verdict = judged(tmp_path, *draw(np.random.default_rng(2), {"mmlu_subject_03": 0.35}), margin=0.05).verdict
    (check,) = verdict.checks
    assert verdict.verdict == "INCONCLUSIVE" and "by itself mmlu_subject_03 (acc) breaks it" in check.reason
    assert [task.task for task in check.tasks if task.after_holm] == ["mmlu_subject_03 (acc)"]
    assert (check.upper or 1) <= 0.05  # the pooled loss alone keeps the margin


@pytest.mark.long
def test_damage_everywhere_fails_the_group(tmp_path: Path) -> None:
    verdict = judged(tmp_path, *draw(np.random.default_rng(3), dict.fromkeys(SUBJECTS, 0.06))).verdict
    assert (verdict.verdict, len(verdict.checks)) == ("FAIL", 1)


@pytest.mark.parametrize(("number", "estimate"), [(0.75, 0.25), (0.9, 0.1)])
def test_a_group_is_the_mean_that_lm_eval_publishes(tmp_path: Path, number: float, estimate: float) -> None:
    """100 of 100 answers lost of one task, 0 of 300 of the other: macro says half, micro a quarter."""
    sizes = {"x_small": 200, "x_large": 800}
    numbers = {"x_small": {"acc,none": 0.5}, "x_large": {"acc,none": 1.0}, "x": {"acc,none": number}}
    for name, small in (("r", [1] * 100 + [0] * 100), ("c", [0] * 200)):
        lay(tmp_path / name, {"x_small": small, "x_large": [1] * 800})
        counts = {task: {"original": size, "effective": size} for task, size in sizes.items()}
        content: dict[str, Any] = {"results": numbers, "n-samples": counts, "groups": {"x": numbers["x"]}}
        summary(tmp_path / name, **content, group_subtasks={"x": list(sizes)})
    found = compare(tmp_path / "r", tmp_path / "c", policy_of(0.01))
    (check,) = found.verdict.checks
    assert (check.on, check.estimate) == ("x", near(estimate))
    said = [note for note in found.notes if "the 200 records" in note]
    assert len(said) == 1 and "x_small (acc): results_" in said[0] and "says 0.5" in said[0] and "give 0" in said[0]


def test_leaderboard_is_one_check_of_tasks_with_metrics_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tasks = {
        "leaderboard_bbh_navigate": ("acc_norm", 250),
        "leaderboard_gpqa_main": ("acc_norm", 448),
        "leaderboard_math_algebra_hard": ("exact_match", 307),
        "leaderboard_mmlu_pro": ("acc", 3000),
        "leaderboard_ifeval": ("prompt_level_strict_acc", 541),
    }
    for name in ("r", "c"):
        for task, (metric, n) in tasks.items():
            rng = np.random.default_rng(n)
            lay(tmp_path / name, {task: (rng.random(n) < 0.5).tolist()}, metric)
    verdict = compare_results(tmp_path / "r", tmp_path / "c", 0.01)
    (check,) = verdict.checks
    assert (verdict.verdict, check.on, check.n) == ("PASS", "leaderboard", 4546)
    assert {task.task for task in check.tasks} == {f"{task} ({metric})" for task, (metric, _) in tasks.items()}


def test_of_ruler_each_length_is_a_group_and_minus_1_is_not_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for name in ("r", "c"):
        for task in ("niah_single_1", "niah_multikey_3", "ruler_vt"):
            rows = []
            for i in range(300):
                length = ("4096", "8192")[i % 2]
                score = float(rng.integers(0, 4)) / 3 if name == "r" else 1.0
                values = {"4096": -1.0, "131072": -1} | {length: score}
                rows.append(record(f"{task}{i}", None, metrics=[*values], **values))
            write(tmp_path / name, rows, task=task)
    found = compare(tmp_path / "r", tmp_path / "c", policy_of(0.01))
    assert [(check.on, check.n, check.missing, check.verdict) for check in found.verdict.checks] == [
        ("ruler@4096", 450, 0, "PASS"),
        ("ruler@8192", 450, 0, "PASS"),
    ]
    assert "niah_single_1: length 131072 was not run" in found.notes
    assert "betting" in found.verdict.checks[0].method  # tasks weigh alike, as in lm-eval's group


def test_a_length_that_only_the_reference_ran_is_missing(tmp_path: Path) -> None:
    for name, lengths in (("r", ("4096", "8192")), ("c", ("4096",))):
        rows = [
            record(f"{m}{i}", None, metrics=["4096", m], **{"4096": -1.0, m: 1.0}) for m in lengths for i in range(400)
        ]
        write(
            tmp_path / name,
            [{k: v for k, v in row.items() if k != "exact_match"} for row in rows],
            task="niah_single_1",
        )
    verdict = compare_results(tmp_path / "r", tmp_path / "c", 0.05)
    assert verdict.verdict == "INCONCLUSIVE"
    assert [(check.on, check.verdict, check.missing) for check in verdict.checks] == [
        ("lm_eval/niah_single_1 (4096)", "PASS", 0),
        ("lm_eval/niah_single_1 (8192)", "INCONCLUSIVE", 400),
    ]


def only(verdict: Verdict) -> str:
    (check,) = verdict.checks
    return check.on


def test_a_real_quantized_model_fails_as_one_group(tmp_path: Path) -> None:
    """MMLU-Pro by category, with the answers that an original and its quantized copy really gave."""
    import json

    files = sorted((DATA / "quant_pairs").glob("mmlu_pro_llama3_8b_instruct_orig_vs_quant*.jsonl"))
    if not files:
        pytest.skip("no quant_pairs/mmlu_pro_llama3_8b_instruct_orig_vs_quant*.jsonl in QUANTGATE_DATA")
    rows = [json.loads(line) for line in files[0].read_text("utf-8").splitlines()]
    for name in ("original", "quantized"):
        by_category: dict[str, list[object]] = {}
        for row in rows:
            task = f"mmlu_pro_{row['category'].replace(' ', '_')}"
            by_category.setdefault(task, []).append(row[f"pred_{name}"] == row["answer"])
        lay(tmp_path / name, by_category, "exact_match")
    verdict = compare_results(tmp_path / "original", tmp_path / "quantized", 0.01)
    assert (verdict.verdict, only(verdict)) == ("FAIL", "mmlu_pro")
