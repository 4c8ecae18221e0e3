"""Checks, and samples that pass, fail and do not decide them, for the tests of single checks."""

from collections.abc import Callable
from typing import Any

from verdict_samples import documents, measured, sample, spread

from harness.contract.samples import ROLES, Role, Sample

ACCURACY = {"metric": "accuracy", "on": "cot/gsm8k", "max_loss": 0.02}
TRUNCATED = {"metric": "truncated_rate", "on": "cot/gsm8k", "max_increase": 0.02}
KL = {"metric": "kl_mean", "on": "divergence", "max": 0.05}
WORSE: dict[str, Callable[[bool], dict[str, Any]]] = {
    "accuracy": lambda bad: {"score": 0.0 if bad else 1.0},
    "resolved": lambda bad: {"score": 0.0 if bad else 1.0},
    "truncated_rate": lambda bad: {"finish_reason": "length" if bad else "stop"},
    "unterminated_rate": lambda bad: {"metrics": {"unterminated": float(bad)}},
    "looped_rate": lambda bad: {"metrics": {"looped": float(bad)}},
    "wrong_language_rate": lambda bad: {"metrics": {"wrong_language": float(bad)}},
    "uncommitted_rate": lambda bad: {"metrics": {"uncommitted": float(bad)}},
    "wrong_reasoning_language_rate": lambda bad: {"metrics": {"wrong_reasoning_language": float(bad)}},
    "garbled_rate": lambda bad: {"metrics": {"garbled": float(bad)}},
    "end_of_thinking": lambda bad: {"metrics": {"end_of_thinking": 0.0 if bad else 1.0, "thinking_closed": 1.0}},
    "unsubmitted_rate": lambda bad: {"metrics": {"unsubmitted": float(bad)}},
    "format_error_rate": lambda bad: {"metrics": {"format_error_rate": float(bad)}},
}
"""How a sample is good or bad by each metric of a difference."""


def answered(metric: str, *, fine: int, worse: int, better: int) -> list[Sample]:
    """Items that both roles do well, that only the reference does well, that only the candidate does well."""
    found, bad = [], [(False, False)] * fine + [(False, True)] * worse + [(True, False)] * better
    for i, both in enumerate(bad):
        found += [sample(i, role, **WORSE[metric](is_bad)) for role, is_bad in zip(ROLES, both, strict=True)]
    return found


def truncated(count: int, of: int) -> list[Sample]:
    """Items whose first ones are cut in both roles."""
    return [sample(i, role, finish_reason="length" if i < count else "stop") for i in range(of) for role in ROLES]


