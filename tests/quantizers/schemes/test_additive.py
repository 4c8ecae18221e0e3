"""Additive codes: the search, the updates in turn with it, and what other readers find in the config."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from quantgate_kernels.formats.aqlm import AQLMLayout, decode

from quantizers import kmeans
from quantizers.additive import AdditiveFit, Effort
from quantizers.curvature import Curvature
from quantizers.errors import QuantizeError
from quantizers.schemes import TIERS
from quantizers.schemes.additive import Additive


def tick() -> None:
    """Nobody watches."""


def correlated(rows: int = 96, columns: int = 128) -> tuple[torch.Tensor, Curvature]:
    """A weight whose rows differ in size, and the Hessian of inputs that know of each other."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.eye(columns) + 0.1 * torch.randn(columns, columns, generator=generator)
    inputs = torch.randn(4 * columns, columns, generator=generator) @ mix
    weight = torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)
    return weight, Curvature(inputs.t() @ inputs)


def loss(weight: torch.Tensor, found: torch.Tensor, curvature: Curvature) -> float:
    error = weight - found
    return float(((error @ curvature.hessian) * error).sum() / ((weight @ curvature.hessian) * weight).sum())


@pytest.fixture(scope="module")
def fits() -> dict[int, AdditiveFit]:
    """The same weight after a search with beams of 1 and 4, before any update."""
    made = {}
    for beam in (1, 4):
        made[beam] = AdditiveFit(*correlated(), AQLMLayout(2, 6), 0.01, Effort(beam=beam))
        made[beam].search(tick, first=True)
    return made


def test_a_beam_finds_better_codes_than_the_greedy_search(fits: dict[int, AdditiveFit]) -> None:
    assert torch.equal(fits[1].codebooks, fits[4].codebooks)
    greedy, beam = (float(fits[width].row_losses().sum()) for width in (1, 4))
    assert beam < 0.95 * greedy


def test_what_the_beam_counts_is_the_error_of_its_codes(fits: dict[int, AdditiveFit]) -> None:
    """Codes are traced back through the beginnings that were kept: mixed up, they would be no better than chance."""
    fit = fits[4]
    shuffled = fit.codes.roll(1, 1)
    assert float(fit.row_losses().sum()) < 0.2 * float(fit.row_losses(shuffled).sum())


def test_every_step_lowers_the_error() -> None:
    fit = AdditiveFit(*correlated(), AQLMLayout(2, 6), 0.01, Effort(beam=2))
    fit.search(tick, first=True)
    losses = [float(fit.row_losses().sum())]
    for _ in range(3):
        for step in (partial(fit.update_codebooks, tick), fit.update_scales, partial(fit.search, tick)):
            step()
            losses.append(float(fit.row_losses().sum()))
    assert all(after <= before * (1 + 1e-5) for before, after in pairwise(losses))
    assert losses[1] < 0.97 * losses[0] and losses[-1] < 0.9 * losses[0]


