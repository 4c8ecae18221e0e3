"""Quantizing before gating: the checkpoint of a MODEL that is not quantized yet, made once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoint.models import require_original
from harness.contract.errors import BadInput
from harness.contract.policy import Policy, load_policy
from harness.contract.whole_files import cache_folder
from harness.runs.progress import Reporter

if TYPE_CHECKING:
    from quantizers.recipe import Recipe

NOT_SERVED = (
    "vLLM cannot serve these codes yet; gate what `quantgate dequantize` makes of them, or attach to a server "
    "that can with --candidate-url and --reference-url"
)


def quantize_model(model: Path, recipe_name: str, out: Path, reporter: Reporter, policy: Policy | None = None) -> Path:
    """Quantize `model` into `out` with a progress bar. A call that was interrupted is gone on with.

    Traces of the model itself that the recipe asks for are made first, once, served as `policy` (demo) says.

    Raises:
        BadInput: the model, the recipe or the calibration text cannot be used, or the model calls itself quantized.
    """
    from quantizers.errors import QuantizeError
    from quantizers.pipeline import quantize
    from quantizers.recipe import load_recipe

    require_original(str(model), model)
    try:
        recipe = load_recipe(recipe_name)
    except QuantizeError as error:
        raise BadInput(str(error)) from None
    recipe = _with_traces(recipe, model, policy or load_policy("demo").policy, reporter)
    with reporter.stage(f"quantize {recipe.name}") as meter:

        def show(stage: str, done: int, total: int) -> None:
            if stage == "layer":
                meter.update(done=done, total=total, text="")
            else:
                meter.update(text=f"{stage} {done}/{total}")

        try:
            return quantize(model, recipe, out, progress=show)
        except QuantizeError as error:
            raise BadInput(str(error)) from None


def dequantize_model(folder: Path, out: Path) -> Path:
    """A codebook checkpoint as plain bf16 in the new folder `out`.

    Raises:
        BadInput: the folder is no codebook checkpoint, or one that contradicts itself.
    """
    from quantizers.dequantize import dequantize
    from quantizers.errors import QuantizeError

    try:
        return dequantize(folder, out)
    except QuantizeError as error:
        raise BadInput(str(error)) from None


def quantized(model: Path, recipe_name: str, reporter: Reporter, policy: Policy | None = None) -> Path:
    """The quantized form of `model` in the cache; made when it is not there.

    The folder's name is the hash of the model, the recipe, its calibration files and the quantizer's own code, so
    nothing stale is reused. `policy` as for `quantize_model`. Raises BadInput as `quantize_model` does.
    """
    from quantizers.calibration_sources import files_digest
    from quantizers.checkpoint import fingerprint, open_checkpoint
    from quantizers.errors import QuantizeError
    from quantizers.recipe import load_recipe
    from quantizers.schemes import served

    try:
        recipe = load_recipe(recipe_name)
        if not served({recipe.tier, *recipe.tiers.values()}):
            raise BadInput(f"recipe {recipe.name}: {NOT_SERVED}")
        recipe = _with_traces(recipe, model, policy or load_policy("demo").policy, reporter)
        what = [fingerprint(open_checkpoint(model)), recipe.digest(), files_digest(recipe.calibration), _code_sha256()]
    except QuantizeError as error:
        raise BadInput(str(error)) from None
    key = hashlib.sha256(" ".join(what).encode()).hexdigest()[:16]
    out = cache_folder() / "quantized" / f"{model.name}-{Path(recipe_name).stem}-{key}"
    if (out / "config.json").exists():
        reporter.say(f"quantized before: {out}")
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    return quantize_model(model, recipe_name, out, reporter, policy)


def _with_traces(recipe: Recipe, model: Path, policy: Policy, reporter: Reporter) -> Recipe:
    """The recipe with files in the cache for the traces that it asks for; those that are not there are made.

    Raises:
        BadInput, RunFailed: they cannot be made.
    """
    from quantizers.checkpoint import fingerprint, open_checkpoint
    from quantizers.errors import QuantizeError

    counts = {source.traces for source in recipe.calibration.sources if source.traces is not None}
    if not counts:
        return recipe
    from harness.gate.traces import traces_key, write_traces

    try:
        mark = fingerprint(open_checkpoint(model))
    except QuantizeError as error:
        raise BadInput(str(error)) from None
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


def _code_sha256() -> str:
    """Over everything that decides what the quantizer writes: its code and its calibration text."""
    import quantgate_kernels

    import quantizers

    digest = hashlib.sha256()
    for package in (quantgate_kernels, quantizers):
        folder = Path(str(package.__file__)).parent
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.txt"), *folder.rglob("*.jsonl")]):
            digest.update(f"{file.relative_to(folder)} ".encode() + file.read_bytes())
    return digest.hexdigest()
