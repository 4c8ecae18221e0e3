"""Links of the page into its list of pairs: what the list is to show stands in the address, to be passed on."""

from __future__ import annotations

from urllib.parse import urlencode

from harness.judging.results import CheckResult
from reports.samples.index import CUT, LIMITED, UNENDED, PairsView, shown_name

PREFIX = "pairs?"
"""What follows # in an address that sets the filters of the list; samples.js reads and writes them."""
FLIPS = "kinds:worse,better"
SHOWN = {
    "accuracy": FLIPS,
    "resolved": FLIPS,
    "truncated_rate": f"flags:{sum(CUT)}",
    "unterminated_rate": f"flags:{sum(UNENDED)}",
    "looped_rate": f"flags:{sum(UNENDED)}",
    "unsubmitted_rate": f"flags:{sum(LIMITED)}",
}
"""Which pairs a metric is about (the value of a choice), where the index of pairs can tell."""
SORTED = {"length_ratio": "longer", "kl_mean": "kl", "kl_capped_mean": "kl", "tv_mean": "kl", "flip_rate": "kl"}
"""In which order they say most."""


def pairs_link(result: CheckResult, pairs: PairsView) -> str | None:
    """The address that shows what a check speaks of; None where there are no such pairs."""
    suite, _, task = (shown_name(part) for part in result.on.partition("/"))
    if not any(of == suite and (not task or task == name) for of, name in pairs.tasks):
        return None
    offered = {choice.value for choice in pairs.choices}
    show, sort = SHOWN.get(result.metric, ""), SORTED.get(result.metric, "")
    wanted = {"suite": suite, "task": task, "show": show if show in offered else "", "sort": sort}
    return f"#{PREFIX}{urlencode({name: value for name, value in wanted.items() if value})}"
