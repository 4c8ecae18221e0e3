"""A recipe made ready for one model: found by its name, and the traces written that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contract.errors import BadInput
from harness.contract.policy import Policy, load_policy
from harness.contract.whole_files import cache_folder
from harness.runs.progress import Reporter

if TYPE_CHECKING:
    from quantizers.layer import Progress
    from quantizers.recipe import Recipe


@contextmanager
def bad_input() -> Iterator[None]:
    """Turn what the quantizers refuse into BadInput."""
    from quantizers.errors import QuantizeError

    try:
        yield
    except QuantizeError as error:
        raise BadInput(str(error)) from None


def make_parent(file: Path) -> None:
    """Make the folder that `file` will lie in. Raises BadInput where it cannot be made, before any work is done."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {file} ({error.strerror}): choose another place") from None


@contextmanager
def shown(reporter: Reporter, name: str) -> Iterator[Progress]:
    """A stage of quantizing that shows its layers, and what goes on within one."""
    with reporter.stage(name) as meter, bad_input():

        def show(stage: str, done: int, total: int) -> None:
            if stage == "layer":
                meter.update(done=done, total=total, text="")
            else:
                meter.update(text=f"{stage} {done}/{total}")

        yield show


def with_traces(recipe: Recipe, model: Path, policy: Policy | None, reporter: Reporter) -> Recipe:
    """The recipe with files in the cache for the traces that it asks for; those that are not there are made.

    The model is served as `policy` (demo) says.

    Raises:
        BadInput, RunFailed: they cannot be made.
    """
    from quantizers.checkpoint import fingerprint, open_checkpoint

    counts = {source.traces for source in recipe.calibration.sources if source.traces is not None}
    if not counts:
        return recipe
    from harness.gate.traces import traces_key, write_traces

    policy = policy or load_policy("demo").policy
    with bad_input():
        mark = fingerprint(open_checkpoint(model))
    files = {}
    for count in counts:
        file = cache_folder() / "traces" / f"{model.name}-{traces_key(model, mark, count, policy)}.jsonl"
        if file.exists():
            reporter.say(f"traces written before: {file}")
        else:
            made = write_traces(model, str(model), file, count, policy, reporter)
            reporter.say(f"traces: {made.summary()}: {file}")
        files[count] = file
    sources = tuple(
        source if source.traces is None else source.model_copy(update={"file": files[source.traces]})
        for source in recipe.calibration.sources
    )
    return recipe.model_copy(update={"calibration": recipe.calibration.model_copy(update={"sources": sources})})
