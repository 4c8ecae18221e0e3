"""The weakest dose of a defect that the gate still catches, by bisection over the entry's steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from harness.contract.errors import BadInput, RunFailed, first_error
from harness.contract.whole_files import write_whole
from harness.prove.bench import RESULT, Bench
from harness.prove.catalogue import BY_NAME
from harness.prove.entries import Entry, NotApplicable
from harness.prove.findings import Status, Weakest
from harness.prove.gating import gated, known
from harness.runs.progress import Reporter

FOUND = "weakest.json"


def first_caught(count: int, caught: Callable[[int], bool], start: int) -> int:
    """The first of `count` steps that is caught, `count` if none is; from a step on all are taken to be, and below it
    none. `start` is asked first: it is likely known."""
    low, high = 0, count
    step = start
    while low < high:
        if caught(step):
            high = step
        else:
            low = step + 1
        step = (low + high) // 2
    return low


def known_weakest(bench: Bench, entry: Entry) -> Weakest | None:
    """What an earlier part of this proof found."""
    path = bench.folder(entry) / FOUND
    if not path.exists():
        return None
    try:
        return Weakest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path}: {first_error(error, 'file')}; remove it and resume") from None


def find_weakest(bench: Bench, name: str, *, reporter: Reporter) -> Weakest | None:
    """Gate as many doses of one entry as the bisection asks for, and keep what came of it; None: it does not apply.

    Raises:
        RunFailed: the gate of a dose failed, so that nothing is known of it.
    """
    entry = BY_NAME[name]
    assert entry.doses
    try:
        steps, stated = entry.doses.steps(bench.good), entry.doses.stated(bench.good)
    except NotApplicable:
        return None
    tried: dict[float, Status] = {}

    def caught(step: int) -> bool:
        dose = steps[step]
        folder = bench.folder(entry) / "doses" / f"{dose:g}"
        before = known(bench.folder(entry) if dose == stated else folder, entry)
        finding = before or gated(bench, name, reporter=reporter, dose=None if dose == stated else dose)
        if finding.status == "not run":
            raise RunFailed(f"{name} at {_words(entry, dose, steps)}: {finding.reason}; {folder / RESULT}")
        reporter.say(f"-- {name} at {_words(entry, dose, steps)}: {finding.status}")
        tried[dose] = finding.status
        return finding.status == "caught"

    first = first_caught(len(steps), caught, steps.index(stated))
    found = Weakest(
        name=name,
        damage=entry.damage,
        caught=_words(entry, steps[first], steps) if first < len(steps) else None,
        not_caught=_words(entry, steps[first - 1], steps) if first else None,
        tried={_words(entry, dose, steps): status for dose, status in sorted(tried.items(), key=_place(steps))},
    )
    write_whole(bench.folder(entry) / FOUND, found.model_dump_json(indent=2) + "\n")
    return found


def _words(entry: Entry, dose: float, steps: Sequence[float]) -> str:
    assert entry.doses
    return entry.doses.words(dose, steps[-1])


def _place(steps: Sequence[float]) -> Callable[[tuple[float, Status]], int]:
    return lambda item: list(steps).index(item[0])
