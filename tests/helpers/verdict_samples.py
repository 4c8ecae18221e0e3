"""Samples, plans and checks for the tests of the verdict: short to write, and nothing in them is random."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.contract.check import Check
from harness.contract.pairs import Pairing, pair_samples
from harness.contract.policy import NoiseFloor, Policy
from harness.contract.samples import ROLES, PairKey, Role, Sample
from harness.contract.settings import Sampling
from harness.judging.checks import decide
from harness.judging.estimates import Context
from harness.judging.results import CheckResult

ScorePairs = Iterable[tuple[float | None, float | None]]
Plan = dict[PairKey, str | None]


def sample(item: int | str, role: str, score: float | None = None, *, on: str = "cot/gsm8k", **fields: Any) -> Sample:
    suite, task = on.split("/", 1)
    all_fields = {"prompt_sha256": f"p{item}", "finish_reason": "stop", "score": score} | fields
    return Sample(suite=suite, task=task, item=str(item), role=role, **all_fields)


def pairs(scores: ScorePairs, on: str = "cot/gsm8k", roles: Sequence[Role] = ROLES, **fields: Any) -> list[Sample]:
    """Samples of items with these (reference, candidate) scores."""
    return [
        sample(i, role, score, on=on, **fields)
        for i, both in enumerate(scores)
        for role, score in zip(roles, both, strict=True)
    ]


def counts(*, both: int = 0, lost: int = 0, won: int = 0, neither: int = 0) -> list[tuple[float, float]]:
    return [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * won + [(0.0, 0.0)] * neither


def noise(scores: Iterable[float], on: str = "cot/gsm8k", **fields: Any) -> list[Sample]:
    """What the reference scores on the first items when it is asked once more."""
    return [sample(i, "noise", score, on=on, **fields) for i, score in enumerate(scores)]


def measured(
    rows: Iterable[tuple[Mapping[str, float], Mapping[str, float]]],
    on: str = "divergence/chat-en",
    roles: Sequence[Role] = ROLES,
    **fields: Any,
) -> list[Sample]:
    """Samples of items with these (reference, candidate) metrics."""
    return [
        sample(i, role, on=on, finish_reason=None, metrics=dict(values), **fields)
        for i, both in enumerate(rows)
        for role, values in zip(roles, both, strict=True)
    ]


def documents(
    rows: Iterable[tuple[float, float, float]], flips: Sequence[float] | None = None, role: Role = "candidate"
) -> list[Sample]:
    """Divergence samples with (kl_lower_sum, kl_upper_sum, positions); those of the noise role come alone."""
    made = []
    for i, (low, high, positions) in enumerate(rows):
        values = {"kl_lower_sum": low, "kl_upper_sum": high, "positions": positions}
        values["flips"] = 0.0 if flips is None else flips[i]
        made.append(({"positions": positions}, values))
    both = measured(made, roles=("reference", role))
    return both if role == "candidate" else [s for s in both if s.role == role]


def spread(low: float, high: float, n: int = 40) -> list[tuple[float, float, float]]:
    """Documents of 100 positions with a KL between these bounds, not all equal."""
    return [(100 * low * (0.9 + 0.01 * (i % 21)), 100 * high * (0.9 + 0.01 * (i % 21)), 100.0) for i in range(n)]


def policy(*checks: Mapping[str, Any], **fields: Any) -> Policy:
    return Policy(name="test", checks=[Check(**check) for check in checks], **{"suites": {"cot": {}}} | fields)


def plan(samples: Iterable[Sample]) -> Plan:
    """The plan of a run in which everything was answered."""
    return {sample.key.pair: sample.prompt_sha256 for sample in samples if sample.role == "reference"}


def items(n: int, on: str = "cot/gsm8k", repeats: int = 1) -> Plan:
    """A plan of n items of one task."""
    suite, task = on.split("/", 1)
    return {(suite, task, str(i), repeat): f"p{i}" for i in range(n) for repeat in range(repeats)}


def changed(samples: Iterable[Sample], which: Callable[[Sample], bool], **update: Any) -> list[Sample]:
    """Samples, those that `which` names changed."""
    return [s.model_copy(update=update) if which(s) else s for s in samples]


def decided(
    check: Mapping[str, Any],
    samples: Sequence[Sample],
    planned: Plan | None = None,
    *,
    confidence: float = 0.95,
    max_unusable: float = 0.01,
    seal: str = "sealed",
    max_tokens: int = 1,
) -> CheckResult:
    """One check on all samples that there are. The budget is the longest answer, unless `max_tokens` is more."""
    found = Check(**check)
    noise_pairing: Pairing = pair_samples(samples, None, "noise")
    noise_pairing = Pairing(noise_pairing.pairs)
    judged_by = policy(
        check,
        max_unusable=max_unusable,
        noise_floor=NoiseFloor(),
        sampling=Sampling(max_tokens=max_tokens),
        suites={s.suite: {"max_tokens": max_tokens, "step_limit": 1} for s in samples} or {"cot": {}},
    )
    context = Context(judged_by, found.confidence or confidence, seal, noise_pairing)
    return decide(found, found.on, pair_samples(samples, plan(samples) if planned is None else planned), context)
