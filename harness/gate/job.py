"""What the steps of one gate share, and the order in which a role is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.contract.items import ItemRef
from harness.contract.pairs import noise_keys, sealed_order
from harness.contract.policy import SealedPolicy
from harness.contract.samples import PairKey, Role
from harness.runs.folder import RunFolder
from harness.runs.manifest import Manifest
from harness.runs.progress import Reporter
from suites.base import Suite


@dataclass
class Access:
    """How a role's server is asked. It may hold secrets and is never stored: the manifest has a URL without login."""

    url: str = field(repr=False)
    api_key: str = field(default="none", repr=False)


@dataclass
class Job:
    """What the steps of one gate share."""

    run: RunFolder
    sealed: SealedPolicy
    manifest: Manifest
    suites: list[Suite]
    items: dict[str, dict[Role, list[ItemRef]]]
    """By suite, what each role is asked, in the sealed order."""
    reporter: Reporter
    access: dict[Role, Access] = field(default_factory=dict)
    """By role that is served now."""

    def save(self) -> None:
        self.run.write_manifest(self.manifest)

    def planned(self, suite: str) -> dict[PairKey, str | None]:
        return {ref.pair(suite): ref.prompt_sha256 for ref in self.items[suite]["reference"]}


def order_items(suite: Suite, items: Sequence[ItemRef], sealed: SealedPolicy) -> dict[Role, list[ItemRef]]:
    """What each role is asked, in the sealed order (or the suite's own, where it keeps it); for the noise floor the
    first items of each task."""
    by_key = {item.pair(suite.name): item for item in items}
    in_sealed_order = [by_key[key] for key in sealed_order(by_key, sealed.sha256)]
    ordered = list(items) if suite.keeps_order else in_sealed_order
    asked: dict[Role, list[ItemRef]] = {"reference": ordered, "candidate": ordered}
    if sealed.policy.noise_floor:
        drawn = noise_keys(by_key, sealed.sha256, sealed.policy.noise_floor.items)
        asked["noise"] = [item for item in ordered if item.pair(suite.name) in drawn]
    return asked
