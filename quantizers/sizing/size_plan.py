"""A plan of one model: sizes by part, what making it takes, the cards it fits on, and what all of that assumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantizers.errors import QuantizeError
from quantizers.mixed.choice import make_target
from quantizers.recipe import load_recipe
from quantizers.sizing.cards import RESERVED, SHARE, CardFit, cache_bytes, card_fits, default_context, longest_context
from quantizers.sizing.effort import EXPERT_SECONDS, Effort, effort
from quantizers.sizing.parts import DRAFT, EXPERTS, ModelParts, model_parts
from quantizers.sizing.tiers import KEPT_BYTES, OPEN, Sizes, sizes_by_mean, sizes_by_recipe


@dataclass(frozen=True)
class SizePlan:
    """What `quantgate plan` says."""

    model: ModelParts
    sizes: Sizes
    effort: Effort
    context: int
    """Tokens of the one sequence that `fits` makes room for."""
    cache_bytes: int
    """Of that sequence, on one card."""
    fits: list[CardFit]
    notes: list[str]
    """What is assumed, one line each."""

    @property
    def original_bytes(self) -> int:
        """Of the model in bf16 without its draft layers."""
        return KEPT_BYTES * self.model.parameters()

    @property
    def draft_bytes(self) -> int:
        """Of the draft layers, which stay in bf16."""
        return self.sizes.nbytes() - self.sizes.nbytes(draft=False)


def plan_model(
    path: Path, bits: float | None, size: str | None, recipe_name: str | None, rest: int | None, context: int | None
) -> SizePlan:
    """Plan a model from its config.json.

    Args:
        bits, size: a mean of bits, or bytes of the whole checkpoint as in "167GiB"; for no recipe, or one with a mix.
        rest: bits of attention, shared experts and dense layers where there is no recipe; None: 16.
        context: tokens of one sequence; None: what the model is made for, at most 131,072.

    Raises:
        QuantizeError: no model that can be planned, a size that no tiers have, options that contradict each other.
    """
    if recipe_name is None and bits is None and size is None:
        raise QuantizeError("say what the model becomes: --bits 1.71, --bytes 167GiB or --recipe w4a16")
    if recipe_name is not None and rest is not None:
        raise QuantizeError(f"recipe {recipe_name} says what each Linear becomes: leave out --rest")
    target = None if bits is None and size is None else make_target(bits, size)
    recipe = None if recipe_name is None else load_recipe(recipe_name)
    model = model_parts(path)
    longest = longest_context(model.config)
    if context is not None and not 0 < context <= longest:
        raise QuantizeError(f"--context {context}: the model is made for 1 to {longest:,} tokens")
    if recipe is not None:
        sizes = sizes_by_recipe(model, recipe, target)
    else:
        assert target is not None
        sizes = sizes_by_mean(model, target, rest)
    needed = effort(model, sizes, recipe)
    tokens = context or default_context(model.config)
    weights, whole = sizes.nbytes(draft=False), sizes.nbytes()
    fits = card_fits(model.config, weights, whole - weights, model.draft_layers, tokens)
    cache = cache_bytes(model.config, tokens)
    return SizePlan(model, sizes, needed, tokens, cache, fits, _notes(model, sizes, needed, recipe_name, rest))


def _notes(model: ModelParts, sizes: Sizes, needed: Effort, recipe_name: str | None, rest: int | None) -> list[str]:
    notes = []
    if model.quantized_by is not None:
        notes.append(
            f"config.json calls the checkpoint quantized ({model.quantized_by}): this plan is for its original in 16 "
            "bits, and quantize takes that, or 8-bit floats in blocks of 128 x 128"
        )
    if recipe_name is None and model.parameters(EXPERTS):
        notes.append(
            f"bits are the mean of the routed experts; other Linears of the layers have {rest or 16} bits (--rest)"
        )
    if model.parameters(DRAFT):
        notes.append(
            f"{model.draft_layers} draft layer(s) are estimated, stay in bf16, and are on a card only where it says so"
        )
    measured = "weights from measurements on one H200"
    if sizes.expert_tiers:
        times = (
            f"times are extrapolated by {measured}: routed experts of {', '.join(EXPERT_SECONDS)} tiers from a layer "
            "of GLM-5 with vq2's, trellis2's or int4's encoding, all else from a model of 0.36 billion, which uses a "
            "GPU worse"
        )
    else:
        times = f"times are extrapolated by {measured} of 0.36 billion, which uses a GPU worse"
    mix = "a mix takes longer: its tiers are measured before, and its choice is corrected by two quantizations more"
    if needed.mix_seconds is not None:
        measure, correct = (seconds / 3600 for seconds in needed.mix_seconds)
        mix += f"; from the same layer's rates about {measure:.2g} h and {correct:.2g} h, never measured as a whole"
    return [
        *notes,
        f"a card holds its even share of the weights and the bf16 cache of one sequence, {SHARE:.0%} of both more and "
        f"{RESERVED / 1e9:g} GB; of an MLA cache each card holds all; an fp8 cache takes half",
        times,
        *([mix] if OPEN in sizes.tiers else []),
        "memory is the least: block tuning holds activations too (4.6 GiB in all for that small model)",
    ]
