"""Which metric of lm-eval a task is judged by, which way is better, and what is no score."""

import importlib.util
import re
from pathlib import Path

import pytest

from harness.contract.errors import BadInput
from harness.offline.lm_eval_metrics import HIGHER, LOWER, Choice, Listed, choose, direction, no_score


@pytest.mark.parametrize(
    ("task", "scores", "asked", "of_group", "chosen"),
    [
        ("hellaswag", ["acc", "acc_norm"], None, (), ["acc_norm"]),
        ("arc_challenge", ["acc", "acc_norm"], None, (), ["acc_norm"]),
        ("arc_easy", ["acc", "acc_norm"], None, (), ["acc_norm"]),
        ("arc_challenge", ["acc", "acc_norm"], "acc", (), ["acc"]),
        ("arc_challenge_chat", ["exact_match"], None, (), ["exact_match"]),
        ("piqa", ["acc", "acc_norm"], None, (), ["acc_norm"]),
        ("winogrande", ["acc"], None, (), ["acc"]),
        ("mmlu_anatomy", ["acc"], None, ("acc",), ["acc"]),
        ("leaderboard_bbh_navigate", ["acc", "acc_norm"], None, ("acc", "acc_norm", "exact_match"), ["acc_norm"]),
        ("leaderboard_gpqa_main", ["acc_norm"], None, (), ["acc_norm"]),
        (
            "leaderboard_ifeval",
            ["prompt_level_loose_acc", "prompt_level_strict_acc"],
            None,
            (),
            ["prompt_level_strict_acc"],
        ),
        ("my_task", ["acc_norm", "acc"], None, (), ["acc"]),
        ("my_task", ["acc_norm", "acc"], None, ("acc_norm",), ["acc_norm"]),
        ("my_task", ["f1", "exact_match"], None, (), ["exact_match"]),
        ("niah_single_1", ["131072", "4096", "8192"], None, (), ["4096", "8192", "131072"]),
        ("niah_single_1", ["4096", "8192"], "8192", (), ["8192"]),
    ],
)
def test_a_task_is_judged_by_the_metric_of_its_leaderboard(
    task: str, scores: list[str], asked: str | None, of_group: tuple[str, ...], chosen: list[str]
) -> None:
    assert choose(task, scores, asked, of_group) == chosen


def test_where_nothing_says_the_user_chooses() -> None:
    with pytest.raises(BadInput, match=r"task x has bleu, f1: choose with --metric, or in a policy"):
        choose("x", ["f1", "bleu"], None)


@pytest.mark.parametrize(
    ("metric", "said", "asked", "way"),
    [
        ("acc", [{}, {}], None, "higher"),
        ("wer", [{}, {}], None, "lower"),
        ("edits", [{"higher_is_better": {"t": {"edits": False}}}, {}], None, "lower"),
        ("score", [{"higher_is_better": {"t": {"score": True}}}] * 2, None, "higher"),
        ("edits", [{}, {}], "lower", "lower"),
        ("acc", [{"higher_is_better": {"t": {"acc": None}}}, {"higher_is_better": 7}], None, "higher"),
        ("edits", [{}, {"higher_is_better": {"t": {"edits": True}}}], None, "nothing says whether more or less edits"),
        ("score", [{"higher_is_better": {"other": {"score": True}}}, {}], None, "nothing says"),
        ("acc", [{}, {"higher_is_better": {"t": {"acc": False}}}], None, "said both ways"),
        ("wer", [{"higher_is_better": {"t": {"wer": True}}}, {}], None, "said both ways"),
        (
            "edits",
            [{"higher_is_better": {"t": {"edits": False}}}, {"higher_is_better": {"t": {"edits": True}}}],
            None,
            "said both ways",
        ),
    ],
)
def test_which_way_is_better_is_known_or_refused(
    metric: str, said: list[dict[str, object]], asked: str | None, way: str
) -> None:
    """A candidate's file alone says nothing: it could make its own loss a gain."""
    if way in ("higher", "lower"):
        assert direction("t", metric, said, asked) == way  # type: ignore[arg-type]
        return
    with pytest.raises(BadInput, match=way):
        direction("t", metric, said, asked)  # type: ignore[arg-type]


def test_the_names_agree_with_lm_evals_own_task_files() -> None:
    """Every metric that lm-eval's tasks call lower or higher is better, by scanning the tasks that are installed."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec and spec.origin
    known: dict[str, set[bool]] = {}
    folders = "arc hellaswag mmlu mmlu_pro gsm8k leaderboard ruler lambada piqa crows_pairs truthfulqa ifeval wmt2016"
    for path in (p for f in folders.split() for p in sorted((Path(spec.origin).parent / "tasks" / f).rglob("*.y*ml"))):
        text = path.read_text("utf-8")
        for found in re.finditer(
            r"- metric: \"?([\w@+]+)\"?\n(?:(?!\s*- metric).*\n)*?\s+higher_is_better: (\w+)", text
        ):
            known.setdefault(found[1], set()).add(found[2].lower() == "true")
    assert {"acc", "acc_norm", "exact_match", "perplexity", "4096", "pct_stereotype"} <= known.keys()
    wrong = [name for name, ways in known.items() if (HIGHER.fullmatch(name) and ways != {True})]
    wrong += [name for name, ways in known.items() if LOWER.fullmatch(name) and ways != {False}]
    assert wrong == []


@pytest.mark.parametrize(
    ("metric", "first", "says"),
    [
        ("word_perplexity", [-3.0, 7], "word_perplexity is no score"),
        ("perplexity", -3.5, "perplexity is no score"),
        ("mcc", Listed("[0, 1]"), r"f:1: mcc is \[0, 1\]; a score"),
        ("bleu_max", 0.3, "bleu_max is no score"),
        ("eqbench", 61.2, "f:1: eqbench is 61.2; a score"),
        ("eqbench", 0.6, None),
        ("acc", 61.2, None),  # of which a wrong value is a wrong file: refused where it is read
        ("4096", -1, None),
        ("exact_match", None, None),
        ("wer", 1 + 1e-12, None),
    ],
)
def test_what_is_no_score_is_said(metric: str, first: object, says: str | None) -> None:
    found = no_score(metric, first, "f:1")
    assert (found is None) == (says is None)
    if says:
        assert re.match(says, str(found))


def test_a_label_says_what_was_turned_round() -> None:
    assert (Choice("acc").label, Choice("wer", "lower").label) == ("acc", "1 - wer")
