"""All entries, and how some are chosen."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from harness.contract.errors import BadInput
from harness.prove import configuration, results, serving, tokenizers, weights
from harness.prove.entries import Entry
from harness.prove.weights import CONTROL

CATALOGUE: tuple[Entry, ...] = (
    *weights.ENTRIES,
    *configuration.ENTRIES,
    *tokenizers.ENTRIES,
    *serving.ENTRIES,
    *results.ENTRIES,
)
QUICK = ("rtn-2bit", "layers-swapped", "merge-off", "max-new-tokens", "grader-yes", "samples-dropped")
"""Six of four families that ask for few servers."""


def chosen(names: Collection[str]) -> list[Entry]:
    """Entries by name, in the catalogue's order; all without a name, `quick` for six. The control is always there.

    Raises:
        BadInput: no such entry.
    """
    wanted = {CONTROL.name, *(QUICK if "quick" in names else ()), *names} - {"quick"}
    known = {entry.name: entry for entry in CATALOGUE}
    for name in wanted - known.keys():
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise BadInput(f"the catalogue has no entry '{name}'; {hint}")
    return [entry for entry in CATALOGUE if entry.name in wanted or not names]
