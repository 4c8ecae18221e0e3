"""Metrics of lm-eval: which are scores of single documents from 0 to 1, which way is better, and which one is judged.

lm-eval writes every metric of a task into each record, named as in its task file or in `lm_eval/api/metrics.py`.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from harness.contract.errors import BadInput
from harness.offline.results import shown

Better = Literal["higher", "lower"]

HIGHER = re.compile(
    r"acc(_\w+)?|\w+_acc|accuracy(_\w+)?|\w+_accuracy|exact(_match)?(_\w+)?|em|contains|math_verify|pass@\d+|pass_at_\d+|"
    r"mc[12]|\d+|(\w+_)?f1(_\w+)?|precision|recall|rouge(\d|L|Lsum|_score|_zh_score)?|bert_?score|chrf|chrf\+\+|bleu|"
    r"(qa_f1|qa_f1_zh|classification|retrieval|retrieval_zh|count|code_sim|libra)_score|likelihood|mcc|anls|"
    r"numerical_match|extraction_rate|percent_parseable|(options_)?consistency_rate"
)
"""Names under which lm-eval's tasks store what is better when it is more, wherever they say so."""
LOWER = re.compile(r"(word_|byte_)?perplexity|bits_per_byte|brier_score|mse|ter|[wc]er|pct_stereotype|pct_invalid|ece")
"""Likewise what is worse when it is more."""
OF_A_CORPUS = re.compile(
    r"(word_|byte_)?perplexity|bits_per_byte|bypass|(bleu|rouge\w+|bleurt)_(max|diff)|likelihood_diff"
)
"""What is summed up over a corpus, or has no upper end: a document has no score from 0 to 1 by it. Others of this kind
(bleu, mcc) show by their values, which are lists."""

LEADERBOARD = (
    ("leaderboard_ifeval|ifeval|ifeval_*", "prompt_level_strict_acc"),
    ("leaderboard_mmlu_pro|mmlu|mmlu_*", "acc"),
    ("leaderboard_bbh*|leaderboard_gpqa*|leaderboard_musr*", "acc_norm"),
    ("leaderboard_math*|minerva_math*|hendrycks_math*", "exact_match"),
    ("hellaswag|hellaswag_*|arc_*|ai2_arc*", "acc_norm"),
    ("piqa|openbookqa|sciq|logiqa|logiqa2|social_iqa|gpqa_*", "acc_norm"),
    ("truthfulqa_gen|truthfulqa-gen", "bleu_acc"),
)
"""(tasks, metric) as the Open LLM Leaderboards 1 and 2 rank them, or as their papers do; the first that fits."""
PREFERRED = ("exact_match", "acc", "em", "pass@1", "pass_at_1", "prompt_level_strict_acc")
"""Where that says nothing: the first of these that a task has."""


class Choice(NamedTuple):
    """What a task is judged by."""

    metric: str
    better: Better = "higher"

    @property
    def label(self) -> str:
        """As it stands in a task's name. Less that is better is judged as 1 - metric, so that a loss is one loss."""
        return self.metric if self.better == "higher" else f"1 - {self.metric}"


class Listed(NamedTuple):
    """A value that is no number but a list, of which lm-eval makes one number over all documents."""

    shown: str


def is_length(metric: str) -> bool:
    """Whether a metric is a length of RULER's prompts: "4096"."""
    return metric.isascii() and metric.isdigit()


def no_score(metric: str, first: object, where: str) -> str | None:
    """Why a metric gives single documents no score from 0 to 1, by its name and its first value; None if it may.

    What is known to be a score is held to it: a wrong value is then a wrong file, and refused where it is read.
    """
    if OF_A_CORPUS.fullmatch(metric):
        return f"{metric} is no score of single documents"
    if isinstance(first, Listed):
        return f"{where}: {metric} is {first.shown}; a score is a number from 0 to 1"
    known = metric in PREFERRED or metric.startswith("acc") or is_length(metric)
    number = isinstance(first, int | float) and math.isfinite(first)
    if number and not known and not -1e-9 <= float(first) <= 1 + 1e-9:  # type: ignore[arg-type]
        return f"{where}: {metric} is {shown(first)}; a score is a number from 0 to 1"
    return None


def choose(task: str, scores: Sequence[str], asked: str | None, of_group: Sequence[str] = ()) -> list[str]:
    """The metric that a task is judged by, among its `scores`; of RULER every length.

    The one that is asked for; the only one; the one that lm-eval gives its group in; the leaderboards' one; a preferred
    one. Raises BadInput when none of this says.
    """
    if asked is not None and asked in scores:
        return [asked]
    if scores and all(map(is_length, scores)):
        return sorted(scores, key=int)
    if len(scores) == 1:
        return list(scores)
    ranked = (metric for tasks, metric in LEADERBOARD if any(fnmatch.fnmatchcase(task, t) for t in tasks.split("|")))
    for metric in (*(of_group if len(of_group) == 1 else ()), *ranked, *of_group, *PREFERRED):
        if metric in scores:
            return [metric]
    raise BadInput(f"task {task} has {', '.join(sorted(scores)[:8])}: choose with --metric, or in a policy")


def direction(task: str, metric: str, said: Sequence[Mapping[str, Any]], asked: Better | None = None) -> Better:
    """Which way is better: as asked, else by its name, else as lm-eval said when it ran the reference.

    `said` are the results beside the reference's and the candidate's samples.

    Raises:
        BadInput: nobody knows it, or what is said contradicts itself. Guessing would make a loss a gain.
    """
    known: Better | None = "higher" if HIGHER.fullmatch(metric) else "lower" if LOWER.fullmatch(metric) else None
    found = [_said(results, task, metric) for results in said]
    contradicted = {way for way in (known, *found) if way}
    if asked:
        return asked
    if len(contradicted) > 1:
        raise BadInput(
            f"task {task}: whether more or less {metric} is better is said both ways (its name and the results files "
            "beside the samples); name another --metric, or say it in a policy (better: higher)"
        )
    way = known or found[0]
    if way is None:
        raise BadInput(
            f"task {task}: nothing says whether more or less {metric} is better (no results_<time>.json beside the "
            "reference's samples does); name another --metric, or say it in a policy (better: higher)"
        )
    return way


def _said(results: Mapping[str, Any], task: str, metric: str) -> Better | None:
    tasks = results.get("higher_is_better")
    of_task = tasks.get(task) if isinstance(tasks, dict) else None
    higher = of_task.get(metric) if isinstance(of_task, dict) else None
    return None if not isinstance(higher, bool) else "higher" if higher else "lower"
