"""Caches by hand, the cards that hold GLM-5, time by extrapolation, and what a plan refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from model_configs import GLM_5, small_config, write_config

from quantizers.errors import QuantizeError
from quantizers.sizing.cards import GIB, cache_bytes, card_fits
from quantizers.sizing.effort import MEASURED_WEIGHTS
from quantizers.sizing.size_plan import SizePlan, plan_model

SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}  # fmt: skip


def config(**settings: Any) -> SimpleNamespace:
    dense = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512}
    return SimpleNamespace(**(dense | settings))


@pytest.mark.parametrize(
    ("settings", "cards", "nbytes"),
    [
        ({}, 1, 4 * 1000 * 2 * 2 * 64 * 2),
        ({}, 2, 4 * 1000 * 2 * 1 * 64 * 2),
        ({}, 8, 4 * 1000 * 2 * 1 * 64 * 2),  # no card has less than one head
        ({"num_key_value_heads": None}, 1, 4 * 1000 * 2 * 8 * 64 * 2),
        ({"head_dim": 32}, 1, 4 * 1000 * 2 * 2 * 32 * 2),
        ({"sliding_window": 100}, 1, 4 * 100 * 2 * 2 * 64 * 2),
        ({"sliding_window": 100, "use_sliding_window": False}, 1, 4 * 1000 * 2 * 2 * 64 * 2),
        (
            {"sliding_window": 100, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
            1,
            (3 * 100 + 1000) * 2 * 2 * 64 * 2,
        ),
        ({"layer_types": ["linear_attention"] * 3 + ["full_attention"]}, 1, 1000 * 2 * 2 * 64 * 2),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 1, 4 * 1000 * 576 * 2),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 8, 4 * 1000 * 576 * 2),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64, "index_head_dim": 128}, 1, 4 * 1000 * (576 * 2 + 132)),
    ],
)
def test_the_cache_of_a_thousand_tokens(settings: dict[str, Any], cards: int, nbytes: int) -> None:
    assert cache_bytes(config(**settings), 1000, cards) == nbytes


def test_a_draft_layer_has_a_cache_too() -> None:
    assert cache_bytes(config(), 1000, 1, 1) == 5 * cache_bytes(config(), 1000) // 4


def test_the_smallest_count_and_the_longest_context_by_hand() -> None:
    own = config(max_position_embeddings=10**6)  # 2,048 bytes a token on one card, 1,024 on two and more
    fits = {fit.card: fit for fit in card_fits(own, int(70e9), int(8e9), 1, 1_000_000)}
    h100, h200 = fits["H100 80 GB"], fits["H200 141 GB"]
    assert (h100.smallest, h100.with_draft, h200.smallest) == (1, 2, 1)
    assert h100.contexts == {1: 10**6, 2: 10**6, 4: 10**6, 8: 10**6}
    tight = next(fit for fit in card_fits(own, int(75e9), 0, 0, 1000) if fit.card == "H100 80 GB")
    assert tight.contexts[1] == int(((79.1 * GIB - 2e9) / 1.1 - 75e9) / 2048) > 1000
    assert fits["RTX 4090 24 GB"].contexts[1] == 0


@pytest.fixture(scope="module")
def glm_5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("configs") / "glm", **GLM_5)


def needed(plan: SizePlan) -> dict[str, int | None]:
    return {fit.card: fit.smallest for fit in plan.fits}


@pytest.mark.slow
def test_glm_5_at_4_bits_takes_four_h200_with_its_draft_layer(glm_5: Path) -> None:
    plan = plan_model(glm_5, None, None, "w4a16", None, None)
    assert plan.original_bytes == pytest.approx(1.49e12, rel=0.01) and plan.context == 131072
    assert needed(plan)["H200 141 GB"] == 4 and plan.fits[1].with_draft == 4
    experts_alone = plan_model(glm_5, 4.125, None, None, 16, None)
    assert needed(experts_alone)["H200 141 GB"] == 4 and experts_alone.fits[1].with_draft == 4


def test_glm_5_at_1_71_bits_takes_two_cards_of_96_gb_with_context(glm_5: Path) -> None:
    plan = plan_model(glm_5, 1.71, None, None, 8, 16384)
    card = next(fit for fit in plan.fits if fit.card.startswith("RTX PRO 6000"))
    assert card.smallest == 2 and 16384 < card.contexts[2] < 65536 and card.contexts[4] == 202752
    assert card.with_draft == 4
    assert any("8 bits (--rest)" in note for note in plan.notes) and any("draft" in note for note in plan.notes)


def test_a_dense_model_fits_anywhere(tmp_path: Path) -> None:
    plan = plan_model(write_config(tmp_path / "smol", **SMOLLM2), None, None, "w4a16", None, None)
    assert plan.model.parameters() == 134_515_008 and set(needed(plan).values()) == {1}
    assert plan.context == 8192 and plan.cache_bytes == 30 * 8192 * 2 * 3 * 64 * 2


def test_time_is_what_was_measured_times_the_weights(tmp_path: Path) -> None:
    folder = small_config(tmp_path / "dense", "llama")
    weights = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)

    def seconds(bits: float | None, recipe: str | None) -> tuple[float | None, ...]:
        made = plan_model(folder, bits, None, recipe, None, None).effort
        return tuple(None if s is None else s * MEASURED_WEIGHTS / weights for s in (made.seconds, made.floor_seconds))

    assert seconds(2, None) == pytest.approx((114.1, 13.1)) == seconds(2, "mixed") == seconds(None, "vq-2bit")
    assert seconds(5, None) == pytest.approx((93.4, 35.1)) == seconds(None, "w4a16")
    assert seconds(None, "trellis-2bit") == pytest.approx((106.5, 106.5))
    assert seconds(None, "fp8-block") == (0, 0)
    unmeasured = tmp_path / "recipe.yaml"
    unmeasured.write_text("{name: r, tier: trellis2, tune: none}")
    whole, floor = seconds(None, str(unmeasured))
    assert whole is None and floor == pytest.approx(106.5)


def test_memory_and_disk_by_hand(tmp_path: Path) -> None:
    plan = plan_model(small_config(tmp_path / "dense", "llama"), None, None, "w4a16", None, None)
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96 + 2 * 64
    hessians = 64 * 64 * 3 + 96 * 96  # q+k+v, o, gate+up, down
    states = 32 * 512 * 64 * 4 * 2
    assert plan.effort.memory_bytes == 4 * (layer + hessians) + states
    assert plan.effort.disk_bytes == plan.sizes.nbytes() + states


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((None, None, None, None, None), "say what the model becomes"),
        ((2.0, "1GB", None, None, None), "either in bits a weight or in bytes"),
        ((None, "much", None, None, None), "is no size"),
        ((None, None, "nosuch", None, None), "unknown recipe"),
        ((None, None, "w4a16", 8, None), "leave out --rest"),
        ((2.0, None, None, None, 10**9), "the model is made for 1 to 2,048 tokens"),
        ((2.0, None, None, None, 0), "the model is made for"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path: Path, arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(QuantizeError, match=says):
        plan_model(small_config(tmp_path / "dense", "llama"), *arguments)


def test_the_experts_time_is_that_of_a_layer_of_glm_5(glm_5: Path) -> None:
    effort = plan_model(glm_5, 1.71, None, None, 8, None).effort
    experts = 75 * (176.8 + 42.5 * 32 / 64)  # of the calibration that ships: 32 x 512 tokens
    assert effort.seconds is not None
    assert experts < effort.seconds < experts + 41.6 * 19.6e9 / MEASURED_WEIGHTS  # the rest: int8
    int4 = plan_model(glm_5, None, None, "glm-5.2-w4a16-mtp", None, None).effort
    assert int4.floor_seconds is not None and int4.floor_seconds > 75 * 187.9
    mixed = plan_model(glm_5, None, "167GiB", "glm-5.2-mixed", None, None).effort
    assert mixed.seconds is not None and mixed.seconds > 75 * (176.8 + 42.5 * 40 * 512 / 32768)


def test_a_mix_takes_its_bf16_form_on_the_disk_and_time_to_choose(tmp_path: Path) -> None:
    folder = small_config(tmp_path / "dense", "llama")
    mixed, settled = (
        plan_model(folder, bits, None, recipe, None, None) for bits, recipe in ((2, None), (None, "w4a16"))
    )
    parameters = sum(part.parameters for part in mixed.sizes.parts)
    assert mixed.effort.disk_bytes - mixed.sizes.nbytes() == settled.effort.disk_bytes - settled.sizes.nbytes() + (
        2 * parameters
    )
    assert mixed.effort.mix_seconds is None is settled.effort.mix_seconds  # of dense models nothing is known


def test_notes_say_what_is_so_of_this_plan(glm_5: Path, tmp_path: Path) -> None:
    def notes(folder: Path, bits: float | None, recipe: str | None) -> str:
        return " ".join(plan_model(folder, bits, None, recipe, None, None).notes)

    dense = small_config(tmp_path / "dense", "llama")
    for recipe in ("w4a16", "vq-2bit"):
        assert "a mix takes longer" not in notes(dense, None, recipe)
    assert "a mix takes longer" in notes(dense, 2, "mixed") and "a mix takes longer" in notes(dense, 2, None)
    assert "routed experts" not in notes(dense, 2, None) and "h and" not in notes(dense, 2, "mixed")
    assert "about 12 h and 31 h, never measured" in notes(glm_5, 1.71, "glm-5.2-mixed")
    assert "about 12 h and 31 h, never measured" in notes(glm_5, 1.71, None)
    assert "routed experts of vq, trellis, int tiers from a layer" in notes(glm_5, None, "glm-5.2-w4a16-mtp")


def test_a_checkpoint_that_calls_itself_quantized_is_told_first(tmp_path: Path) -> None:
    from harness.gate.sizing import plan_lines

    awq = small_config(tmp_path / "awq", "llama", quantization_config={"quant_method": "awq", "bits": 4})
    plan = plan_model(awq, 2, None, None, None, None)
    assert next(plan_lines(plan)) == "quantized already (awq): what follows is of its original in 16 bits"
    assert "quantize takes that, or 8-bit floats in blocks" in plan.notes[0]