def ratios(name: str, values: list[tuple[float, float]]) -> list[Sample]:
    """Pairs with these (reference, candidate) values of a metric, or of their number of tokens."""
    if name == "tokens":
        both = [(role, v) for row in values for role, v in zip(ROLES, row, strict=True)]
        return [sample(i // 2, role, completion_tokens=int(v)) for i, (role, v) in enumerate(both)]
    return measured([({name: reference}, {name: candidate}) for reference, candidate in values], "cot/gsm8k")


def drafts(rows: list[tuple[float, float, float, float]]) -> list[Sample]:
    """Stretches with (accepted, drafted) of the reference and of the candidate."""
    made = []
    for accepted, drafted, accepted_too, drafted_too in rows:
        reference = {"accepted_tokens": accepted, "draft_tokens": drafted}
        made.append((reference, {"accepted_tokens": accepted_too, "draft_tokens": drafted_too}))
    return measured(made, "speculative/chat")


def accepted(rows: list[tuple[float, float]]) -> list[Sample]:
    """Stretches with (accepted tokens, drafts of 3 tokens) of the candidate; the reference drafts nothing."""
    made = [{"accepted_tokens": a, "drafts": d, "draft_tokens": 3 * d} for a, d in rows]
    return measured([({}, values) for values in made], "speculative/chat")


def parted(lengths: list[int], role: Role = "candidate") -> list[Sample]:
    """Answers that leave the reference's after so many equal tokens; those of the noise role come alone."""
    values = [{"first_divergence": n, "diverged": 1.0, "decode_positions": n + 1.0} for n in lengths]
    both = measured([({}, found) for found in values], "decoding/chat", ("reference", role))
    return both if role == "candidate" else [s for s in both if s.role == role]


def bounded(name: str, low: float, high: float) -> list[Sample]:
    """Documents of 100 positions with a divergence between these, not all equal."""
    rows = [{f"{name}_lower_sum": a, f"{name}_upper_sum": b, "positions": n} for a, b, n in spread(low, high)]
    return measured([({}, row) for row in rows])


CAPPED = {"PASS": (0.05, 0.1), "FAIL": (0.3, 0.5), "INCONCLUSIVE": (0.1, 0.3)}
KL_ROWS = {"PASS": spread(0.01, 0.02), "FAIL": spread(0.2, 0.5), "INCONCLUSIVE": spread(0.01, 0.5)}
BOUNDED = 120
"""Documents of the ratios whose parts have a known range: their bounds need more than a bootstrap."""


def flips(count: float) -> list[Sample]:
    """Documents of 100 positions with about this many flips."""
    return documents(spread(0.01, 0.01, BOUNDED), [count + i % 3 for i in range(BOUNDED)])


FLIPS = {"PASS": 2.0, "FAIL": 20.0, "INCONCLUSIVE": 9.0}
RATIOS: dict[str, dict[str, list[Sample]]] = {
    # Passes by its upper sums only, fails by its lower ones only: the truth lies between them.
    "kl_mean max": {v: documents(rows) for v, rows in KL_ROWS.items()},
    "kl_capped_mean max": {v: bounded("kl_capped", low, high) for v, (low, high) in CAPPED.items()},
    "tv_mean max": {v: bounded("tv", low, high) for v, (low, high) in CAPPED.items()},
    "js_mean max": {v: bounded("js", low, high) for v, (low, high) in CAPPED.items()},
    "flip_rate max": {v: flips(f) for v, f in FLIPS.items()},
    "parting_rate max": {
        "PASS": parted([199 + i % 5 for i in range(BOUNDED)]),
        "FAIL": parted([2 + i % 3 for i in range(BOUNDED)]),
        "INCONCLUSIVE": parted([9 if i % 8 else 2 for i in range(BOUNDED)]),
    },
    "length_ratio max": {
        "PASS": ratios("tokens", [(100, 98 + i % 5) for i in range(BOUNDED)]),
        "FAIL": ratios("tokens", [(100, 148 + i % 5) for i in range(BOUNDED)]),
        "INCONCLUSIVE": ratios("tokens", [(100, 80 + 50 * (i % 2)) for i in range(BOUNDED)]),
    },
    "length_ratio min": {
        "PASS": ratios("tokens", [(100, 98 + i % 5) for i in range(BOUNDED)]),
        "FAIL": ratios("tokens", [(100, 20 + i % 5) for i in range(BOUNDED)]),
        "INCONCLUSIVE": ratios("tokens", [(100, 70 + 22 * (i % 2)) for i in range(BOUNDED)]),
    },
    "steps_ratio max": {
        "PASS": ratios("steps", [(50.0, 49.0 + i % 3) for i in range(BOUNDED)]),
        "FAIL": ratios("steps", [(50.0, 74.0 + i % 3) for i in range(BOUNDED)]),
        "INCONCLUSIVE": ratios("steps", [(50.0, 40.0 + 25 * (i % 2)) for i in range(BOUNDED)]),
    },
    "steps_ratio min": {
        "PASS": ratios("steps", [(50.0, 49.0 + i % 3) for i in range(BOUNDED)]),
        "FAIL": ratios("steps", [(50.0, 10.0 + i % 3) for i in range(BOUNDED)]),
        "INCONCLUSIVE": ratios("steps", [(50.0, 35.0 + 11 * (i % 2)) for i in range(BOUNDED)]),
    },
    "speed_ratio min": {
        "PASS": ratios("tokens_per_second", [(50.0, 75.0 + i % 5) for i in range(40)]),
        "FAIL": ratios("tokens_per_second", [(50.0, 20.0 + i % 5) for i in range(40)]),
        "INCONCLUSIVE": ratios("tokens_per_second", [(50.0, 30.0 + 20 * (i % 2)) for i in range(40)]),
    },
    "acceptance max_loss": {
        "PASS": drafts([(80, 100, 79 + i % 3, 100) for i in range(40)]),
        "FAIL": drafts([(80, 100, 39 + i % 3, 100) for i in range(40)]),
        "INCONCLUSIVE": drafts([(80, 100, 60 + 20 * (i % 2), 100) for i in range(40)]),
    },
    "accepted_length min": {
        "PASS": accepted([(29.0 + i % 3, 20.0) for i in range(40)]),
        "FAIL": accepted([(7.0 + i % 3, 20.0) for i in range(40)]),
        "INCONCLUSIVE": accepted([(10.0 + 20 * (i % 2), 20.0) for i in range(40)]),
    },
    "bytes_ratio max": {
        "PASS": ratios("bytes", [(1000.0, 1100.0)]),
        "FAIL": ratios("bytes", [(1000.0, 1101.0)]),
        "INCONCLUSIVE": ratios("bytes", [(0.0, 300.0)]),
    },
}
