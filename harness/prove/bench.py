"""What entries are made of and gated with: a good model, its policy, and the control's run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.checkpoint.models import describe
from harness.contract.errors import BadInput
from harness.contract.model_facts import ModelFacts
from harness.contract.policy import SealedPolicy, load_policy
from harness.contract.samples import sha256_of
from harness.contract.whole_files import read_json, write_whole
from harness.prove.catalogue import control_of
from harness.prove.entries import Entry, Good
from harness.prove.standins import has, make_standin
from harness.runs.folder import RunFolder

SEAL, RESULT = "prove.json", "finding.json"
DRAFTS_POLICY = Path(__file__).parent / "drafts.yaml"


@dataclass(frozen=True)
class Bench:
    """One good model and everything that is compared with it. Worker processes get a copy."""

    out: Path
    model: str
    """As it is called: `demo`, a folder or a hub id."""
    good: Path
    """Its folder."""
    policy: str
    control: str
    """Name of the entry whose run all others are compared in."""
    seed: int

    def folder(self, entry: Entry) -> Path:
        return self.out / entry.name

    def run(self, entry: Entry) -> RunFolder:
        return RunFolder(self.folder(entry) / "run")

    @property
    def sealed(self) -> SealedPolicy:
        return load_policy(self.policy)


def own_bench(out: Path, model: str, good: Path, policy: str, seed: int) -> Bench:
    """The bench of the model that was given."""
    return Bench(out, model, good, policy, control_of("own").name, seed)


def bench_of(good: Good, own: Bench) -> Bench:
    """The bench of entries of this kind: that of the given model where it is such a one, else of one made of it, once,
    under OUT/good. Raises NotApplicable: none can be made."""
    if has(good, own.good):
        return own
    made = own.out / "good" / good
    if not made.exists():
        part = made.with_name(f".{good}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        make_standin(good, own.good, part)
        part.rename(made)
    policy = str(DRAFTS_POLICY) if good == "drafts" else own.policy
    return Bench(own.out, str(made), made, policy, control_of(good).name, own.seed)


def seal(bench: Bench, facts: ModelFacts, resume: bool) -> None:
    """Begin the folder, or see that it was begun with the same. Raises BadInput."""
    sealed = {"policy": bench.sealed.sha256, "model": facts.sha256, "quantgate": __version__, "seed": bench.seed}
    path = bench.out / SEAL
    if not path.exists():
        write_whole(path, f'{{"sha256": "{sha256_of(sealed)}"}}\n')
    elif not resume:
        raise BadInput(f"{bench.out} already holds a proof; add --resume to go on, or choose another --out")
    elif read_json(path).get("sha256") != sha256_of(sealed):
        raise BadInput(f"{bench.out} was begun with another model, policy or version; choose another --out")


def facts_of(bench: Bench) -> ModelFacts:
    """What the good model is."""
    return describe(bench.model, bench.good)
