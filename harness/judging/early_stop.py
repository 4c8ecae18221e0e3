"""Stopping a suite early: which of its items no sequential check needs any more.

The suite driver reports every sample and asks before every item. Decisions are those that `verdict.judge` will come to:
the same test, fed with the same items in the same sealed order, whatever order the answers arrive in.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.contract.check import Check
from harness.contract.metrics import METRICS, Difference
from harness.contract.pairs import Pairing, pair_samples, sealed_order
from harness.contract.policy import Policy
from harness.contract.samples import PairKey, Sample
from harness.judging.estimates import StopRule, values_by_item
from harness.judging.gaps import filled
from harness.judging.run_level import blocking_statements, targets_of
from harness.judging.usable_pairs import few_enough, with_values


class EarlyStop:
    """The sequential checks of one suite while it runs."""

    def __init__(
        self, policy: Policy, planned: dict[PairKey, str | None], seal: str, run_tasks: Iterable[str] | None = None
    ) -> None:
        """`planned` are the suite's pairs with their prompts; `seal` is the sha256 of the sealed policy. `run_tasks`
        ("suite/task") are those of all suites, when there are more: the more checks may fail the run, the later a
        check stops for FAIL."""
        tasks = dict.fromkeys(f"{suite}/{task}" for suite, task, *_ in planned)
        statements = blocking_statements(policy, tasks if run_tasks is None else run_tasks)
        fail_level = (1 - policy.confidence) / statements
        self._statements: list[_Statement] = []
        open_ended: set[str] = set(tasks)
        for check in policy.checks:
            for on, members in targets_of(check, tasks).items():
                if check.stop:
                    keys = {k: sha for k, sha in planned.items() if f"{k[0]}/{k[1]}" in members}
                    confidence = check.confidence or policy.confidence
                    statement = _Statement(check, on, confidence, fail_level, keys, seal, policy)
                    self._statements.append(statement)
        self._by_task = {t: [s for s in self._statements if t in s.tasks] for t in tasks}
        # A task that any other check speaks of is needed to its end.
        needed = {
            task
            for check in policy.checks
            if not check.stop
            for members in targets_of(check, tasks).values()
            for task in members
        }
        self._open_ended = needed | {task for task in open_ended if not self._by_task[task]}

    def record(self, sample: Sample) -> None:
        """Take note of a sample of either role."""
        for statement in self._by_task.get(f"{sample.suite}/{sample.task}", ()):
            statement.record(sample)

    def needless(self, key: PairKey) -> bool:
        """Whether the verdict no longer depends on this pair."""
        task = f"{key[0]}/{key[1]}"
        return task not in self._open_ended and all(s.done for s in self._by_task[task])

    def decided(self) -> list[str]:
        """What has been decided, in words."""
        return [
            f"{s.check.metric} on {s.on}: {s.rule.outcome} after {s.used} of {len(s.items)} items"
            for s in self._statements
            if s.done
        ]


class _Statement:
    """One sequential check on its target."""

    def __init__(
        self,
        check: Check,
        on: str,
        confidence: float,
        fail_level: float,
        planned: dict[PairKey, str | None],
        seal: str,
        policy: Policy,
    ) -> None:
        metric = METRICS[check.metric]
        assert isinstance(metric, Difference)  # the policy refuses others
        self.check, self.on, self.metric, self.planned = check, on, metric, planned
        self.tasks = {f"{suite}/{task}" for suite, task, *_ in planned}
        self.rule = StopRule(check, confidence, fail_level)
        self.items: dict[tuple[str, str, str], list[PairKey]] = {}
        for key in sealed_order(planned, seal):
            self.items.setdefault(key[:3], []).append(key)
        self._order = list(self.items)
        self._next = 0
        self._policy = policy
        self._pairs, self._unusable, self._items_used = 0, 0, 0
        self._samples: dict[PairKey, list[Sample]] = {}

    @property
    def done(self) -> bool:
        """Decided, with so few unusable pairs until then that the verdict may say so."""
        few = few_enough(self._unusable, self._pairs, self._policy.max_unusable)
        return self.rule.outcome is not None and few

    @property
    def used(self) -> int:
        """Items that were answered so far and are used."""
        return self._items_used

    def record(self, sample: Sample) -> None:
        if sample.role == "noise" or sample.key.pair not in self.planned:
            return
        self._samples.setdefault(sample.key.pair, []).append(sample.without_texts())
        # Only what is whole up to here is fed: an item that takes long must not be overtaken.
        while not self.done and self._next < len(self._order):
            keys = self.items[self._order[self._next]]
            if any(len(self._samples.get(key, ())) < 2 for key in keys):
                return
            self._feed(keys)
            self._next += 1

    def _feed(self, keys: Iterable[PairKey]) -> None:
        there = [sample for key in keys for sample in self._samples.pop(key)]
        pairing = with_values(self.check, pair_samples(there, {key: self.planned[key] for key in keys}), Pairing())
        self._pairs += pairing.total
        self._unusable += len(pairing.unusable)
        self._items_used += len({key[:3] for key in pairing.pairs})
        worst, best = (
            values_by_item(self.metric, filled(self.check, pairing, Pairing(), self._policy, worst=worst)[0].pairs)
            for worst in (True, False)
        )
        for item, values in worst.items():
            self.rule.update(values, best[item])
