"""All entries, and how some are chosen."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from harness.contract.errors import BadInput
from harness.prove import configuration, drafts, experts, results, serving, tokenizers, weights
from harness.prove.entries import Entry, Good

CATALOGUE: tuple[Entry, ...] = (
    *weights.ENTRIES,
    *experts.ENTRIES,
    *drafts.ENTRIES,
    *configuration.ENTRIES,
    *tokenizers.ENTRIES,
    *serving.ENTRIES,
    *results.ENTRIES,
)
QUICK = ("rtn-2bit", "layers-swapped", "merge-off", "max-new-tokens", "grader-yes", "samples-dropped")
"""Six of four families that ask for few servers."""


BY_NAME = {entry.name: entry for entry in CATALOGUE}


def control_of(good: Good) -> Entry:
    """The harmless candidate whose run all others of the same good model are compared in."""
    return next(entry for entry in CATALOGUE if entry.control and entry.good == good)


def chosen(names: Collection[str]) -> list[Entry]:
    """Entries by name, in the catalogue's order; all without a name, `quick` for six. Their controls are always there.

    Raises:
        BadInput: no such entry.
    """
    wanted = {*(QUICK if "quick" in names else ()), *names} - {"quick"} or BY_NAME.keys()
    for name in wanted - BY_NAME.keys():
        near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(BY_NAME)}"
        raise BadInput(f"the catalogue has no entry '{name}'; {hint}")
    goods = {"own", *(BY_NAME[name].good for name in wanted)}
    return [entry for entry in CATALOGUE if entry.name in wanted or (entry.control and entry.good in goods)]
