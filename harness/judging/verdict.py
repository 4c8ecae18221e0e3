"""The verdict: a pure function of a policy and samples. It never talks to a server and reads no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness.contract.check import Check
from harness.contract.pairs import Pairing, noise_keys, pair_samples
from harness.contract.policy import Policy, SealedPolicy
from harness.contract.samples import PairKey, Sample
from harness.contract.weakened import weakened
from harness.judging.checks import decide, undecided
from harness.judging.estimates import Context
from harness.judging.results import CheckResult, Outcome
from harness.judging.run_level import blocking_statements, lacking, run_outcome, targets_of, with_holm

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
    tasks = list(dict.fromkeys(f"{suite}/{task}" for suite, task, *_ in planned))
    fail_level = (1 - policy.confidence) / blocking_statements(policy, tasks)
    for check in (statement for given in policy.checks for statement in given.statements):
        confidence = check.confidence or policy.confidence
        targets = targets_of(check, tasks)
        if not targets:
            results.append(undecided(check, confidence, "no samples: nothing ran for this check"))
        for on in targets:
            there = _part(pairing, found, check, on)
            context = Context(policy, confidence, seal, _part(noise, (), check, on), fail_level)
            results.append(decide(check, on, there, context))
    results = with_holm(results, 1 - policy.confidence)
    same = _same_model(pairing)
    odd = [*doubts, *([SAME_MODEL] if same else [])]
    odd += lacking(policy, dict.fromkeys(f"{suite}/{task}" for suite, task, *_ in pairing.pairs))
    if pairing.foreign:
        odd.append(f"{pairing.foreign} samples are not of this run")
    outcome, reason = run_outcome(results, odd)
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


def _part(pairing: Pairing, samples: Iterable[Sample], check: Check, on: str) -> Pairing:
    """What a statement speaks of; foreign samples are counted where they pretend to belong."""

    def belongs(suite: str, task: str) -> bool:
        return (f"{suite}/{task}" if "/" in on else suite) == on

    known = pairing.pairs.keys() | pairing.unusable.keys()
    foreign = sum(s.role != "noise" and belongs(s.suite, s.task) and s.key.pair not in known for s in samples)
    return pairing.part(lambda key: belongs(*key[:2]), foreign)


def _same_model(pairing: Pairing) -> bool:
    """KL exactly zero over at least one trajectory, and no position anywhere that differs.

    Answers say nothing here: sampled ones differ from one server to the next, with the same weights too.
    """
    metrics = [pair.candidate.metrics for pair in pairing.pairs.values() if "kl_upper_sum" in pair.candidate.metrics]
    return bool(metrics) and all(m["kl_upper_sum"] == 0 and m.get("flips", 0.0) == 0 for m in metrics)
