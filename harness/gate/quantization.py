"""Quantizing before gating: the checkpoint of a MODEL that is not quantized yet, made once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.checkpoint.models import require_original
from harness.contract.errors import BadInput
from harness.contract.policy import Policy
from harness.contract.whole_files import cache_folder
from harness.gate.mixing import NO_SIZE, Size, mixed_recipe, require_fitting
from harness.gate.recipes import bad_input, shown, with_traces
from harness.runs.progress import Reporter

NOT_SERVED = (
    "vLLM serves no integers of 2 bits; take vq2 or trellis2, or gate what `quantgate dequantize` makes of them, with "
    "--reference"
)


def quantize_model(
    model: Path,
    recipe_name: str,
    out: Path,
    reporter: Reporter,
    policy: Policy | None = None,
    size: Size = NO_SIZE,
    device: str | None = None,
    ray: str | None = None,
) -> Path:
    """Quantize `model` into `out` with a progress bar. A call that was interrupted is gone on with.

    Traces of the model itself that the recipe asks for are made first, once, served as `policy` (demo) says. What a
    recipe leaves open is measured and chosen for the `size`; the files of that are kept beside `out`. `device`
    and `ray` as `quantizers.pipeline.quantize` has them; a mix is measured on the first GPU.

    Raises:
        BadInput: the model, the recipe or the calibration text cannot be used, or the model calls itself quantized; a
            recipe that leaves tiers open without a size, or the other way round.
    """
    from quantizers.pipeline import quantize
    from quantizers.recipe import load_recipe
    from quantizers.workers.opening import open_workers

    require_original(str(model), model)
    with bad_input():
        recipe = load_recipe(recipe_name)
    require_fitting(recipe, size)
    recipe = with_traces(recipe, model, policy, reporter)
    if recipe.mix:
        with bad_input():
            open_workers(device, ray)[1].close()  # what is not there is named before hours of measuring
        recipe = with_traces(mixed_recipe(model, recipe, size, out, reporter, device), model, policy, reporter)
    with shown(reporter, f"quantize {recipe.name}") as show:
        return quantize(model, recipe, out, progress=show, device=device, ray=ray)


def dequantize_model(folder: Path, out: Path) -> Path:
    """A codebook checkpoint as plain bf16 in the new folder `out`.

    Raises:
        BadInput: the folder is no codebook checkpoint, or one that contradicts itself.
    """
    from quantizers.dequantize import dequantize

    with bad_input():
        return dequantize(folder, out)


def quantized(
    model: Path, recipe_name: str, reporter: Reporter, policy: Policy | None = None, size: Size = NO_SIZE
) -> Path:
    """The quantized form of `model` in the cache; made when it is not there.

    The folder's name is the hash of the model, the recipe, its calibration files, the size and the quantizer's own
    code, so nothing stale is reused. The rest, and what is raised, as for `quantize_model`.
    """
    from quantizers.calibration_sources import files_digest
    from quantizers.checkpoint import fingerprint, open_checkpoint
    from quantizers.code_digest import code_sha256
    from quantizers.recipe import KEPT, load_recipe
    from quantizers.schemes import servable

    with bad_input():
        recipe = load_recipe(recipe_name)
    tiers = {*(recipe.mix or [recipe.tier]), *recipe.tiers.values()}
    if not servable(tiers - {KEPT}):
        raise BadInput(f"recipe {recipe.name}: {NOT_SERVED}")
    require_fitting(recipe, size)
    recipe = with_traces(recipe, model, policy, reporter)
    with bad_input():
        what = [fingerprint(open_checkpoint(model)), recipe.digest(), files_digest(recipe.calibration), code_sha256()]
    key = hashlib.sha256(" ".join([*what, *size.words()]).encode()).hexdigest()[:16]
    out = cache_folder() / "quantized" / f"{model.name}-{Path(recipe_name).stem}-{key}"
    if (out / "config.json").exists():
        reporter.say(f"quantized before: {out}")
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    return quantize_model(model, recipe_name, out, reporter, policy, size)