def test_codebooks_come_to_the_least_squares_solution() -> None:
    """Few entries and many steps: no other codebooks are better for these codes."""
    weight, curvature = correlated(32, 32)
    fit = AdditiveFit(weight, curvature, AQLMLayout(1, 2), 0.01, Effort(steps=400))
    fit.search(tick, first=True)
    fit.update_codebooks(tick)
    root = torch.linalg.cholesky(fit.hessian.double())
    columns = []
    for entry in range(4):
        for place in range(8):
            alone = torch.zeros(1, 4, 1, 8)
            alone[0, entry, 0, place] = 1
            chosen = alone[0, :, 0][fit.codes[:, :, 0]].reshape(32, 32) * fit.scales[:, None]
            columns.append((chosen.double() @ root).flatten())
    basis, target = torch.stack(columns, 1), (weight.double() @ root).flatten()
    best = torch.linalg.lstsq(basis, target[:, None]).solution
    assert torch.allclose(fit.codebooks.flatten().double(), best.flatten(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("tier", "bits"), [("aqlm-2x8g8", 2), pytest.param("aqlm-1x16g8", 2, marks=pytest.mark.slow)])
def test_the_error_is_far_below_that_of_rounding_at_the_same_bits(tier: str, bits: int) -> None:
    weight, curvature = correlated()
    scheme = TIERS[tier]({"a": 128}, None, 0.01)
    parts = scheme.quantize(weight, curvature, tick)
    largest = weight.abs().amax(1, keepdim=True)
    steps = [scale * largest / (1 << bits - 1) for scale in (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)]
    rounded = min(loss(weight, ((weight / s - 0.5).round().clamp(-2, 1) + 0.5) * s, curvature) for s in steps)
    assert loss(weight, scheme.dequantize(parts).float(), curvature) < 0.6 * rounded
    stored = scheme.tensors(parts)
    assert torch.equal(decode(stored).bfloat16(), scheme.dequantize(parts))
    assert stored["codes"].shape == (96, 16, 2 if tier == "aqlm-2x8g8" else 1)


def test_a_large_codebook_is_searched_through_a_tree_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, curvature = correlated(128, 64)
    made = []
    for largest in (8, 4096):
        monkeypatch.setattr(kmeans, "LARGEST_SCANNED", largest)
        fit = AdditiveFit(weight, curvature, AQLMLayout(1, 7), 0.01, Effort(beam=3, rounds=1))
        fit.run(tick)
        made.append(float(fit.row_losses().sum()))
    assert made[0] == pytest.approx(made[1], rel=0.02)  # a tie may fall either way


@pytest.mark.parametrize("tier", ["aqlm-2x8g8", pytest.param("aqlm-1x16g8", marks=pytest.mark.slow)])
def test_zeros_and_a_dead_input_are_no_trouble(tier: str) -> None:
    weight, curvature = correlated(16, 64)
    weight[3], weight[:, 8:16] = 0, 0
    curvature.hessian[:, 5], curvature.hessian[5] = 0, 0
    scheme = TIERS[tier]({"a": 64}, None, 0.01)
    for hessian in (curvature.hessian, torch.zeros(64, 64)):
        found = scheme.dequantize(scheme.quantize(weight, Curvature(hessian), tick))
        assert bool(found.isfinite().all()) and float(found[3].abs().max()) < 1e-4


def test_transformers_parses_the_config_and_spares_what_was_left_alone() -> None:
    from transformers import AqlmConfig
    from transformers.quantizers.quantizers_utils import should_convert_module

    ignore = ["lm_head", "model.layers.0.mlp.router", r"re:model\.layers\.2\..*"]
    config = Additive(AQLMLayout(2, 8), 0.05).stock_config(ignore)
    theirs = AqlmConfig.from_dict(dict(config))
    assert (theirs.num_codebooks, theirs.nbits_per_codebook) == (2, 8)
    assert (theirs.in_group_size, theirs.out_group_size) == (8, 1)
    kept = theirs.linear_weights_not_to_quantize
    for name in ("lm_head", "model.layers.0.mlp.router", "model.layers.2.self_attn.q_proj"):
        assert not should_convert_module(name, kept), name
    for name in ("model.layers.0.mlp.gate_proj", "model.layers.1.self_attn.q_proj"):
        assert should_convert_module(name, kept), name
    # Before version 5, whole names of weights.
    assert {"lm_head.weight", "model.layers.0.mlp.router.weight"} <= set(kept)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(QuantizeError, match="b has 100 inputs, which groups of 8 do not divide"):
        TIERS["aqlm-2x8g8"]({"a": 64, "b": 100}, None, 0.05)
    with pytest.raises(QuantizeError, match="tier aqlm-1x16g8 has one scale for each row: no group_size"):
        TIERS["aqlm-1x16g8"]({"a": 64}, 128, 0.05)
