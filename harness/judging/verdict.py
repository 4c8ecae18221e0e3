"""The verdict: a pure function of a policy and samples. It never talks to a server and reads no file."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness.contract.pairs import Pairing, noise_keys, pair_samples
from harness.contract.policy import Check, Policy, SealedPolicy, weakened
from harness.contract.samples import PairKey, Sample
from harness.judging.checks import CheckResult, Context, Outcome, decide, named_by_holm, undecided
from harness.judging.statistics import holm

EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}
SCHEMA_VERSION = 2
SAME_MODEL = "the same model twice: KL is exactly 0 at every position"


class Verdict(BaseModel):
    """The decision on a run. Only PASS publishes."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    verdict: Outcome
    reason: str
    policy_name: str
    policy_sha256: str
    sealed_policy_sha256: str
    """Equal to policy_sha256, unless the run was judged again with another policy after the fact."""
    weakened: list[str] = []
    """After the fact: what this policy lets pass that the sealed one does not."""
    doubts: list[str] = []
    """About the whole run; with any, nothing passes."""
    same_model: bool = False
    """The candidate cannot be told from the reference at all."""
    foreign: int = 0
    """Samples of tasks that were not planned."""
    checks: list[CheckResult]

    @property
    def after_the_fact(self) -> bool:
        return self.policy_sha256 != self.sealed_policy_sha256


def judge(
    policy: Policy,
    samples: Iterable[Sample],
    planned: Mapping[PairKey, str | None],
    policy_sha256: str,
    sealed: SealedPolicy | None = None,
    doubts: Sequence[str] = (),
) -> Verdict:
    """Decide every check of a policy on samples.

    `planned` names every pair that was to be made, with the sha256 of its prompt (None: not known): what never ran is
    counted as missing, what nobody planned as foreign. `sealed` is the policy that the run was begun with, when
    another one is to decide; its sha256 also orders the items of sequential checks. With `doubts` about the whole run,
    one line each, nothing passes.

    Raises:
        BadInput: a sample key that is there twice.
    """
    found = list(samples)
    seal = sealed.sha256 if sealed else policy_sha256
    pairing, noise = pair_samples(found, planned), _noise(found, planned, (sealed.policy if sealed else policy), seal)
    results: list[CheckResult] = []
    for check in policy.checks:
        confidence = check.confidence or policy.confidence
        targets = _targets(check, planned)
        if not targets:
            results.append(undecided(check, confidence, "no samples: nothing ran for this check"))
        for on in targets:
            there = _part(pairing, found, check, on)
            context = Context(confidence, policy.max_unusable, seal, _part(noise, (), check, on))
            results.append(decide(check, on, there, context))
    rejected = holm([1.0 if r.p_fail is None else r.p_fail for r in results], 1 - policy.confidence)
    results = named_by_holm(results, rejected)
    same = _same_model(pairing)
    outcome, reason = _outcome(results, same, pairing.foreign, doubts)
    return Verdict(
        verdict=outcome,
        reason=reason,
        policy_name=policy.name,
        policy_sha256=policy_sha256,
        sealed_policy_sha256=seal,
        weakened=weakened(sealed.policy, policy) if sealed and sealed.sha256 != policy_sha256 else [],
        doubts=list(doubts),
        same_model=same,
        foreign=pairing.foreign,
        checks=results,
    )


def _noise(samples: Iterable[Sample], planned: Mapping[PairKey, str | None], sealed: Policy, seal: str) -> Pairing:
    """Reference and noise role: what the noise role answered, and what it was to answer by the sealed policy."""
    keys = {sample.key.pair for sample in samples if sample.role == "noise"} & planned.keys()
    if sealed.noise_floor:
        keys |= noise_keys(planned, seal, sealed.noise_floor.items)
    return pair_samples(samples, {key: planned[key] for key in keys}, "noise")


def _outcome(results: Sequence[CheckResult], same: bool, foreign: int, doubts: Sequence[str]) -> tuple[Outcome, str]:
    """All checks must hold, which needs no correction for their number."""
    worst = [r for r in results if r.verdict == "FAIL"] or [r for r in results if r.verdict == "INCONCLUSIVE"]
    reasons = [*doubts, *([SAME_MODEL] if same else [])]
    if foreign:
        reasons.append(f"{foreign} samples are not of this run")
    reasons += [f"{r.name}: {r.reason}" for r in worst]
    if not reasons:
        return "PASS", f"all {len(results)} checks hold"
    return (worst[0].verdict if worst else "INCONCLUSIVE"), "; ".join(reasons)


def targets_of(check: Check, tasks: Iterable[str]) -> dict[str, list[str]]:
    """The statements a check makes ("suite" pooled, or each matching "suite/task") and the tasks each speaks of."""
    if "/" in check.on:
        return {task: [task] for task in tasks if fnmatch.fnmatchcase(task, check.on)}
    pooled = [task for task in tasks if task.split("/", 1)[0] == check.on]
    return {check.on: pooled} if pooled else {}


def _targets(check: Check, planned: Iterable[PairKey]) -> list[str]:
    return list(targets_of(check, dict.fromkeys(f"{suite}/{task}" for suite, task, *_ in planned)))


def _part(pairing: Pairing, samples: Iterable[Sample], check: Check, on: str) -> Pairing:
    """What a statement speaks of; foreign samples are counted where they pretend to belong."""

    def belongs(suite: str, task: str) -> bool:
        return (f"{suite}/{task}" if "/" in on else suite) == on

    known = pairing.pairs.keys() | pairing.unusable.keys()
    return Pairing(
        {key: pair for key, pair in pairing.pairs.items() if belongs(*key[:2])},
        {key: reason for key, reason in pairing.unusable.items() if belongs(*key[:2])},
        sum(s.role != "noise" and belongs(s.suite, s.task) and s.key.pair not in known for s in samples),
    )


def _same_model(pairing: Pairing) -> bool:
    """KL exactly zero over at least one trajectory, and no position anywhere that differs.

    Answers say nothing here: sampled ones differ from one server to the next, with the same weights too.
    """
    metrics = [pair.candidate.metrics for pair in pairing.pairs.values() if "kl_upper_sum" in pair.candidate.metrics]
    return bool(metrics) and all(m["kl_upper_sum"] == 0 and m.get("flips", 0.0) == 0 for m in metrics)
