"""What a reader must be told besides numbers: banners, how the run was made, and what is missing or odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contract.policy import Policy
from harness.contract.samples import ROLES
from harness.contract.weakened import NOTHING_WEAKER
from harness.judging.run_level import lacking
from harness.judging.verdict import SAME_MODEL, Verdict
from harness.parity.comparison import SHOW
from harness.runs.manifest import Manifest
from reports.provenance import Provenance, reused, unread_of
from reports.samples.pairs import StoredPairs
from reports.suite_view import SuiteView
from reports.text import one_line, plural

NOT_THERE = "verdict.json is not there: the run did not finish, or was never judged (quantgate judge RUN)."
NOISE = {
    "server": "a fresh server of the reference, with the same seed",
    "seed": "the same server asked again, with another seed",
}


@dataclass(frozen=True)
class Banner:
    """Something that changes how the verdict is to be read: every report shows it before the numbers."""

    title: str
    lines: list[str]

    @property
    def text(self) -> str:
        """All of it on one line."""
        return " ".join([self.title, "; ".join(self.lines)]).strip()


def banners(manifest: Manifest, verdict: Verdict | None, foreign: int, edited: Sequence[str] = ()) -> list[Banner]:
    """Everything that goes before the numbers, the gravest first. `edited`: files of samples changed since the run."""
    found = []
    if verdict and verdict.after_the_fact:
        found.append(
            Banner(
                "Judged after the fact: the run was sealed with one policy and judged with another.",
                [
                    f"sealed: {verdict.sealed_policy_sha256}",
                    f"judged by: {verdict.policy_sha256}",
                    *(verdict.weakened or [NOTHING_WEAKER]),
                ],
            )
        )
    if edited:
        more = "Tables and samples here show them as they are now; the verdict is of what was there when it was made."
        found.append(Banner("Samples were changed after the run.", [*edited, more]))
    if verdict and verdict.doubts:
        found.append(Banner("The servers were not checked as they must be: nothing passes.", verdict.doubts))
    hidden = unread_of(manifest)
    if hidden.names and hidden.shut:
        title = f"{hidden.sentence}: whether the servers are equal in them is not known."
        found.append(Banner(title, [f"Not read: {one_line(hidden.listed, 1000)}", f"The way out: {SHOW}."]))
    if verdict and verdict.same_model:
        said = SAME_MODEL[:1].upper() + SAME_MODEL[1:]
        found.append(Banner(f"{said}.", ["The candidate cannot be told from its reference, so nothing was tested."]))
    if foreign:
        title = f"{plural(foreign, 'sample')} {'is' if foreign == 1 else 'are'} not of this run."
        found.append(Banner(title, ["Not planned: of another run, or edited in. Not used."]))
    for role in ROLES:
        doubts = manifest.models[role].doubts if role in manifest.models else []
        if doubts:
            found.append(Banner(f"Doubts about the {role}'s files.", [one_line(doubt, 1000) for doubt in doubts]))
    return found


def remarks(manifest: Manifest, policy: Policy | None, stored: StoredPairs) -> list[str]:
    """How the run was made, where that is not as always."""
    said = []
    if manifest.baseline:
        said.append(reused(manifest.baseline))
    how = policy.noise_floor if policy else None
    by = manifest.noise_by or (how.by if how else None)
    if by and stored.noise:
        first = f", on the first {plural(how.items, 'item')} of each task in the sealed order" if how else ""
        said.append(f"A noise floor was measured: the reference against itself by {by} ({NOISE[by]}){first}.")
    return said + [f"Stopped early: {one_line(sentence)}." for sentence in manifest.stopped]


def notes(
    manifest: Manifest,
    policy: Policy | None,
    verdict: Verdict | None,
    stored: StoredPairs,
    suites: Sequence[SuiteView],
    sources: Provenance,
) -> list[str]:
    """What is missing or odd."""
    found = []
    if verdict is None:
        found.append("There is no verdict: nothing below was judged.")
    elif not verdict.checks:
        found.append("The verdict holds no checks.")
    if sources.forbidden:
        found.append(f"The servers differ in what the policy does not allow: {', '.join(sources.forbidden)}.")
    if sources.unread.names and not sources.unread.shut:
        found.append(f"{sources.unread.sentence}: {one_line(sources.unread.listed, 1000)}.")
    found += [f"{one_line(note, 1000)}." for note in manifest.notes]
    if policy and verdict and not verdict.after_the_fact:
        asked = dict.fromkeys(f"{pair.suite}/{pair.task}" for pair in stored.pairs if not pair.unusable)
        found += [f"{one_line(said, 1000)}." for said in lacking(policy, asked)]
    for role in ROLES if manifest.command[1:2] != ["compare"] else ():  # results made elsewhere have no servers
        if role not in manifest.models:
            found.append(f"The manifest says nothing about the {role} model.")
        if role not in manifest.servers:
            found.append(f"The manifest says nothing about the {role}'s server.")
    if stored.duplicates:
        many = plural(stored.duplicates, "sample")
        found.append(f"{many} with a key that was there before: the first one counts here.")
    if not stored.pairs:
        return [*found, "There are no samples."]
    if policy and policy.noise_floor and not stored.noise:
        found.append("The policy asks for a noise floor; no sample of one is there.")
    return found + [note for note in map(_suite_note, suites) if note]


def _suite_note(suite: SuiteView) -> str | None:
    """What one suite lacks, or None when it is whole."""
    lacks = suite.coverage
    if not suite.tables:
        return f"{suite.name}: no samples, of {plural(lacks.planned, 'planned pair')}."
    without = suite.divergence.without_metrics if suite.divergence else 0
    parts = [
        (lacks.missing, f"{plural(lacks.missing, 'pair')} missing of {lacks.planned:,} planned"),
        (lacks.errored, f"{plural(lacks.errored, 'pair')} with an error"),
        (lacks.unequal, f"{plural(lacks.unequal, 'pair')} with different prompts"),
        (lacks.unscored, f"{plural(lacks.unscored, 'pair')} without a score"),
        (without, f"{plural(without, 'document')} without divergence metrics"),
    ]
    said = [text for count, text in parts if count]
    return f"{suite.name}: {'; '.join(said)}." if said else None
